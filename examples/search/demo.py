# SPDX-License-Identifier: Apache-2.0
"""What `make search` runs: passages embedded by a real server, and questions answered from them.

    .venv/bin/python -m examples.search.demo --ask "software that nobody dares to change"

The table goes to standard output, with --json as JSON; what is being done goes to standard error.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device.errors import ModelError
from device.quantize.tables import ProgressBars
from device.session import Session
from edge_server.client import CallError, Client
from examples.digits.server import ServerProcess
from examples.search.build import CHOSEN, FOLDER, SETTINGS, build, ready
from examples.search.corpus import passages, questions
from examples.search.embedder import Server, embedded
from examples.search.minilm import Feed, Tokens
from examples.search.ranking import Agreement, Embeddings, agreement, best, place, scores

TIMEOUT = 60.0  # seconds, of one request: the first of a shape waits until it is compiled


@dataclass(frozen=True)
class Found:
    """What the server was asked and what it gave: embeddings, and who computed how many batches."""

    asked: list[str]
    passages: Embeddings
    questions: Embeddings
    seconds: float
    devices: dict[str, int]


def search(address: str, asked: list[str]) -> Found:
    """All passages in batches, then the questions one by one, over gRPC. Raises CallError."""
    tokens = Tokens()
    with Client(address, TIMEOUT) as client:
        server = Server(client)
        started = time.perf_counter()
        whole = embedded([passage.whole for passage in passages()], tokens, server)
        seconds = time.perf_counter() - started
        return Found(asked, whole, embedded(asked, tokens, server, 1), seconds, server.devices)


def compared(found: Found, fp32: Path) -> Agreement:
    """With the float32 model, run here by onnxruntime."""
    tokens = Tokens()
    with Session(fp32, "none") as session:

        def run(feed: Feed) -> Embeddings:
            (embedding,) = session.run(None, feed)
            return np.asarray(embedding, np.float32)

        theirs = embedded(found.asked, tokens, run, 1)
        whole = embedded([passage.whole for passage in passages()], tokens, run)
    return agreement((found.questions, found.passages), (theirs, whole))


def as_json(found: Found, close: Agreement, top: int, setting: str) -> dict[str, Any]:
    """Everything that the tables show, and the passages in full."""
    whole = passages()
    return {
        "setting": setting,
        "passages": len(whole),
        "seconds": round(found.seconds, 3),
        "devices": found.devices,
        "agreement_with_fp32": asdict(close),
        "answers": [
            {
                "question": question,
                "passages": [
                    {"score": round(float(score[i]), 4), **asdict(whole[i])}
                    for i in best(score, top)
                ],
            }
            for question, score in zip(
                found.asked, scores(found.questions, found.passages), strict=True
            )
        ],
    }


def print_one(console: Console, found: Found, top: int) -> None:
    """The best passages for the first question."""
    (score, *_) = scores(found.questions, found.passages)
    table = Table(title=escape(found.asked[0]), title_justify="left", box=None)
    table.add_column("score", justify="right")
    table.add_column("passage")
    whole = passages()
    for index in best(score, top):
        passage = whole[index]
        text = f"[bold]{escape(passage.title)}[/]: {escape(passage.text)}"
        table.add_row(f"{score[index]:.3f}", text)
    console.print(table)


def print_all(console: Console, found: Found) -> None:
    """For each of the example's questions its best passage, and where the expected one came."""
    table = Table(title=f"{len(found.asked)} questions", title_justify="left", box=None)
    table.add_column("question", max_width=72)
    table.add_column("score", justify="right")
    table.add_column("best passage")
    table.add_column("expected passage")
    titles = [passage.title for passage in passages()]
    places = []
    rows = zip(questions(), scores(found.questions, found.passages), strict=True)
    for question, score in rows:
        first = best(score, 1)[0]
        places.append(place(score, titles.index(question.passage)))
        came = "the same" if places[-1] == 1 else f"{question.passage} ({places[-1]}.)"
        table.add_row(escape(question.question), f"{score[first]:.3f}", titles[first], came)
    console.print(table)
    first, five = (sum(p <= n for p in places) for n in (1, 5))
    console.print(
        f"expected passage first for {first} of {len(places)} questions, among the best five "
        f"for {five}",
        highlight=False,
    )


def print_summary(console: Console, found: Found, close: Agreement, setting: str) -> None:
    """Who computed it, how fast, and how far it is from float32."""
    devices = ", ".join(f"{count} on {name}" for name, count in found.devices.items())
    console.print(
        f"{len(found.passages)} passages embedded in {found.seconds:.2f} s "
        f"({found.seconds / len(found.passages) * 1e3:.1f} ms each); requests: {devices}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"int8 ({setting}) against fp32: same first passage {close.top1:.1%}, best five in common "
        f"{close.top5:.1%}, largest error of a score {close.score_error:.3f}, cosine of "
        f"embeddings {close.cosine_mean:.4f} on average, {close.cosine_least:.4f} at least",
        highlight=False,
        soft_wrap=True,
    )


async def served(folder: Path, asked: list[str], console: Console) -> Found:
    """A server for as long as the search takes. Raises ConnectionError or CallError."""
    server = await ServerProcess.start(folder / "model_repository")
    console.print(f"tepi serve at {server.address}", highlight=False)
    try:
        return await asyncio.to_thread(search, server.address, asked)
    finally:
        await server.stop()


def run(ask: str | None, top: int, folder: Path, setting: str, json_wanted: bool) -> None:
    """Build where needed, serve, search, print."""
    told = Console(stderr=True)
    if not ready(folder, setting):
        told.print(f"building the int8 model in {folder} (once)", highlight=False)
        with ProgressBars(quiet=json_wanted) as progress:
            build(progress, folder, setting)
    asked = [ask] if ask else [question.question for question in questions()]
    found = asyncio.run(served(folder, asked, told))
    close = compared(found, folder / "fp32.onnx")
    if json_wanted:
        print(json.dumps(as_json(found, close, top, setting), indent=2))
        return
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    if ask:
        print_one(console, found, top)
    else:
        print_all(console, found)
    print_summary(console, found, close, setting)


def main() -> int:
    """Exit code 0, or 1 where the model cannot be built or the server does not answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ask", help="one question of your own in place of the example's")
    parser.add_argument("--top", type=int, default=5, help="passages shown for it (5)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the model is, or goes")
    parser.add_argument("--setting", choices=SETTINGS, default=CHOSEN, help="what becomes int8")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.top < 1:
        parser.error("--top must be at least 1")
    try:
        run(arguments.ask, arguments.top, arguments.folder, arguments.setting, arguments.json)
    except (FileNotFoundError, ModelError, ConnectionError, CallError) as error:
        print(f"the demo cannot go on: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

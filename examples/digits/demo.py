# SPDX-License-Identifier: Apache-2.0
"""What `make demo` runs: real digits through a real server, with the card taken away midway.

Every promise below is checked; the exit code is 0 only if all hold. The client speaks the Open
Inference Protocol from a process of its own, as any stock client would.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device.host import open_session
from examples.digits.client import Answer, DigitsClient
from examples.digits.server import ServerProcess, tepi

HERE = Path(__file__).resolve().parent
IN_FLIGHT = 16
POINT = 0.01
AFTER_SWITCH = 400
SWITCH_SECONDS = 60.0

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass
class Promises:
    """What the demo promises and whether each held, printed as it is found out."""

    console: Console
    broken: list[str] = field(default_factory=list)

    def check(self, held: bool, text: str) -> None:
        """Print the promise with a tick or a cross; a cross makes the demo fail."""
        mark = "[green]✓[/]" if held else "[red]✗[/]"
        self.console.print(f"  {mark} {text}")
        if not held:
            self.broken.append(text)


def held_out() -> tuple[Images, Labels]:
    """The digits that were neither trained nor calibrated on: [n, 1, 8, 8] of 0..16, labels."""
    with np.load(HERE / "held-out.npz") as file:
        return file["images"].astype(np.float32)[:, None], file["labels"].astype(np.int64)


def fp32_accuracy(images: Images, labels: Labels) -> float:
    """Accuracy of the unquantized model, measured here and now with onnxruntime."""
    session = open_session(str(HERE / "fp32.onnx"))
    (probabilities,) = session.run(None, {"image": images})
    return float(np.mean(np.argmax(probabilities, axis=1) == labels))


def accuracy(answers: list[Answer], labels: Labels) -> float:
    """Share of answers, asked in the order of labels, that name the right digit."""
    return float(np.mean([a.digit == labels[a.index % len(labels)] for a in answers]))


def devices(answers: list[Answer]) -> str:
    """Such as `599 on card`."""
    counted = Counter(answer.device for answer in answers)
    return ", ".join(f"{count} on {device}" for device, count in counted.most_common())


async def classify(console: Console, client: DigitsClient, promises: Promises) -> None:
    """All held-out digits, one at a time and then 16 in flight."""
    images, labels = held_out()
    reference = fp32_accuracy(images, labels)
    single = [await client.classify(i, image) for i, image in enumerate(images)]
    started = time.perf_counter()
    rounds = 5
    many = await client.classify_all(list(images) * rounds, IN_FLIGHT)
    elapsed = time.perf_counter() - started

    table = Table(title=f"{len(labels)} held-out handwritten digits")
    for column in ("in flight", "accuracy", "device", "p50 ms", "p90 ms", "p99 ms", "requests/s"):
        table.add_column(column, justify="right")
    for depth, answers, seconds in (
        (1, single, sum(a.seconds for a in single)),
        (IN_FLIGHT, many, elapsed),
    ):
        p50, p90, p99 = np.percentile([a.seconds * 1e3 for a in answers], [50, 90, 99])
        table.add_row(
            str(depth),
            f"{accuracy(answers, labels):.2%}",
            devices(answers),
            *(f"{value:.2f}" for value in (p50, p90, p99)),
            f"{len(answers) / seconds:,.0f}",
        )
    console.print(table)
    ours = accuracy(single, labels)
    promises.check(
        abs(ours - reference) <= POINT,
        f"accuracy {ours:.2%} is within one point of the fp32 model's {reference:.2%}",
    )
    promises.check(
        all(a.device == "card" for a in single + many), "every digit was classified on the card"
    )


class Load:
    """Requests that keep coming, 16 at a time, until stopped; remembers every answer."""

    def __init__(self, client: DigitsClient, images: Images) -> None:
        self._client = client
        self._images = images
        self._stopped = False
        self._changed = asyncio.Event()
        self.answers: list[Answer] = []
        self.failures: list[str] = []

    async def run(self) -> None:
        """Ends when stopped; a failed request is counted, not raised."""
        await asyncio.gather(*(self._worker(i) for i in range(IN_FLIGHT)))

    async def _worker(self, index: int) -> None:
        while not self._stopped:
            try:
                image = self._images[index % len(self._images)]
                self.answers.append(await self._client.classify(index, image))
            except ConnectionError as error:
                self.failures.append(str(error))
            self._changed.set()
            index += IN_FLIGHT

    async def until(self, device: str, count: int) -> bool:
        """Wait until the last `count` answers are all from this device; False if it took longer
        than SWITCH_SECONDS."""
        seen = len(self.answers)
        try:
            async with asyncio.timeout(SWITCH_SECONDS):
                while len(self.answers) < seen + count or not all(
                    device == answer.device for answer in self.answers[-count:]
                ):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Let the requests in flight end and send no more."""
        self._stopped = True


async def take_card_away(client: DigitsClient, address: str, promises: Promises) -> None:
    """Detach and attach the card under load: nothing fails, and each answer says who gave it."""
    images, labels = held_out()
    load = Load(client, images)
    running = asyncio.create_task(load.run())
    before = await load.until("card", AFTER_SWITCH)
    await tepi("card", "detach", "--address", address)
    away = await load.until("onnxruntime", AFTER_SWITCH)
    await tepi("card", "attach", "--address", address)
    back = await load.until("card", AFTER_SWITCH)
    load.stop()
    await running

    reasons = Counter(a.reason for a in load.answers if a.device != "card")
    promises.check(
        not load.failures,
        f"{len(load.answers):,} requests while the card went and came back: "
        f"{len(load.failures)} failed {'; '.join(sorted(set(load.failures))[:3])}".rstrip(),
    )
    promises.check(before and away, "without the card, onnxruntime answered and said so")
    told = bool(reasons) and all(reasons)
    promises.check(
        told,
        "each of those says why: " + ", ".join(f"{r} ({n})" for r, n in reasons.most_common(3)),
    )
    promises.check(back, "once it was back, the card answered again")
    right = accuracy(load.answers, labels)
    promises.check(right >= 1 - 2 * POINT, f"accuracy over all of them {right:.2%}")


async def staged(console: Console, title: str, step: Callable[[], Awaitable[None]]) -> None:
    """Print a heading, then run the step."""
    console.print(f"\n[bold]{title}[/]")
    await step()


async def run(console: Console) -> list[str]:
    """The whole demo; returns the promises that did not hold."""
    promises = Promises(console)
    console.print("[bold]Starting tepi serve[/] on examples/digits/model_repository")
    server = await ServerProcess.start(HERE / "model_repository")
    console.print(f"  gRPC at {server.address}")
    try:
        async with DigitsClient(server.address) as client:
            await staged(console, "Classify", lambda: classify(console, client, promises))
            await staged(
                console,
                "Take the card away while requests run, then bring it back",
                lambda: take_card_away(client, server.address, promises),
            )
    finally:
        code = await server.stop()
    console.print("\n[bold]Stop[/]")
    promises.check(code == 0, f"the server stopped cleanly (exit code {code})")
    return promises.broken


def main() -> int:
    """Exit code 0 when every promise held, else 1."""
    console = Console()
    try:
        broken = asyncio.run(run(console))
    except ConnectionError as error:
        console.print(f"[red]The demo cannot go on:[/] {escape(str(error))}", highlight=False)
        return 1
    if broken:
        console.print(f"\n[red]{len(broken)} of the demo's promises did not hold.[/]")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

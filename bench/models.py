# SPDX-License-Identifier: Apache-2.0
"""Measures whole models on the card, on onnxruntime and on OpenVINO, and writes docs/performance.

    .venv/bin/python -m bench.models [--seconds N] [--threads N] [--logs FOLDER] [--output FOLDER]

All engines run in this process in turns, on the same int8 file and the same input; OpenVINO only
where it is installed. `--logs` holds the other benches' output, which the page then quotes.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.networks import NETWORKS, quantized
from bench.plot import Point, roofline
from device.binding import Card
from device.host import open_session
from device.measure.compare import Run, Timing, alternate
from device.measure.explain import CardPart, Explanation, explain
from device.measure.feeds import Array, concrete_shapes, random_feeds
from device.session import Session

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples/digits/model_repository/digits/1/model.onnx"
PEERS = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Measured:
    """One model: its engines' times, what the card makes of it, and the largest difference of any
    output element from onnxruntime's."""

    name: str
    timings: dict[str, Timing]
    told: Explanation
    difference: float

    def ratio(self, peer: str) -> float | None:
        """The peer's median over the card's."""
        row = self.timings.get(peer)
        return None if row is None else row.median_ms / self.timings["card"].median_ms


def openvino_run(path: Path, feeds: dict[str, Array], threads: int) -> Run | None:
    """None where OpenVINO is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda: request.infer(feeds, share_inputs=True)


def measure(name: str, path: Path, threads: int, seconds: float) -> Measured:
    """All engines in turns, then the card's profile."""
    with (
        Card.open("inproc", threads=threads, memory=4 << 30) as card,
        Session(path, card, threads) as ours,
        Session(path, "none", threads) as theirs,
    ):
        feeds = random_feeds(ours.inputs, concrete_shapes(ours.inputs, {}, name))
        as_it_comes = open_session(str(path), threads, exact=False)
        engines: dict[str, Run] = {
            "card": lambda: ours.run(None, feeds),
            "onnxruntime": lambda: as_it_comes.run(None, feeds),
        }
        openvino = openvino_run(path, feeds, threads)
        if openvino is not None:
            engines["openvino"] = openvino
        timings = alternate(engines, seconds)
        pairs = zip(ours.run(None, feeds), theirs.run(None, feeds), strict=True)
        difference = max(float(np.abs(got - wanted).max()) for got, wanted in pairs)
        return Measured(name, timings, explain(path, card, {}, threads, runs=15), difference)


def machine() -> str:
    """The processor's name, and how many this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    count = len(os.sched_getaffinity(0))
    return f"{name}, {count} processor{'' if count == 1 else 's'}"


def versions() -> str:
    """Tepi's commit and the peers' releases."""
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    tepi = importlib.metadata.version("tepi") + (f" ({done.stdout.strip()})" if done.stdout else "")
    found = [f"Tepi {tepi}"]
    for peer in PEERS:
        if importlib.util.find_spec(peer) is not None:
            found.append(f"{peer} {importlib.metadata.version(peer)}")
    return ", ".join([*found, f"Python {platform.python_version()}"])


def rows(measured: list[Measured]) -> list[list[str]]:
    """Cells of the table, one row for each model, then the ratios' geometric means."""
    found = []
    for row in measured:
        told = row.told
        cells = [row.name, f"{told.macs / 1e6:,.1f}", f"{row.timings['card'].median_ms:.3f}"]
        for peer in PEERS:
            ratio, timing = row.ratio(peer), row.timings.get(peer)
            cells += [f"{timing.median_ms:.3f}", f"{ratio:.2f}"] if timing and ratio else ["", ""]
        on_card = sum(x.measured_us for p in told.parts if isinstance(p, CardPart) for x in p.lines)
        reached = told.macs / 1e3 / on_card / told.peak_gmacs
        found.append([*cells, f"{reached:.0%}", f"{row.difference:.2g}"])
    means = ["geometric mean", "", ""]
    for peer in PEERS:
        ratios = [ratio for row in measured if (ratio := row.ratio(peer))]
        means += ["", f"{statistics.geometric_mean(ratios):.2f}" if ratios else ""]
    return [*found, [*means, "", ""]]


TITLES = (
    *("model", "MMAC", "card ms", "onnxruntime ms", "ratio", "OpenVINO ms", "ratio"),
    *("of the peak", "difference"),
)


def points(told: Explanation) -> list[Point]:
    """The instructions that multiply."""
    return [
        Point(line.macs / line.bytes, line.macs / 1e3 / line.measured_us, line.share)
        for part in told.parts
        if isinstance(part, CardPart)
        for line in part.lines
        if line.macs and line.measured_us
    ]


def page(measured: list[Measured], threads: int, logs: Path | None) -> str:
    """docs/performance/README.md."""
    told = measured[-1].told
    lines = [
        "# Performance",
        "",
        f"Written by `make bench` on {datetime.date.today():%Y-%m-%d}. {machine()}. {versions()}. "
        f"{threads} thread{'' if threads == 1 else 's'}; the card uses {told.isa}.",
        "",
        "Medians of single runs, batch 1, engines in turns in one process; a ratio above 1 says "
        "that the card is faster. Networks other than `digits` have the shapes of those of that "
        "name and random weights (`bench/networks.py`). *Of the peak* is the rate of all "
        "multiply-accumulates over the time of all instructions, against the best of two dense "
        "convolutions on the same card; *difference* is the largest of any output element from "
        "onnxruntime's.",
        "",
        "| " + " | ".join(TITLES) + " |",
        "| --- |" + " ---: |" * (len(TITLES) - 1),
        *("| " + " | ".join(row) + " |" for row in rows(measured)),
        "",
        "![Roofline](roofline.svg)",
        "",
        "Each circle is an instruction that multiplies, its area the share of its model's time; "
        "`tepi card explain MODEL.onnx` lists them. The sloping limit is the rate at which weights "
        "of 512 KiB stream in: an instruction whose data lie in a nearer cache may pass it.",
    ]
    for log in sorted(logs.glob("*.txt")) if logs else []:
        text = log.read_text(encoding="utf-8").rstrip()
        lines += ["", f"## {log.stem}", "", "```text", text, "```"]
    return "\n".join([*lines, ""])


def show(measured: list[Measured]) -> None:
    """The table on the terminal."""
    table = Table(title="models, ms")
    for title in TITLES:
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for row in rows(measured):
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="per model, all engines")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="folder of *.txt to quote")
    parser.add_argument("--models", type=Path, default=ROOT / "build/bench/models")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/performance")
    given = parser.parse_args()
    paths = {"digits": DIGITS} | {name: quantized(name, given.models) for name in NETWORKS}
    measured = [measure(name, path, given.threads, given.seconds) for name, path in paths.items()]
    show(measured)
    told = measured[-1].told
    given.output.mkdir(parents=True, exist_ok=True)
    plot = roofline(
        {row.name: points(row.told) for row in measured},
        max(row.told.peak_gmacs for row in measured),
        max(row.told.peak_gbytes for row in measured),
        f"{machine()}: {told.isa}, {given.threads} thread{'' if given.threads == 1 else 's'}",
    )
    (given.output / "roofline.svg").write_text(plot, encoding="utf-8")
    text = page(measured, given.threads, given.logs)
    (given.output / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

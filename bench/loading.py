# SPDX-License-Identifier: Apache-2.0
"""Time and memory that it takes to load a model, on the card and on onnxruntime.

    .venv/bin/python -m bench.loading [MODEL.onnx ...] [--runs N] [--threads N]

Every figure is the median of processes of their own, the engines in turns. A process imports its
engine, resets the kernel's record of its peak, loads, and runs once: *load MiB* and *run MiB* are
how far its resident memory rose above what it was after the imports, at its highest, up to the end
of the load and of the first run; *kept MiB* is what is left of that afterwards, *process MiB* the
highest of the whole process, imports (onnx and onnxruntime, which the card's compiler needs, or
onnxruntime alone) and all. Time is that of the constructor, without imports.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.networks import quantized

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("mobilenetv2", "resnet50", "encoder")
ENGINES = ("card", "onnxruntime")
FIGURES = ("seconds", "load", "run", "kept", "process")
TITLES = ("model", "engine", "seconds", "load MiB", "run MiB", "kept MiB", "process MiB")

_RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs


def resident(field: str) -> float:
    """MiB of this process, by the name of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(x.split()[1]) / 1024 for x in lines if x.startswith(field + ":"))


def opener(engine: str, threads: int) -> Callable[[str], Callable[[], object]]:
    """A function that loads a model and returns one that runs it once. Imports the engine."""
    import numpy as np

    if engine == "card":
        from device.session import Session

        def load(model: str) -> Callable[[], object]:
            session = Session(model, threads=threads)
            feeds = {
                i.name: np.zeros([d if isinstance(d, int) else 1 for d in i.shape], i.dtype)
                for i in session.inputs
            }
            return lambda: session.run(None, feeds)

        return load
    import onnxruntime as ort

    # Not device.host's open_session: its imports are not what a user of onnxruntime alone has.
    def load_host(model: str) -> Callable[[], object]:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feeds = {
            i.name: np.zeros([d if isinstance(d, int) else 1 for d in i.shape], np.float32)
            for i in session.get_inputs()
        }
        return lambda: session.run(None, feeds)

    return load_host


def once(engine: str, model: str, threads: int) -> dict[str, float]:
    """In a process of its own: what loading and running `model` take."""
    load = opener(engine, threads)
    imports_peak = resident("VmHWM")
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    before = resident("VmRSS")
    start = time.perf_counter()
    run = load(model)
    seconds = time.perf_counter() - start
    loaded = resident("VmHWM")
    run()
    return {
        "seconds": seconds,
        "load": loaded - before,
        "run": resident("VmHWM") - before,
        "kept": resident("VmRSS") - before,
        "process": max(imports_peak, resident("VmHWM")),
    }


def measure(model: Path, threads: int, runs: int) -> dict[str, dict[str, float]]:
    """Medians by engine and figure."""
    taken: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for _ in range(runs):
        for engine in ENGINES:
            command = [sys.executable, "-m", "bench.loading", str(model)]
            command += ["--only", engine, "--threads", str(threads)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            taken[engine].append(json.loads(done.stdout))
    return {
        engine: {name: statistics.median(row[name] for row in rows) for name in FIGURES}
        for engine, rows in taken.items()
    }


def show(found: dict[str, dict[str, dict[str, float]]], threads: int) -> None:
    """The table."""
    table = Table(title=f"loading, {threads} thread{'' if threads == 1 else 's'}")
    for title in TITLES:
        table.add_column(title, justify="left" if title in TITLES[:2] else "right", no_wrap=True)
    for model, engines in found.items():
        for engine, row in engines.items():
            sizes = (f"{row[name]:.1f}" for name in FIGURES[1:])
            table.add_row(model, engine, f"{row['seconds']:.3f}", *sizes)
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(table)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL.onnx")
    parser.add_argument("--runs", type=int, default=5, help="processes per engine and model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=ENGINES, help="load MODEL.onnx here, print JSON")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(once(given.only, str(given.models[0]), given.threads)))
        return
    folder = ROOT / "build/bench/models"
    paths = {path.stem: path for path in given.models} or {
        name: quantized(name, folder) for name in MODELS
    }
    show({n: measure(p, given.threads, given.runs) for n, p in paths.items()}, given.threads)


if __name__ == "__main__":
    main()

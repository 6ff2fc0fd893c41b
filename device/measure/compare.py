# SPDX-License-Identifier: Apache-2.0
"""The same model on the card and on other engines, turn by turn in one process."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device.binding import Card
from device.host import open_session
from device.measure.feeds import Array, Shapes, concrete_shapes, random_feeds
from device.session import Session

Run = Callable[[], object]

_WARM = 3
_RUNS_LEAST = 10
_BURST_NS = 2_000_000  # turns shorter than this are taken together


@dataclass(frozen=True)
class Timing:
    """One engine: milliseconds of a run, over `runs` runs."""

    engine: str
    runs: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    least_ms: float


@dataclass(frozen=True)
class Comparison:
    """`ratio` is onnxruntime's median over the card's: above 1 the card is faster. `difference` is
    the largest absolute difference of any output element, `relative` that over the largest
    absolute value of the same output."""

    model: str
    isa: str
    threads: int
    shapes: dict[str, list[int]]
    on_card: int
    nodes: int
    card: Timing
    onnxruntime: Timing
    ratio: float
    difference: float
    relative: float


def alternate(engines: Mapping[str, Run], seconds: float) -> dict[str, Timing]:
    """Time each engine in turn for so many seconds in all; each has as many runs.

    Alternating lets whatever else the machine does fall on all of them alike.
    """
    bursts: dict[str, int] = {}
    for name, run in engines.items():
        for _ in range(_WARM):
            begun = time.perf_counter_ns()
            run()
            spent = time.perf_counter_ns() - begun
        bursts[name] = max(1, min(100, _BURST_NS // max(spent, 1)))
    burst = min(bursts.values())
    taken: dict[str, list[int]] = {name: [] for name in engines}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(taken.values()))) < _RUNS_LEAST:
        for name, run in engines.items():
            run()  # the other engine has taken the caches; users' runs follow each other
            for _ in range(burst):
                begun = time.perf_counter_ns()
                run()
                taken[name].append(time.perf_counter_ns() - begun)
    return {name: _timing(name, values) for name, values in taken.items()}


def _timing(engine: str, taken: Sequence[int]) -> Timing:
    p50, p90, p99 = np.percentile(taken, [50, 90, 99]) / 1e6
    return Timing(engine, len(taken), float(p50), float(p90), float(p99), min(taken) / 1e6)


def compare(
    path: Path, card: Card, given: Shapes | None = None, threads: int = 1, seconds: float = 5.0
) -> Comparison:
    """The model on `card` and on onnxruntime with `threads` threads, random feeds.

    The card races onnxruntime as it comes, and is held against its exact results (device.host).
    Raises ModelError, InputError (a shape that is missing or wrong), CardError.
    """
    with Session(path, card, threads) as ours, Session(path, "none", threads) as theirs:
        shapes = concrete_shapes(ours.inputs, given or {}, path.name)
        feeds = random_feeds(ours.inputs, shapes)
        as_it_comes = open_session(str(path), threads, exact=False)
        difference, relative = _differences(ours.run(None, feeds), theirs.run(None, feeds))
        engines: dict[str, Run] = {
            "card": lambda: ours.run(None, feeds),
            "onnxruntime": lambda: as_it_comes.run(None, feeds),
        }
        timings = alternate(engines, seconds)
        return Comparison(
            model=path.name,
            isa=str(card.info["isa"]),
            threads=threads,
            shapes={name: list(shape) for name, shape in shapes.items()},
            on_card=sum(row.where == "card" for row in ours.placement),
            nodes=len(ours.placement),
            card=timings["card"],
            onnxruntime=timings["onnxruntime"],
            ratio=timings["onnxruntime"].median_ms / timings["card"].median_ms,
            difference=difference,
            relative=relative,
        )


def _differences(ours: Sequence[Array], theirs: Sequence[Array]) -> tuple[float, float]:
    """The largest absolute difference of the outputs, and of those over their largest value.
    Where both hold NaN they agree; infinite where only one does."""
    absolute = relative = 0.0
    for got, wanted in zip(ours, theirs, strict=True):
        if wanted.dtype.kind not in "fiu" or not wanted.size:
            continue
        left, right = got.astype(np.float64), wanted.astype(np.float64)
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        apart = np.abs(np.where(same, 0, left) - np.where(same, 0, right))
        largest = float(np.nan_to_num(apart, nan=np.inf).max())
        scale = float(np.abs(right[np.isfinite(right)]).max(initial=0))
        absolute = max(absolute, largest)
        relative = max(relative, largest / scale if scale else largest)
    return absolute, relative

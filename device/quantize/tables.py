# SPDX-License-Identifier: Apache-2.0
"""The quantization's progress and report for people."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from device.quantize.quantize import Report

_LAYERS_SHOWN = 10


class ProgressBars:
    """A bar on standard error for each thing that is done."""

    def __init__(self, quiet: bool) -> None:
        columns = (
            TextColumn("{task.description:>12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bars = Bars(*columns, console=Console(stderr=True), disable=quiet)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin(self, what: str, total: int) -> None:
        """A new bar."""
        self._task = self._bars.add_task(what, total=total)

    def step(self) -> None:
        """One more is done."""
        if self._task is not None:
            self._bars.advance(self._task)


def print_report(report: Report, console: Console) -> None:
    """Size, accuracy, the layers that lose most, and times."""
    console.print(
        f"{report.output}: {report.bytes_before / 1024:,.0f} KiB -> "
        f"{report.bytes_after / 1024:,.0f} KiB "
        f"({report.bytes_after / report.bytes_before:.0%}), {report.method} over "
        f"{report.samples} samples; {report.on_card} of {report.nodes} nodes on the card",
        highlight=False,
        soft_wrap=True,
    )
    outputs = Table(
        title="against float32, on the calibration data", title_justify="left", box=None
    )
    outputs.add_column("output")
    for title in ("SQNR dB", "largest difference", "top-1 agreement"):
        outputs.add_column(title, justify="right")
    for row in report.outputs:
        outputs.add_row(
            row.name,
            "exact" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
            f"{row.largest_difference:.4g}",
            "" if row.top1 is None else f"{row.top1:.2%}",
        )
    console.print(outputs)
    layers = Table(title="layers that lose most", title_justify="left", box=None)
    layers.add_column("layer")
    layers.add_column("op")
    layers.add_column("loses dB", justify="right")
    layers.add_column("SQNR dB behind it", justify="right")
    for loss in report.layers[:_LAYERS_SHOWN]:
        layers.add_row(loss.node, loss.op, f"{loss.drop_db:.1f}", f"{loss.sqnr_db:.1f}")
    console.print(layers)
    times = report.times
    console.print(
        f"one run on one thread: card {times.card_int8_ms:.3f} ms, onnxruntime int8 "
        f"{times.onnxruntime_int8_ms:.3f} ms "
        f"({times.onnxruntime_int8_ms / times.card_int8_ms:.2f}x), "
        f"onnxruntime float32 {times.onnxruntime_float32_ms:.3f} ms "
        f"({times.onnxruntime_float32_ms / times.card_int8_ms:.2f}x)",
        highlight=False,
        soft_wrap=True,
    )

# SPDX-License-Identifier: Apache-2.0
"""Explanations and comparisons as tables for people."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from device.measure.compare import Comparison
from device.measure.explain import CardPart, Explanation, HostPart

_REASONS_SHOWN = 20


def print_explanation(told: Explanation, console: Console) -> None:
    """Every instruction, then totals, memory, and what stayed off the card."""
    shapes = ", ".join(f"{name} {shape}" for name, shape in told.shapes.items())
    console.print(
        f"[bold]{told.model}[/bold] on the card ({told.isa}, {_threads(told.threads)}), "
        f"{shapes}, medians of {told.runs} runs",
        highlight=False,
    )
    for number, part in enumerate(told.parts):
        if isinstance(part, HostPart):
            console.print(
                f"segment {number}: onnxruntime, {len(part.nodes)} nodes, "
                f"{part.measured_us:,.1f} us, {part.share:.1%}",
                highlight=False,
            )
        else:
            console.print(_lines(number, part))
    _print_totals(told, console)


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _lines(number: int, part: CardPart) -> Table:
    table = Table(title=f"segment {number}: card", title_justify="left", box=None, pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("op", no_wrap=True)
    table.add_column("node", overflow="ellipsis", no_wrap=True, min_width=8, max_width=28)
    table.add_column("shape (NHWC)", no_wrap=True)
    table.add_column("kernel", no_wrap=True)
    for title in ("MMAC", "KB", "us predicted", "us measured", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in part.lines:
        table.add_row(
            str(line.instruction),
            " ".join(filter(None, (line.code, line.parameters))),
            line.node,
            " > ".join("x".join(map(str, shape)) for shape in (line.input, line.output) if shape),
            line.kernel,
            f"{line.macs / 1e6:,.2f}" if line.macs else "",
            f"{line.bytes / 1e3:,.1f}",
            f"{line.predicted_us:,.1f}",
            f"{line.measured_us:,.1f}",
            f"{line.share:.1%}",
        )
    return table


def _print_totals(told: Explanation, console: Console) -> None:
    cards = [part for part in told.parts if isinstance(part, CardPart)]
    on_card = sum(line.measured_us for part in cards for line in part.lines)
    table = Table.grid(padding=(0, 2))
    rate = told.macs / on_card / 1e3 if on_card else 0.0
    table.add_row("measured", f"{told.measured_us:,.1f} us, {on_card:,.1f} us of it on the card")
    table.add_row(
        "predicted",
        f"{told.predicted_us:,.1f} us for the card's part: the larger of MACs at "
        f"{told.peak_gmacs:,.0f} G/s and bytes at {told.peak_gbytes:,.0f} GB/s, "
        "both measured on this card now",
    )
    table.add_row(
        "work",
        f"{told.macs / 1e6:,.1f} MMAC at {rate:,.0f} G/s, {told.bytes / 1e6:,.2f} MB moved",
    )
    table.add_row(
        "memory",
        f"arena {sum(p.arena_bytes for p in cards) / 1024:,.0f} KiB, "
        f"weights {sum(p.constant_bytes for p in cards) / 1024:,.0f} KiB, "
        f"taken on the card {sum(p.card_bytes for p in cards) / 1024:,.0f} KiB",
    )
    console.print(table, highlight=False)
    if not told.off_card:
        console.print("off the card: nothing")
        return
    console.print(f"off the card: {len(told.off_card)} nodes", highlight=False)
    reasons = Counter((row.op, row.reason) for row in told.off_card)
    for (op, reason), count in reasons.most_common(_REASONS_SHOWN):
        console.print(f"  {count} x {op}: {reason}", highlight=False, markup=False)
    if len(reasons) > _REASONS_SHOWN:
        console.print(f"  and {len(reasons) - _REASONS_SHOWN} more reasons; --json has all")


def print_comparison(found: Comparison, console: Console) -> None:
    """Medians and percentiles side by side."""
    table = Table(title=f"{found.model}, {_threads(found.threads)}", title_justify="left", box=None)
    table.add_column("engine")
    for title in ("median ms", "p90 ms", "p99 ms", "least ms", "runs"):
        table.add_column(title, justify="right")
    for label, row in ((f"card ({found.isa})", found.card), ("onnxruntime", found.onnxruntime)):
        table.add_row(
            label,
            *(f"{v:,.3f}" for v in (row.median_ms, row.p90_ms, row.p99_ms, row.least_ms)),
            str(row.runs),
        )
    console.print(table)
    console.print(
        f"the card is {found.ratio:.2f}x onnxruntime; {found.on_card} of {found.nodes} nodes on "
        f"the card; outputs differ by {found.difference:.3g} at most ({found.relative:.2%} of the "
        "largest value)",
        highlight=False,
    )

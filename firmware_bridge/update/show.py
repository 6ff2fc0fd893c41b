# SPDX-License-Identifier: Apache-2.0
"""Tables and units for people, on standard output; progress, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from threading import Lock
from typing import Any, Final

import click

from firmware_bridge.update.steps import Event, Step

_WIDE: Final = 200  # columns of a table that goes into a file or a pipe
_UNITS: Final = {
    "mc": ("°C", 1e-3, 1),
    "mw": ("W", 1e-3, 1),
    "mv": ("V", 1e-3, 3),
    "mj": ("J", 1e-3, 0),
    "khz": ("MHz", 1e-3, 0),
    "ms": ("s", 1e-3, 1),
    "permille": ("%", 0.1, 1),
    "rpm": ("rpm", 1, 0),
}
"""The last word of a statistic's name, and how people write it: unit, factor, decimal places."""


SITUATIONS: Final = {
    Event.NEEDED: "not on the card",
    Event.UPLOADED: "in the second slot",
    Event.MARKED: "to be tried at the next reset",
    Event.ON_TRIAL: "runs on trial",
    Event.CURRENT: "runs already",
    Event.STRAY: "another image is to be tried at the next reset",
}
"""Where an image is, by what `plan` says."""


def reading(name: str, value: int) -> tuple[str, str, str]:
    """('die', '45.2', '°C') of ('die_mc', 45210)."""
    what, _, word = name.rpartition("_")
    unit, factor, places = _UNITS.get(word, ("", 1.0, 0))
    return (what or word if unit else name), f"{value * factor:.{places}f}", unit


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Any:
    """A table without lines, as wide as it needs."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False)
    for column in columns:
        found.add_column(column, overflow="fold")
    for row in rows:
        found.add_row(*map(Text, row))
    return found


def show(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table: to the terminal, or wide where there is none."""
    console().print(table(columns, rows))


def console() -> Any:
    """Where tables go."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=_WIDE)


def when(seconds: float) -> str:
    """Local time of seconds since 1970."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def telemetry_rows(stats: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, str, str]]:
    """(group, sensor, value, unit) of every statistic."""
    return [
        (g, *reading(name, value)) for g, fields in stats.items() for name, value in fields.items()
    ]


class Silent:
    """Tells nobody."""

    def step(self, card: str, step: Step, text: str) -> None:
        """See Told."""

    def progress(self, card: str, done: int, total: int) -> None:
        """See Told."""


class Lines:
    """A line for each step on standard error, and for each quarter of an upload: for logs."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._quarters: dict[str, int] = {}

    def step(self, card: str, step: Step, text: str) -> None:
        """See Told."""
        with self._lock:
            click.echo(f"card {card}: {step}" + (text and f": {text}"), err=True)

    def progress(self, card: str, done: int, total: int) -> None:
        """See Told."""
        quarter = done * 4 // max(total, 1)
        if quarter > self._quarters.get(card, 0):
            self._quarters[card] = quarter
            self.step(card, Step.UPLOAD, f"{quarter * 25} %")

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Bars:
    """A bar with rate and time left for each card, and the steps above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def step(self, card: str, step: Step, text: str) -> None:
        """See Told."""
        from rich.text import Text

        self._bars.console.print(Text(f"card {card}: {step}" + (text and f": {text}")))

    def progress(self, card: str, done: int, total: int) -> None:
        """See Told."""
        if card not in self._tasks:
            self._tasks[card] = self._bars.add_task(f"card {card}", total=total)
        self._bars.update(self._tasks[card], completed=done)

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def terminal() -> Lines | Bars:
    """Bars where somebody looks on, lines where not."""
    return Bars() if sys.stderr.isatty() else Lines()

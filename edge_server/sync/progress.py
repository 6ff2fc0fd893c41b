# SPDX-License-Identifier: Apache-2.0
"""A terminal's view of a sync: a bar for each model that is being filled, and tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from device.console import console
from edge_server.sync.states import SyncState

_GOOD = (SyncState.CURRENT, SyncState.ROLLED_BACK)


class Bars:
    """Progress bars on standard error; nothing where that is no terminal."""

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

        out = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=out,
            disable=not out.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, found: dict[str, Any]) -> None:
        """What a Status says now; called by the thread of the sync."""
        for row in found["models"]:
            name = row["model"]
            if row["state"] == SyncState.FILLING:
                if name not in self._tasks:
                    self._tasks[name] = self._progress.add_task(name, total=row["bytes_total"])
                total = row["bytes_total"] or None
                self._progress.update(self._tasks[name], completed=row["bytes_done"], total=total)
            elif name in self._tasks:
                self._progress.remove_task(self._tasks.pop(name))


def print_status(found: dict[str, Any]) -> None:
    """`tepi sync status` for people."""
    from rich.table import Table

    out = console()
    when = datetime.fromtimestamp(found["looked_at"], UTC).isoformat(" ", "seconds")
    looked = f"last learnt {when[:19]} UTC" if found["looked_at"] else "never learnt"
    out.print(f"ring {found['ring']}, release {found['release']}, {looked}")
    if found["trouble"]:
        out.print(f"nothing is installed: {found['trouble']}", style="yellow", markup=False)
    table = Table(box=None, pad_edge=False)
    for column in ("MODEL", "WANTED", "STATE", "HERE", "CURRENT", "PREVIOUS", "REASON"):
        table.add_column(column, overflow="fold")
    for row in found["models"]:
        done, total = row["bytes_done"], row["bytes_total"]
        table.add_row(
            row["model"],
            row["package"],
            row["state"],
            f"{100 * done / total:.0f} %" if total else "",
            _tag(row["current"]),
            _tag(row["previous"]),
            row["reason"],
            style="" if row["state"] in _GOOD else "yellow",
        )
    out.print(table)
    for origin in found["origins"]:
        if origin["reason"] and not origin["healthy"]:
            out.print(f"origin {origin['name']}: {origin['reason']}", markup=False)


def _tag(deployment: dict[str, str] | None) -> str:
    if deployment is None:
        return ""
    return f"{deployment['package'].rpartition(':')[2]} ({deployment['digest'][7:15]})"

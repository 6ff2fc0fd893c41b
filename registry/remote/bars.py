# SPDX-License-Identifier: Apache-2.0
"""Progress of transfers on a terminal's standard error: one bar for each blob under way, one for
all. Into a file or a pipe goes nothing but troubles."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from registry.remote.errors import RemoteError
from registry.remote.transfers import size_text


class Bars:
    """A Watch that draws."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:>24}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            _Rate(),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[TaskID, int]] = {}
        self._offsets: dict[str, int] = {}
        self._finished = 0
        self._all = self._bars.add_task("all", total=None, visible=False)

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

    @property
    def completed(self) -> int:
        """Bytes done, of all blobs together."""
        return self._finished + sum(self._offsets.values())

    def expect(self, size: int) -> None:
        """How many bytes there are in all."""
        self._bars.update(self._all, total=size, visible=True)

    def begin(self, digest: str, what: str, size: int) -> None:
        """See Watch.begin."""
        with self._lock:
            self._tasks[digest] = (self._bars.add_task(what, total=size), size)
            self._offsets[digest] = 0

    def at(self, digest: str, offset: int) -> None:
        """See Watch.at."""
        with self._lock:
            self._offsets[digest] = offset
            self._bars.update(self._tasks[digest][0], completed=offset)
            self._bars.update(self._all, completed=self.completed)

    def end(self, digest: str, outcome: str) -> None:
        """See Watch.end."""
        with self._lock:
            task, size = self._tasks.pop(digest)
            self._bars.remove_task(task)
            del self._offsets[digest]
            self._finished += size
            self._bars.update(self._all, completed=self.completed)

    def trouble(self, what: str, error: RemoteError, pause: float) -> None:
        """See Watch.trouble."""
        self._console.print(
            f"{error}; again in {pause:.1f} s", markup=False, highlight=False, soft_wrap=True
        )


class _Rate(ProgressColumn):
    """Bytes a second, in the units of the sizes beside it."""

    def render(self, task: Task) -> Text:
        """See ProgressColumn.render."""
        speed = task.finished_speed or task.speed
        return Text(f"{size_text(speed)}/s" if speed else "")

# SPDX-License-Identifier: Apache-2.0
"""Time that passes only when somebody waits, or the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable


class FakeTime:
    """See edge_server.fill.time.Time. `waits` are the pauses that were asked for."""

    def __init__(self, wall: float = 1_750_000_000.0) -> None:
        self._lock = threading.Lock()
        self._now = 1000.0
        self._wall = wall
        self.waits: list[float] = []
        self.on_wait: Callable[[float], None] = lambda _seconds: None

    def now(self) -> float:
        """See Time."""
        with self._lock:
            return self._now

    def wall(self) -> float:
        """See Time."""
        with self._lock:
            return self._wall

    def advance(self, seconds: float) -> None:
        """It is later."""
        with self._lock:
            self._now += seconds
            self._wall += seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """See Time; takes no time."""
        if not event.is_set():
            self.waits.append(seconds)
            self.advance(max(0.0, seconds))
            self.on_wait(seconds)
        return event.is_set()

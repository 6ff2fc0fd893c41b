# SPDX-License-Identifier: Apache-2.0
"""A byte rate that all fills of a node share: a token bucket, kept as the moment at which it will
be level again (the generic cell rate algorithm, ITU-T I.371)."""

from __future__ import annotations

import threading

from edge_server.fill.errors import BadRate
from edge_server.fill.time import REAL_TIME, Time

BURST = 0.25  # seconds' worth of bytes that may come at once after a pause
_LEAST = 16 << 10
_MOST = 1 << 20


class Rate:
    """At most `limit` bytes a second; None for no limit. Safe for threads.

    Bytes are taken after they came, since only the receiver's pace holds a TCP sender back: a
    taker pays what it has read by waiting. Raises BadRate.
    """

    def __init__(self, limit: int | None = None, time: Time = REAL_TIME) -> None:
        self._time = time
        self._lock = threading.Lock()
        self._level_at = 0.0  # when all that was taken is paid for
        self._limit: int | None = None
        self.limit = limit

    @property
    def limit(self) -> int | None:
        """Bytes a second; may be set while fills run."""
        return self._limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        if limit is not None and limit <= 0:
            raise BadRate(
                f"a rate of {limit} bytes a second lets nothing through",
                "give a positive number, or leave it out for no limit",
            )
        with self._lock:
            self._limit = limit
            self._level_at = 0.0

    @property
    def step(self) -> int:
        """Bytes to read at once, so that a low rate is a trickle and not a gush and a pause."""
        limit = self._limit
        return _MOST if limit is None else max(_LEAST, min(_MOST, limit // 8))

    def take(self, count: int, stop: threading.Event) -> float:
        """Wait until `count` bytes are paid for, or `stop` is set. Returns the seconds waited."""
        with self._lock:
            if self._limit is None:
                return 0.0
            now = self._time.now()
            self._level_at = max(self._level_at, now - BURST) + count / self._limit
            delay = self._level_at - now
        if delay <= 0:
            return 0.0
        self._time.wait(stop, delay)
        return delay

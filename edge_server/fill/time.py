# SPDX-License-Identifier: Apache-2.0
"""Time as worker threads read it, passed in so that tests need not wait."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Time(Protocol):
    """What time is it, and wait unless something happens first."""

    def now(self) -> float:
        """Seconds since any moment, never going back."""

    def wall(self) -> float:
        """Seconds since 1970, as the machine's clock believes; may jump."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Return after `seconds`, or as soon as `event` is set; whether it is."""


class RealTime:
    """The machine's own time."""

    def now(self) -> float:
        """See Time.now."""
        return time.monotonic()

    def wall(self) -> float:
        """See Time.wall."""
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """See Time.wait."""
        return event.wait(seconds)


REAL_TIME = RealTime()

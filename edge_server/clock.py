# SPDX-License-Identifier: Apache-2.0
"""Time as the server reads it, passed in so that tests need not wait."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What time is it, and wake me later."""

    def now(self) -> float:
        """Seconds since any moment, never going back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class LoopClock:
    """The event loop's own time."""

    def now(self) -> float:
        """See Clock.now."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See Clock.sleep."""
        await asyncio.sleep(seconds)

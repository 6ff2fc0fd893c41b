# SPDX-License-Identifier: Apache-2.0
"""The line before a model: so many run, so many wait in order of arrival, the rest is refused."""

from __future__ import annotations

import asyncio
from collections import deque

from edge_server.status import unavailable


class Gate:
    """Admits `places` holders at a time and at most `waiting` more in line. One event loop."""

    def __init__(self, places: int, waiting: int) -> None:
        self._free = places
        self._limit = waiting
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def idle(self) -> bool:
        """True where entering would not have to wait."""
        return self._free > 0

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    async def enter(self, timeout: float | None) -> None:
        """Returns with a place taken; UNAVAILABLE when the line is full or after `timeout` s."""
        if self._free:
            self._free -= 1
            return
        if len(self._line) >= self._limit:
            raise unavailable(f"Exceeds maximum queue size ({self._limit})")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(timeout):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # the turn came in the same moment: pass it on
            elif turn in self._line:
                self._line.remove(turn)
            if isinstance(error, TimeoutError):
                raise unavailable("Request timeout expired") from None
            raise

    def leave(self) -> None:
        """Give the place to the first in line."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

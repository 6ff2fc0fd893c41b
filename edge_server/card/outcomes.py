# SPDX-License-Identifier: Apache-2.0
"""Who waits for the card to be ready, and what they are told."""

from __future__ import annotations

import asyncio

from device.errors import CardError

Outcome = asyncio.Future[CardError | None]


class Outcomes:
    """Futures that are done when the card is ready, or an attempt to get there has failed."""

    def __init__(self) -> None:
        self._waiting: set[Outcome] = set()

    def expect(self) -> Outcome:
        """One more; it must be awaited."""
        future: Outcome = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        return future

    def tell(self, error: CardError | None) -> None:
        """The card is ready, or this is why not."""
        for future in self._waiting:
            if not future.done():
                future.set_result(error)
        self._waiting.clear()


async def raised(outcome: Outcome) -> None:
    """Wait; raises the CardError that it ends with."""
    error = await outcome
    if error is not None:
        raise error

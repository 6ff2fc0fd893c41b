# SPDX-License-Identifier: Apache-2.0
"""The server's hold on the card: opens it, notices that it is lost, gets it back by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from enum import StrEnum
from typing import Protocol, TypeVar

from device.errors import CardError, CardGone, CardTimeout
from edge_server import log
from edge_server.engines.card import CardLike
from edge_server.loader import Card, fault_word
from edge_server.served import OffCard

T = TypeVar("T")

_FIRST_DELAY = 0.1  # seconds before the first try to get a lost card back; doubled each time
_LAST_DELAY = 30.0
_STEADY = 60.0  # seconds that a card must have stayed for its next loss to count as the first
WATCH_INTERVAL = 1.0  # seconds between looks at a card that no request uses


class CardState(StrEnum):
    """See CardState in tepi_card.proto."""

    NONE = "none"
    ATTACHED = "attached"
    LOST = "lost"
    DETACHED = "detached"


# What may follow what; anything else is a defect.
TRANSITIONS: dict[CardState, frozenset[CardState]] = {
    CardState.NONE: frozenset(),
    CardState.ATTACHED: frozenset({CardState.LOST, CardState.DETACHED}),
    CardState.LOST: frozenset({CardState.ATTACHED, CardState.DETACHED}),
    CardState.DETACHED: frozenset({CardState.ATTACHED}),
}


class Clock(Protocol):
    """Time, passed in so that tests need not wait."""

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


class CardLink:
    """One card for all models. Lives on the event loop; the card's own calls run on `executor`."""

    def __init__(
        self,
        bus: str,
        open_card: Callable[[], CardLike] | None,
        executor: Executor,
        clock: Clock,
    ) -> None:
        self.bus = bus
        self.state = CardState.NONE if open_card is None else CardState.LOST
        self.absent = OffCard("no_card", "this server runs without a card (--card none)")
        self.faults: dict[int, int] = {}
        self.losses = 0
        self.returns = 0
        self._open_card = open_card
        self._executor = executor
        self._clock = clock
        self._card: CardLike | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._revival: asyncio.Task[None] | None = None
        self._delay = _FIRST_DELAY
        self._returned = clock.now()
        self._turn = asyncio.Lock()
        self._on_loss: Callable[[OffCard], None] = lambda _why: None
        self._on_return: Callable[[], Awaitable[None]] = _nothing

    def listen(
        self, on_loss: Callable[[OffCard], None], on_return: Callable[[], Awaitable[None]]
    ) -> None:
        """`on_loss` takes models off the card, `on_return` loads them onto it again."""
        self._on_loss = on_loss
        self._on_return = on_return

    @property
    def card(self) -> Card:
        """What a model is loaded onto now."""
        attached = self.state is CardState.ATTACHED
        return Card(self._card if attached else None, self.absent)

    async def open(self) -> None:
        """Open the card before the first model; a card that is not there is sought from now on."""
        if self._open_card is None:
            return
        try:
            self._card = await self._call(self._open_card)
        except CardError as error:
            self._count(error)
            self.absent = OffCard("card_absent", str(error))
            log.warning("card is absent", bus=self.bus, reason=error, remedy=error.remedy)
            self._seek()
        else:
            self.state = CardState.ATTACHED
            log.info("card attached", bus=self.bus)
        self._spawn(self._watch())

    def report(self, error: CardError, current: bool = True) -> OffCard:
        """A run failed on the card; the word and sentence for its fallback.

        Not `current`: the run was of a model that has been taken off the card since, so that the
        error says nothing about the card as it is now.
        """
        self._count(error)
        why = OffCard(fault_word(error), str(error))
        if current and self.state is CardState.ATTACHED and self._is_fatal(error):
            self._lost(why)
        return why

    def _is_fatal(self, error: CardError) -> bool:
        """Whether further requests would only fail too, or wait."""
        alive = self._card is not None and self._card.alive
        return isinstance(error, CardGone | CardTimeout) or not alive

    async def detach(self) -> None:
        """Take the card away without a word to the models that use it."""
        async with self._turn:
            if self.state not in (CardState.ATTACHED, CardState.LOST):
                return
            self._stop_seeking()
            if self._card is not None:
                await self._call(self._card.detach)
            if self.state is CardState.ATTACHED:
                self.losses += 1
            self._enter(CardState.DETACHED)
            self.absent = OffCard("card_gone", "the card was detached")
            self._on_loss(self.absent)
            log.warning("card detached on request", bus=self.bus)

    async def attach(self) -> None:
        """Bring the card back and the models onto it. Raises CardError where it stays away."""
        async with self._turn:
            if self.state in (CardState.LOST, CardState.DETACHED):
                self._stop_seeking()
                try:
                    await self._revive()
                except CardError:
                    if self.state is CardState.LOST:
                        self._seek()
                    raise

    async def close(self) -> None:
        """Let go of the card; no model uses it any more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._card is not None:
            card, self._card = self._card, None
            await self._call(card.close)

    def _lost(self, why: OffCard) -> None:
        self.losses += 1
        self._enter(CardState.LOST)
        self.absent = why
        # A card that is lost again and again, say to a program that hangs it, is sought less often.
        if self._clock.now() - self._returned >= _STEADY:
            self._delay = _FIRST_DELAY
        self._on_loss(why)
        log.event(logging.ERROR, "card lost", bus=self.bus, reason=why.detail)
        self._seek()

    def _seek(self) -> None:
        self._revival = self._spawn(self._seek_forever())

    def _stop_seeking(self) -> None:
        if self._revival is not None:
            self._revival.cancel()
            self._revival = None

    async def _seek_forever(self) -> None:
        while True:
            await self._clock.sleep(self._delay)
            self._delay = min(self._delay * 2, _LAST_DELAY)
            async with self._turn:
                if self.state is not CardState.LOST:
                    return
                try:
                    await self._revive()
                except CardError as error:
                    log.info(
                        "card is still away", bus=self.bus, reason=error, next_try_s=self._delay
                    )
                else:
                    return

    async def _revive(self) -> None:
        """The same card again, or a newly opened one where it cannot be had back."""
        assert self._open_card is not None
        card = self._card
        if card is not None:
            try:
                await self._call(card.attach)
            except CardError as error:
                self._count(error)
                self._card = None
                await self._call(card.close)
                card = None
        if card is None:
            self._card = await self._call(self._open_card)
        self._enter(CardState.ATTACHED)
        self.returns += 1
        self._returned = self._clock.now()
        log.info("card is back", bus=self.bus)
        await self._on_return()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(WATCH_INTERVAL)
            card = self._card
            if self.state is CardState.ATTACHED and card is not None and not card.alive:
                self._lost(OffCard("card_gone", "the card is off the bus"))

    def _enter(self, state: CardState) -> None:
        assert state is self.state or state in TRANSITIONS[self.state], (self.state, state)
        self.state = state

    def _count(self, error: CardError) -> None:
        self.faults[error.code] = self.faults.get(error.code, 0) + 1

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _nothing() -> None:
    """Nobody listens."""

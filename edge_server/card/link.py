# SPDX-License-Identifier: Apache-2.0
"""The server's hold on the card: opens it, notices that it is lost, gets it back by itself.

One task works through the states of edge_server.card.states; requests and operators put events in
between. Work that was begun in a state which the card has left meanwhile comes to nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from device.errors import CardError, CardFault, CardGone
from edge_server import log
from edge_server.card.outcomes import Outcomes, raised
from edge_server.card.states import TABLE, CardEvent, CardState
from edge_server.card.strikes import Strikes
from edge_server.card.users import CardUsers
from edge_server.clock import Clock
from edge_server.engines.card import CardLike
from edge_server.loader import Card, fault_word
from edge_server.served import OffCard

T = TypeVar("T")

FIRST_DELAY: Final = 0.1  # seconds before the second try to get a lost card back; then doubled
LAST_DELAY: Final = 30.0
RESETS: Final = 5  # that may fail in a row
FAILED_DELAY: Final = 300.0
STEADY: Final = 60.0  # seconds that a card must have been ready for its next loss to be the first
WATCH_INTERVAL: Final = 1.0  # seconds between looks at a card that no request uses
STILL: Final = 3  # looks at which the heartbeat may stand still

_ON_BUS = (CardState.STARTING, CardState.PROBATION, CardState.READY)


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
        self.state = CardState.NONE if open_card is None else CardState.ABSENT
        self.absent = OffCard("no_card", "this server runs without a card (--card none)")
        self.faults: dict[int, int] = {}
        self.losses = 0
        self.returns = 0
        self.resets = 0
        self.taken_away = False
        self.withheld: dict[str, str] = {}  # who wants the card to rest, in any state, and why
        self._open_card = open_card
        self._executor = executor
        self._clock = clock
        self._card: CardLike | None = None
        self._users: CardUsers | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._serial = 0  # counts events: what was begun under another number is void
        self._moved = asyncio.Event()  # set by each event, for whoever pauses
        self._ready_before = False
        self._attempts = 0  # to get it back, since it was ready and steady
        self._vain = 0  # resets, since it was ready
        self._ready_since = clock.now()
        self._overdue = 0  # runs that have not ended in time
        self._strikes = Strikes()
        self._outcomes = Outcomes()

    def serve(self, users: CardUsers) -> None:
        """Who is to be told; once, before `open`."""
        self._users = users

    @property
    def card(self) -> Card:
        """What a model is loaded onto now. The first models are all checked in probation."""
        handle = self._card if self.state in _ON_BUS else None
        return Card(handle, self.absent, checked_later=self._supervisor is None)

    @property
    def handle(self) -> CardLike | None:
        """The card itself, in whatever state; None where it was never found."""
        return self._card

    async def open(self) -> None:
        """Find the card before the first model; one that is not there is sought by `start`."""
        if self._open_card is None:
            return
        self.absent = OffCard("card_starting", "the card is being started")
        try:
            self._card = await self.call(self._open_card)
        except CardError as error:
            self._count(error)
            self._attempts = 1
            self.absent = OffCard("card_absent", str(error))
            log.warning("card is absent", bus=self.bus, reason=error, remedy=error.remedy)
        else:
            self._happen(CardEvent.FOUND)

    async def start(self) -> None:
        """The first models are loaded: returns when they may use the card, or can't yet."""
        if self._open_card is None:
            return
        settled = self._outcomes.expect()
        self._supervisor = asyncio.ensure_future(self._supervise())
        if self.state is not CardState.ABSENT:
            await settled

    async def close(self) -> None:
        """Let go of the card; no model uses it any more."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._card is not None:
            card, self._card = self._card, None
            await self.call(card.close)

    # -- what requests notice -----------------------------------------------------------------

    def report(self, error: CardError, current: bool = True) -> OffCard:
        """A run failed on the card; the word and sentence for its fallback.

        Not `current`: the run was of a model that has been taken off the card since, so that the
        error says nothing about the card as it is now.
        """
        self._count(error)
        why = OffCard(fault_word(error), str(error))
        if not current or self.state not in _ON_BUS:
            return why
        if isinstance(error, CardGone) and not self._answers():
            self._happen(CardEvent.LEFT, why)
        elif self._strikes.fatal(error, self._answers(), self._clock.now()):
            self._happen(CardEvent.FAULTED, why)
        return why

    def overdue(self) -> int:
        """A run has not ended, not even as too late. Until `ended` with the number that this gives,
        or the card is another, further requests had better not run on it."""
        self._overdue += 1
        return self._serial

    def ended(self, number: int) -> None:
        """That run is over after all."""
        if number == self._serial:
            self._overdue -= 1

    @property
    def is_late(self) -> bool:
        """Whether a run is overdue now."""
        return self._overdue > 0

    def doubt(self, detail: str) -> None:
        """The card's answers are not onnxruntime's."""
        if self.state in _ON_BUS:
            self._happen(CardEvent.DOUBTED, OffCard("card_mismatch", detail))

    def _answers(self) -> bool:
        return self._card is not None and self._card.alive

    # -- what operators want ------------------------------------------------------------------

    async def detach(self) -> None:
        """Take the card away without a word to the models that use it."""
        if self.state is CardState.NONE or self.taken_away:
            return
        self.taken_away = True
        if self._card is not None:
            await self.call(self._card.detach)
        why = OffCard("card_gone", "the card was detached")
        self._happen(CardEvent.TAKEN_AWAY, why)
        self._outcomes.tell(
            CardGone(why.detail, code=64, fault="GONE", remedy="run tepi card attach")
        )

    async def attach(self) -> None:
        """Bring the card back and the models onto it. Raises CardError where it stays away."""
        if self.state in (CardState.NONE, CardState.READY):
            return
        outcome = self._outcomes.expect()
        self.taken_away, self._attempts = False, 0
        self._moved.set()
        await raised(outcome)

    async def reset(self) -> None:
        """Reset the card and put it through probation. Raises CardError where that fails."""
        if self.state is CardState.NONE:
            return
        outcome = self._outcomes.expect()
        self._attempts = self._vain = 0
        if CardEvent.RETRIED in TABLE[self.state]:
            why = OffCard("card_reset", "the card is being reset by an operator")
            self._happen(CardEvent.RETRIED, why)
        else:
            self.taken_away = False
            self._moved.set()
        await raised(outcome)

    # -- what its controller says, or who updates its firmware ---------------------------------

    def withhold(self, who: str, why: str) -> None:
        """Let requests go without the card until `who` relieves it: it is too hot, say, or its
        firmware is being changed. Runs under way finish on it."""
        self.withheld[who] = why
        if self.state in _ON_BUS:
            self._happen(CardEvent.WITHHELD, OffCard("card_resting", why))

    async def relieve(self, who: str) -> None:
        """That is over: returns when the card is in use again, where nobody else withholds it.
        Raises CardError where it does not come back."""
        self.withheld.pop(who, None)
        if self.state is CardState.RESTING and not self.withheld:
            outcome = self._outcomes.expect()
            self._happen(CardEvent.RELIEVED)
            await raised(outcome)

    # -- the way through the states -----------------------------------------------------------

    async def _supervise(self) -> None:
        work: dict[CardState, Callable[[], Awaitable[CardEvent | None]]] = {
            CardState.ABSENT: self._seek,
            CardState.STARTING: self._load,
            CardState.PROBATION: self._prove,
            CardState.READY: self._watch,
            CardState.DEGRADED: self._rest,
            CardState.RESETTING: self._reset,
            CardState.FAILED: self._despair,
            CardState.RESTING: self._sleep,
        }
        while True:
            serial = self._serial
            self._moved.clear()
            why: OffCard | None = None
            event: CardEvent | None
            try:
                event = await work[self.state]()
            except CardError as error:
                self._count(error)
                why = OffCard(fault_word(error), str(error))
                event = self._event_of(error)
                if serial == self._serial:
                    self._outcomes.tell(error)
            except Exception:
                log.failure("defect", where=f"card {self.state}")
                self._outcomes.tell(CardFault("a defect of the server", code=0, fault="DEFECT"))
                await self._pause(LAST_DELAY)
                continue
            if event is not None and serial == self._serial:
                self._happen(event, why)

    def _event_of(self, error: CardError) -> CardEvent | None:
        """What a failure means in the state that it came in."""
        if self.state is CardState.ABSENT:
            self.absent = OffCard(fault_word(error), str(error))
            log.info("card is still away", bus=self.bus, reason=error, tries=self._attempts)
            return None
        if isinstance(error, CardGone) and error.fault == "GONE":
            return CardEvent.LEFT
        return CardEvent.REFUSED if self.state is CardState.RESETTING else CardEvent.FAULTED

    def _happen(self, event: CardEvent, why: OffCard | None = None) -> None:
        """Moves from one state to the next, and tells models and log."""
        before, after = self.state, TABLE[self.state][event]
        self.state = after
        self._serial += 1
        self._overdue = 0
        self.absent = why or self.absent
        if before is CardState.READY:
            self.losses += event is not CardEvent.RETRIED
            if self._clock.now() - self._ready_since >= STEADY:
                self._attempts = 0
        if after not in _ON_BUS and self._users is not None:
            self._users.leave(self.absent)
        if after is CardState.READY:
            self._enter()
        elif after is CardState.FAILED:
            log.event(logging.ERROR, "card given up", bus=self.bus, reason=self.absent.detail)
        bad = event in (CardEvent.FAULTED, CardEvent.DOUBTED, CardEvent.LEFT, CardEvent.REFUSED)
        fields: dict[str, object] = {"bus": self.bus, "from": before, "to": after, "event": event}
        if why is not None:
            fields["reason"] = why.detail
        log.event(logging.ERROR if bad else logging.INFO, "card state", **fields)
        self._moved.set()

    def _enter(self) -> None:
        self.returns += self._ready_before
        self._ready_before = True
        self._ready_since = self._clock.now()
        self._vain = 0
        self._strikes.clear()
        assert self._users is not None
        self._users.enter()
        self._outcomes.tell(None)

    async def _pause(self, seconds: float | None) -> bool:
        """Until something happens (False), or `seconds` have passed (True)."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._moved.wait())]
        if seconds is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._moved.is_set()

    def _delay(self) -> float:
        """Before the next attempt; the first is made at once."""
        tries = self._attempts
        self._attempts += 1
        return 0.0 if tries == 0 else min(FIRST_DELAY * 2 ** (tries - 1), LAST_DELAY)

    async def _seek(self) -> CardEvent | None:
        if self.taken_away:
            await self._pause(None)
            return None
        delay = self._delay()
        if delay and not await self._pause(delay):
            return None
        assert self._open_card is not None
        card = self._card
        if card is not None:
            try:
                await self.call(card.attach)
            except CardError as error:
                self._count(error)
                self._card = None
                await self.call(card.close)
                card = None
        if card is None:
            self._card = await self.call(self._open_card)
        return CardEvent.FOUND

    async def _load(self) -> CardEvent:
        assert self._users is not None
        if self.withheld:
            self.absent = OffCard("card_resting", next(iter(self.withheld.values())))
            self._outcomes.tell(None)
            return CardEvent.WITHHELD
        await self._users.load()
        return CardEvent.LOADED

    async def _prove(self) -> CardEvent:
        assert self._users is not None
        wrong = await self._users.check()
        if not wrong:
            return CardEvent.PASSED
        self.absent = OffCard("card_mismatch", wrong)
        log.warning("card failed probation", bus=self.bus, reason=wrong)
        self._outcomes.tell(CardFault(wrong, code=0, fault="MISMATCH", remedy="run tepi card diag"))
        return CardEvent.DOUBTED

    async def _watch(self) -> CardEvent | None:
        """Looks at the card now and then: whether it is there, and its heart beats."""
        card = self._card
        assert card is not None
        last, still = -1, 0
        while await self._pause(WATCH_INTERVAL):
            beat, alive = await self.call(lambda: (card.heartbeat, card.alive))
            still = still + 1 if beat == last else 0
            last = beat
            if not alive:
                self.absent = OffCard("card_fault", "the card reports a fault that needs a reset")
                return CardEvent.FAULTED
            if still == STILL:
                self.absent = OffCard("card_timeout", "the card's heartbeat has stopped")
                return CardEvent.FAULTED
        return None

    async def _rest(self) -> CardEvent | None:
        if self._vain >= RESETS:
            return CardEvent.GIVEN_UP
        delay = self._delay()
        return CardEvent.RETRIED if not delay or await self._pause(delay) else None

    async def _reset(self) -> CardEvent:
        assert self._card is not None
        self.resets += 1
        self._vain += 1
        await self.call(self._card.reset)
        return CardEvent.RESET

    async def _despair(self) -> CardEvent | None:
        return CardEvent.RETRIED if await self._pause(FAILED_DELAY) else None

    async def _sleep(self) -> CardEvent | None:
        await self._pause(None)
        return None

    def _count(self, error: CardError) -> None:
        self.faults[error.code] = self.faults.get(error.code, 0) + 1

    async def call(self, function: Callable[[], T]) -> T:
        """On another thread: what talks to the card may take its time."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

# SPDX-License-Identifier: Apache-2.0
"""The link through its states, with a card, users and a clock that do as they are told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from device.errors import CardError, CardFault, CardGone, CardTimeout
from edge_server.card.link import FAILED_DELAY, RESETS, STILL, WATCH_INTERVAL, CardLink
from edge_server.card.states import CardState
from edge_server.served import OffCard
from tests.edge_server.fakes import FakeCard, FakeClock, gone
from tests.edge_server.running import until


def fault(kind: type[CardError], name: str) -> CardError:
    fatal = name != "DEADLINE"
    return kind("the card says no", code=48, fault=name, remedy="try again", fatal=fatal)


class Users:
    """The models."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.wrong = ""
        self.error: CardError | None = None
        self.defect: Exception | None = None
        self.hold: asyncio.Event | None = None

    def leave(self, why: OffCard) -> None:
        self.log.append(f"leave {why.reason}")

    async def load(self) -> None:
        self.log.append("load")
        if self.defect is not None:
            raise self.defect
        if self.hold is not None:
            await self.hold.wait()

    async def check(self) -> str:
        self.log.append("check")
        if self.error is not None:
            raise self.error
        return self.wrong

    def enter(self) -> None:
        self.log.append("enter")


class Stand:
    """A link on fakes."""

    def __init__(self) -> None:
        self.card = FakeCard()
        self.clock = FakeClock()
        self.users = Users()
        self.open_error: CardError | None = None
        self.executor = ThreadPoolExecutor(1)
        self.link = CardLink("fake", self._open, self.executor, self.clock)
        self.link.serve(self.users)

    def _open(self) -> FakeCard:
        if self.open_error is not None:
            raise self.open_error
        if self.card.closed:
            self.card = FakeCard()
        return self.card

    async def waking(self, done: Callable[[], bool]) -> None:
        """Until it is so, with all sleeps over at once."""

        def woken() -> bool:
            self.clock.wake()
            return done()

        await until(woken)

    async def reaches(self, state: CardState) -> None:
        await self.waking(lambda: self.link.state is state)


@asynccontextmanager
async def started() -> AsyncIterator[Stand]:
    stand = Stand()
    await stand.link.open()
    await stand.link.start()
    try:
        yield stand
    finally:
        await stand.link.close()
        stand.executor.shutdown()


async def test_a_good_card_is_ready_after_probation() -> None:
    async with started() as stand:
        assert stand.link.state is CardState.READY
        assert stand.users.log == ["load", "check", "enter"]
        assert (stand.link.losses, stand.link.returns, stand.link.resets) == (0, 0, 0)
    assert stand.card.closed


async def test_a_fault_is_answered_by_a_reset_at_once_and_probation() -> None:
    async with started() as stand:
        stand.users.log.clear()
        why = stand.link.report(fault(CardTimeout, "TIMEOUT"))
        assert why.reason == "card_timeout"
        assert stand.link.state is CardState.DEGRADED and stand.link.card.handle is None
        await until(lambda: stand.link.state is CardState.READY)  # nobody woke a sleeper
        assert stand.users.log[0] == "leave card_timeout"
        assert stand.users.log[-3:] == ["load", "check", "enter"]
        assert stand.card.resets == 1


async def test_resets_that_fail_are_given_up_and_tried_again_in_a_while() -> None:
    async with started() as stand:
        stand.card.reset_error = fault(CardTimeout, "TIMEOUT")
        stand.link.report(fault(CardTimeout, "TIMEOUT"))
        await stand.reaches(CardState.FAILED)
        assert stand.card.resets == RESETS
        assert stand.clock.searches == pytest.approx([0.1, 0.2, 0.4, 0.8])
        await until(lambda: stand.clock.searches[-1] == FAILED_DELAY)
        stand.card.reset_error = None
        await stand.reaches(CardState.READY)
        assert "enter" in stand.users.log[-1]


async def test_an_operator_resets_a_card_that_was_given_up() -> None:
    async with started() as stand:
        stand.card.reset_error = fault(CardTimeout, "TIMEOUT")
        stand.link.report(fault(CardTimeout, "TIMEOUT"))
        await stand.reaches(CardState.FAILED)
        with pytest.raises(CardTimeout):
            await stand.link.reset()
        await stand.reaches(CardState.FAILED)
        stand.card.reset_error = None
        await stand.link.reset()
        assert stand.link.state.value == "ready"


async def test_an_operator_resets_a_card_that_is_ready() -> None:
    async with started() as stand:
        await stand.link.reset()
        assert stand.link.state is CardState.READY and stand.card.resets == 1


async def test_wrong_answers_in_probation_keep_requests_away() -> None:
    async with started() as stand:
        stand.users.wrong = "scale/1: 3 of 3 values differ"
        stand.link.doubt("a request answered otherwise")
        assert stand.link.absent == OffCard("card_mismatch", "a request answered otherwise")
        await stand.reaches(CardState.FAILED)
        assert "enter" not in stand.users.log[3:]
        assert stand.link.absent.detail == "scale/1: 3 of 3 values differ"
        with pytest.raises(CardFault, match="3 of 3 values differ"):
            await stand.link.reset()


async def test_a_fault_in_probation_resets_again() -> None:
    async with started() as stand:
        stand.users.error = fault(CardFault, "HANG")
        stand.link.report(fault(CardTimeout, "TIMEOUT"))
        await stand.waking(lambda: stand.card.resets == 3)
        stand.users.error = None
        await stand.reaches(CardState.READY)


async def test_a_card_that_leaves_while_models_load_is_sought() -> None:
    async with started() as stand:
        stand.users.hold = asyncio.Event()
        stand.link.report(fault(CardTimeout, "TIMEOUT"))
        await stand.reaches(CardState.STARTING)
        stand.card.alive = False
        stand.link.report(gone())
        assert stand.link.state.value == "absent"
        stand.users.hold.set()
        stand.users.hold = None
        await stand.reaches(CardState.READY)
        assert stand.users.log.count("enter") == 2


async def test_a_heartbeat_that_stops_is_noticed_without_a_request() -> None:
    async with started() as stand:
        stand.card.stopped = True
        await stand.waking(lambda: stand.link.resets == 1)
        await stand.reaches(CardState.READY)
        assert STILL * WATCH_INTERVAL < 10


async def test_a_fault_without_a_request_is_noticed() -> None:
    async with started() as stand:
        stand.card.alive = False
        await stand.waking(lambda: stand.link.returns == 1)
        assert (stand.link.losses, stand.link.resets) == (1, 1)


async def test_deadlines_one_after_the_other_are_a_fault() -> None:
    async with started() as stand:
        for _ in range(4):
            stand.link.report(fault(CardTimeout, "DEADLINE"))
            stand.clock.time += 4  # too seldom
        assert stand.link.state is CardState.READY
        for _ in range(2):
            stand.link.report(fault(CardTimeout, "DEADLINE"))
        assert stand.link.state.value == "ready"
        stand.link.report(fault(CardTimeout, "DEADLINE"))
        assert stand.link.state.value == "degraded"


async def test_errors_of_an_earlier_card_count_and_change_nothing() -> None:
    async with started() as stand:
        stand.link.report(gone(), current=False)
        assert stand.link.state is CardState.READY
        assert stand.link.faults == {64: 1}


async def test_a_card_that_is_away_at_start_does_not_hold_up_the_server() -> None:
    stand = Stand()
    stand.open_error = gone()
    await stand.link.open()
    await stand.link.start()
    assert stand.link.state is CardState.ABSENT
    assert stand.link.absent.reason == "card_absent"
    stand.open_error = None
    await stand.reaches(CardState.READY)
    await stand.link.close()
    stand.executor.shutdown()


async def test_no_card_at_all() -> None:
    executor = ThreadPoolExecutor(1)
    link = CardLink("none", None, executor, FakeClock())
    await link.open()
    await link.start()
    await link.reset()
    await link.attach()
    await link.detach()
    assert link.state is CardState.NONE
    await link.close()
    executor.shutdown()


async def test_a_card_that_comes_back_each_time_is_never_given_up() -> None:
    """Only later and later, as long as it is never steady."""
    async with started() as stand:
        for _ in range(2 * RESETS):
            stand.link.report(fault(CardTimeout, "TIMEOUT"))
            await stand.reaches(CardState.READY)
        assert stand.card.resets == 2 * RESETS
        assert stand.clock.searches == pytest.approx([0.1 * 2**n for n in range(9)])


async def test_a_defect_of_a_user_is_logged_and_the_link_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with started() as stand:
        stand.users.defect = ZeroDivisionError("a defect")
        with pytest.raises(CardFault, match="defect"):
            await stand.link.reset()
        assert "a defect" in caplog.text
        stand.users.defect = None
        await stand.reaches(CardState.READY)


async def test_a_reset_of_a_card_that_is_taken_away_meanwhile_says_so() -> None:
    async with started() as stand:
        stand.users.hold = asyncio.Event()
        reset = asyncio.create_task(stand.link.reset())
        await stand.waking(lambda: stand.link.state is CardState.STARTING)
        await stand.link.detach()
        with pytest.raises(CardGone, match="detached"):
            await reset
        stand.users.hold.set()


async def test_a_card_that_is_to_rest_is_left_and_proven_again_afterwards() -> None:
    async with started() as stand:
        stand.users.log.clear()
        stand.link.withhold("controller", "the core has 104 °C")
        assert stand.link.state is CardState.RESTING
        assert stand.link.absent.detail == "the core has 104 °C"
        assert stand.users.log == ["leave card_resting"]
        stand.link.withhold("controller", "the core has 105 °C")  # again: it rests already
        await asyncio.gather(
            stand.link.relieve("controller"),
            stand.waking(lambda: stand.link.state is CardState.READY),
        )
        assert stand.users.log == ["leave card_resting", "load", "check", "enter"]
        assert stand.link.resets == 0


async def test_a_card_that_comes_back_while_it_is_to_rest_does_not_enter() -> None:
    async with started() as stand:
        stand.card.alive, stand.card.absent = False, True
        stand.link.report(gone())
        assert stand.link.state is CardState.ABSENT
        stand.link.withhold("controller", "its firmware is being changed")
        stand.card.absent = False
        await stand.reaches(CardState.RESTING)
        stand.users.log.clear()
        await asyncio.gather(
            stand.link.relieve("controller"),
            stand.waking(lambda: stand.link.state is CardState.READY),
        )
        assert stand.users.log == ["load", "check", "enter"]


async def test_relief_for_a_card_that_does_not_rest_changes_nothing() -> None:
    async with started() as stand:
        stand.users.log.clear()
        await stand.link.relieve("controller")
        assert stand.link.state is CardState.READY and stand.users.log == []


async def test_an_operator_may_reset_a_card_that_rests_and_it_rests_on() -> None:
    async with started() as stand:
        stand.link.withhold("controller", "too hot")
        await asyncio.gather(stand.link.reset(), stand.waking(lambda: stand.link.resets == 1))
        await stand.reaches(CardState.RESTING)


async def test_a_card_rests_until_all_who_want_that_have_relieved_it() -> None:
    async with started() as stand:
        stand.link.withhold("operator", "its firmware is being changed")
        stand.link.withhold("controller", "too hot")
        await stand.link.relieve("controller")
        assert stand.link.state is CardState.RESTING
        await asyncio.gather(
            stand.link.relieve("operator"),
            stand.waking(lambda: stand.link.state is CardState.READY),
        )

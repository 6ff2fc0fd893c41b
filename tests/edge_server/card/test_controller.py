# SPDX-License-Identifier: Apache-2.0
"""What a card's controller says, and when the card rests for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from edge_server.card.controller import (
    CALM,
    OPERATOR,
    ControllerFault,
    ControllerWatch,
    Reading,
    trouble,
)
from edge_server.card.states import CardState
from firmware_bridge.errors import CardSilent
from tests.edge_server.card.test_link import Stand, started

WELL = Reading(
    "TC1-0001", "1.4.0", {"temp.core_c": 60.0, "power.board_w": 20.0}, {"temp.core_c": 95}
)


class FakeLine:
    """A controller that says what it is told to."""

    def __init__(self) -> None:
        self.reading = WELL
        self.error: CardSilent | None = None
        self.looks = 0
        self.asked: list[int] = []

    def read(self, since: int) -> Reading:
        self.looks += 1
        self.asked.append(since)
        if self.error is not None:
            raise self.error
        fresh = tuple(fault for fault in self.reading.faults if fault.number > since)
        return replace(self.reading, faults=fresh)


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Stand, FakeLine, ControllerWatch]]:
    async with started() as stand:
        line = FakeLine()
        watch = ControllerWatch("/dev/card", line, stand.link, stand.clock)
        watch.start()
        await looks(stand, line, 1)
        try:
            yield stand, line, watch
        finally:
            await watch.stop()


async def looks(stand: Stand, line: FakeLine, count: int) -> None:
    """So many more, and what follows from all but the last of them."""
    wanted = line.looks + count + 1
    await stand.waking(lambda: line.looks >= wanted)


async def test_a_well_card_works() -> None:
    async with watched() as (stand, _, watch):
        assert watch.view.reading == WELL and watch.view.error == ""
        assert stand.link.state is CardState.READY


async def test_heat_lets_the_card_rest_until_it_has_been_calm() -> None:
    async with watched() as (stand, line, _):
        line.reading = replace(WELL, sensors={"temp.core_c": 101.0})
        await looks(stand, line, 1)
        assert stand.link.state is CardState.RESTING
        assert "101.0 °C at temp.core; the limit is 95" in stand.link.absent.detail
        line.reading = WELL
        await looks(stand, line, CALM - 2)
        assert stand.link.state is CardState.RESTING
        await stand.reaches(CardState.READY)
        assert stand.users.log[-3:] == ["load", "check", "enter"]


async def test_a_power_event_of_the_log_lets_the_card_rest_once() -> None:
    async with watched() as (stand, line, watch):
        fault = ControllerFault(7, 1_750_000_000, "POWER_LIMITED", "75 W for 2 s")
        line.reading = replace(WELL, faults=(fault,))
        await looks(stand, line, 1)
        assert stand.link.state is CardState.RESTING
        assert "POWER_LIMITED: 75 W for 2 s" in stand.link.absent.detail
        await stand.reaches(CardState.READY)
        assert list(watch.view.faults) == [fault] and line.asked[-1] == 7


async def test_events_from_before_the_start_are_old_news() -> None:
    async with started() as stand:
        line = FakeLine()
        line.reading = replace(WELL, faults=(ControllerFault(3, 0, "OVER_TEMPERATURE", ""),))
        watch = ControllerWatch("/dev/card", line, stand.link, stand.clock)
        watch.start()
        await looks(stand, line, 2)
        assert stand.link.state is CardState.READY and len(watch.view.faults) == 1
        await watch.stop()


async def test_a_silent_controller_is_no_reason_to_leave_a_card_that_answers() -> None:
    async with watched() as (stand, line, watch):
        line.error = CardSilent("no answer at /dev/card", "look at the cable")
        await stand.waking(lambda: watch.view.looks_failed >= 2)
        assert stand.link.state is CardState.READY
        assert watch.view.reading is None and "no answer" in watch.view.error
        line.error = None
        await stand.waking(lambda: watch.view.reading is not None)


async def test_a_drained_cards_controller_is_left_alone() -> None:
    async with watched() as (stand, line, watch):
        stand.link.withhold(OPERATOR, "its firmware is being changed")
        await stand.waking(lambda: "left alone" in watch.view.error)
        looked, turns = line.looks, iter(range(20))
        await stand.waking(lambda: next(turns) > 15)
        assert line.looks == looked
        await asyncio.gather(stand.link.relieve(OPERATOR), stand.reaches(CardState.READY))
        await looks(stand, line, 1)
        assert watch.view.error == ""


async def test_a_drain_by_somebody_else_outlasts_the_controllers() -> None:
    async with watched() as (stand, line, _):
        stand.link.withhold("somebody", "maintenance")
        line.reading = replace(WELL, sensors={"temp.core_c": 101.0})
        await looks(stand, line, 1)
        line.reading = WELL
        await looks(stand, line, CALM + 2)
        assert stand.link.state is CardState.RESTING
        await asyncio.gather(stand.link.relieve("somebody"), stand.reaches(CardState.READY))


def test_trouble() -> None:
    assert trouble(WELL) == ""
    assert trouble(replace(WELL, limits={"temp.core_c": 60.0})) == ""
    assert "the limit is" in trouble(replace(WELL, limits={"power.board_w": 19.0}))
    assert trouble(WELL, [ControllerFault(1, 0, "BOOTED", "")]) == ""
    assert "FAN_FAILED" in trouble(WELL, [ControllerFault(1, 0, "FAN_FAILED", "")])

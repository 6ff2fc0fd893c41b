# SPDX-License-Identifier: Apache-2.0
"""The model of the card: inertia, fan, throttling at limits, and what it tells of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from firmware_bridge.controller.flash import Flash
from firmware_bridge.controller.injected import Injected
from firmware_bridge.controller.load import BusyCard, load_in
from firmware_bridge.controller.telemetry import CLOCK_LEAST, CLOCK_MOST, Card, Limits
from tests.firmware_bridge.controller.bench_board import Board, blank


def settled(load: float, limits: Limits | None = None, stuck: bool = False) -> Card:
    card = Card(limits=limits or Limits(), load=load, fan_stuck=stuck)
    card.advance(590)
    return card


def test_idle_card_is_cool_and_fast() -> None:
    card = settled(0.0)
    assert 25 < card.die < 55
    assert 5 < card.watts < 15
    assert card.clock == CLOCK_MOST
    assert card.throttled == 0


def test_heat_follows_load_with_inertia() -> None:
    card = Card(load=1.0)
    before = card.die
    card.advance(0.5)
    assert card.die - before < 3
    card.advance(30)
    assert card.die - before > 10
    card.load = 0.0
    hot = card.die
    card.advance(1)
    assert card.die > hot - 5
    card.advance(590)
    assert card.die < hot - 10


def test_more_load_is_more_of_everything() -> None:
    cards = [settled(load) for load in (0.0, 0.3, 0.6, 1.0)]
    for less, more in pairwise(cards):
        assert less.die < more.die
        assert less.watts < more.watts
        assert less.rpm <= more.rpm
        assert less.joules < more.joules


def test_full_load_stays_below_the_limits() -> None:
    card = settled(1.0)
    assert card.die < card.limits.temp_c
    assert card.watts <= card.limits.power_w
    assert card.clock == CLOCK_MOST


def test_power_limit_is_held_by_the_clock() -> None:
    card = Card(limits=Limits(power_w=40), load=1.0)
    events = card.advance(120)
    assert [event.name for event in events] == ["power"]
    assert card.watts < 42
    assert CLOCK_LEAST < card.clock < CLOCK_MOST
    assert card.throttled > 100
    card.load = 0.0
    card.advance(120)
    assert card.clock == CLOCK_MOST


def test_temperature_limit_is_held_by_the_clock() -> None:
    card = Card(limits=Limits(temp_c=55), load=1.0)
    events = card.advance(590)
    assert "temperature" in {event.name for event in events}
    assert card.die < 57
    assert card.clock < CLOCK_MOST


def test_stuck_fan_throttles_the_card_and_is_told_once() -> None:
    card = Card(load=1.0, fan_stuck=True)
    events = card.advance(590)
    assert [event.name for event in events].count("fan") == 1
    assert card.rpm < 1
    assert card.die < card.limits.temp_c + 3
    assert card.clock < CLOCK_MOST
    assert card.statistics()["fan"]["duty_permille"] == 1000


def test_voltages_ripple_around_their_values() -> None:
    card = Card(load=0.5)
    seen = set()
    for _ in range(50):
        card.advance(0.3)
        volt = card.statistics()["volt"]
        assert 1090 < volt["memory_mv"] < 1110
        assert 11_000 < volt["input_mv"] < 12_100
        seen.add(volt["memory_mv"])
    assert len(seen) > 3


def test_time_is_the_same_in_small_and_large_steps() -> None:
    fine, coarse = Card(load=0.7), Card(load=0.7)
    for _ in range(200):
        fine.advance(0.05)
    coarse.advance(10.0)
    assert fine.die == pytest.approx(coarse.die, abs=0.2)


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Flash]:
    with blank(tmp_path / "flash") as made:
        yield made


def test_controller_follows_the_load_and_logs_what_it_meets(flash: Flash) -> None:
    board = Board(flash, Injected(fan_stuck=True))
    board.load = 1.0
    for _ in range(60):
        board.now += 10
        board.controller.tick(board.now)
    codes = [entry["code"] for entry in board.ask(66, 0)["log"]]
    assert 5 in codes
    assert 3 in codes
    clock = board.ask(2, 0, {"name": "clock"})["fields"]
    assert clock["load_permille"] == 1000
    assert clock["core_khz"] < clock["core_max_khz"]
    assert board.ask(2, 0, {"name": "fault"})["fields"]["fan_failed"] == 1


def test_load_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "load"
    assert load_in(path) == 0
    path.write_text("0.75\n")
    assert load_in(path) == 0.75
    path.write_text("much")
    assert load_in(path) == 0


def test_load_of_a_cards_busy_time() -> None:
    card = BusyCard()
    card.read({"busy_ns": [0, 0]}, 10.0)
    assert card.load == 0
    card.read(json.loads('{"busy_ns": [1000000000, 500000000]}'), 11.0)
    assert card.load == pytest.approx(0.75)
    card.read({"busy_ns": [0, 0]}, 12.0)  # the card was reset
    assert card.load == 0
    card.read({"error": "unknown request"}, 13.0)
    card.read({"busy_ns": [9_000_000_000, 0]}, 14.0)
    assert card.load == 0

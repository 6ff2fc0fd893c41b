# SPDX-License-Identifier: Apache-2.0
"""The rules without I/O: circuits, rates, windows, ways and plans."""

from __future__ import annotations

import hashlib
import random
import threading
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_server.fill.choose import DeltaWant, Kind, choose
from edge_server.fill.errors import BadRate, BadWindow, SlowSource
from edge_server.fill.health import LONGEST_PAUSE, PROBE_LEASE, Circuit, State, full_jitter
from edge_server.fill.plan import JOIN, Away, BlockPlan, Here
from edge_server.fill.rate import BURST, Rate
from edge_server.fill.receive import Drip
from edge_server.fill.window import Windows, parse_windows
from registry.delta.block_index import Block, BlockIndex
from registry.digest import digest_of
from tests.edge_server.fill.fake_time import FakeTime

BERLIN = ZoneInfo("Europe/Berlin")


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_probe() -> None:
    circuit = Circuit(random.Random(1))
    circuit.failed(0.0, "first")
    circuit.failed(0.0, "second")
    assert circuit.ask(0.0)
    circuit.failed(0.0, "third")
    assert circuit.state is State.OPEN
    assert not circuit.ask(circuit.until - 0.001)
    later = circuit.until
    assert circuit.ask(later)
    assert not circuit.ask(later)  # one probe at a time
    circuit.failed(later, "fourth")
    assert circuit.state is State.OPEN
    assert circuit.ask(circuit.until)
    circuit.succeeded()
    assert (circuit.state, circuit.failures, circuit.reason) == (State.CLOSED, 0, "")


def test_a_probe_that_never_reports_does_not_hold_the_circuit_for_ever() -> None:
    circuit = Circuit(random.Random(1))
    for _ in range(3):
        circuit.failed(0.0, "down")
    begin = circuit.until
    assert circuit.ask(begin)
    assert not circuit.ask(begin + PROBE_LEASE - 1)
    assert circuit.ask(begin + PROBE_LEASE)


def test_a_late_failure_does_not_lengthen_the_pause() -> None:
    circuit = Circuit(random.Random(1))
    for _ in range(3):
        circuit.failed(0.0, "down")
    until = circuit.until
    circuit.failed(until / 2, "late")
    assert circuit.until == until


def test_retry_after_opens_at_once() -> None:
    circuit = Circuit(random.Random(1))
    circuit.failed(5.0, "busy", 40.0)
    assert not circuit.may_ask(44.9)
    assert circuit.may_ask(45.0)


@given(st.integers(1, 2000), st.integers())
def test_pauses_are_bounded(failures: int, seed: int) -> None:
    pause = full_jitter(failures, random.Random(seed), 1.0, LONGEST_PAUSE)
    assert 0 <= pause <= min(LONGEST_PAUSE, 2.0 ** min(failures - 1, 30))


def test_a_rate_is_kept_on_average() -> None:
    time = FakeTime()
    rate = Rate(1_000_000, time)
    begin = time.now()
    for _ in range(400):
        rate.take(50_000, threading.Event())
    took = time.now() - begin
    assert took == pytest.approx(20.0 - BURST)


def test_a_rate_is_shared() -> None:
    time = FakeTime()
    rate = Rate(1_000_000, time)
    begin = time.now()

    def take() -> None:
        for _ in range(100):
            rate.take(10_000, threading.Event())

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.now() - begin >= 4.0 - BURST - 0.01


def test_a_pause_does_not_save_up_a_flood() -> None:
    time = FakeTime()
    rate = Rate(1000, time)
    rate.take(1, threading.Event())
    time.advance(3600)
    assert rate.take(2000, threading.Event()) == pytest.approx(2.0 - BURST)


def test_no_rate_is_no_limit() -> None:
    time = FakeTime()
    assert Rate(None, time).take(1 << 40, threading.Event()) == 0
    assert time.waits == []


def test_a_rate_of_nothing() -> None:
    with pytest.raises(BadRate):
        Rate(0)


@pytest.mark.parametrize(
    ("text", "when", "is_open"),
    [
        ("22:00-06:00", "21:59", False),
        ("22:00-06:00", "22:00", True),
        ("22:00-06:00", "00:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("12:30-13:15, 02:00-03:00", "12:29", False),
        ("12:30-13:15, 02:00-03:00", "13:14", True),
        ("12:30-13:15, 02:00-03:00", "02:30", True),
        ("18:00-24:00", "23:59", True),
        ("18:00-24:00", "00:00", False),
        ("00:00-24:00", "12:00", True),
        ("", "12:00", True),
    ],
)
def test_windows(text: str, when: str, is_open: bool) -> None:
    hour, minute = map(int, when.split(":"))
    wall = datetime(2026, 3, 5, hour, minute, tzinfo=UTC).timestamp()
    windows = parse_windows(text, utc=True)
    assert windows.is_open(wall) is is_open
    assert (windows.opens_in(wall) == 0) is is_open
    assert windows.is_open(wall + windows.opens_in(wall))


@pytest.mark.parametrize(
    "text", ["22-06", "25:00-26:00", "22:00", "10:60-11:00", "10:00-10:00", "1:00-2:00,", "a"]
)
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(BadWindow) as caught:
        parse_windows(text)
    assert "HH:MM-HH:MM" in caught.value.remedy or "leave" in caught.value.remedy


def test_a_window_in_the_hour_that_summer_time_skips() -> None:
    """On 2026-03-29 Berlin goes from 02:00 to 03:00."""
    windows = Windows(((150, 240),), BERLIN)  # 02:30-04:00
    wall = datetime(2026, 3, 29, 1, 59, tzinfo=BERLIN).timestamp()
    assert not windows.is_open(wall)
    assert windows.is_open(wall + windows.opens_in(wall))
    whole = Windows(((120, 150),), BERLIN)  # 02:00-02:30: not on that day
    pause = whole.opens_in(wall)
    assert whole.is_open(wall + pause) and pause > 23 * 3600


@given(st.integers(1_700_000_000, 1_900_000_000), st.integers(0, 1439), st.integers(0, 1439))
def test_a_window_opens_when_it_says(wall: int, begin: int, end: int) -> None:
    if begin == end:
        return
    windows = Windows(((begin, end),), BERLIN)
    pause = windows.opens_in(wall)
    assert 0 <= pause <= 3 * 86400 + 3600
    assert windows.is_open(wall + pause)


def test_a_drip_is_slow_only_over_its_span() -> None:
    drip = Drip(least=1024, over=30.0)
    for _ in range(29):
        drip.note(1.0, 1)
    with pytest.raises(SlowSource, match="30 bytes in 30 s"):
        drip.note(1.0, 1)


def test_a_thin_link_is_no_drip() -> None:
    drip = Drip(least=1024, over=30.0)
    for _ in range(200):
        drip.note(1.0, 1100)


DELTA = DeltaWant("sha256:" + "a" * 64, "sha256:" + "b" * 64, 100)


@pytest.mark.parametrize(
    ("remaining", "missing", "deltas", "kind"),
    [
        (1000, None, [], Kind.FULL),
        (1000, 1000, [], Kind.FULL),
        (1000, 999, [], Kind.BLOCKS),
        (1000, 50, [(DELTA, 100)], Kind.BLOCKS),
        (1000, 150, [(DELTA, 100)], Kind.DELTA),
        (80, None, [(DELTA, 100)], Kind.FULL),  # nearly here
        (80, None, [(DELTA, 0)], Kind.DELTA),  # the delta is here
        (100, 100, [(DELTA, 100)], Kind.FULL),
    ],
)
def test_the_way_that_moves_the_fewest_bytes(
    remaining: int, missing: int | None, deltas: list[tuple[DeltaWant, int]], kind: Kind
) -> None:
    assert choose(remaining, missing, deltas)[0].kind is kind


def index_of(pieces: list[bytes]) -> BlockIndex:
    blocks, at = [], 0
    for piece in pieces:
        blocks.append(Block(at, len(piece), hashlib.sha256(piece).digest()))
        at += len(piece)
    return BlockIndex(digest_of(b"".join(pieces)), at, blocks)


def test_a_plan_takes_what_is_here_and_joins_the_rest() -> None:
    old = [b"a" * 100, b"b" * 200, b"c" * 300]
    new = [b"x" * 50, b"y" * 60, b"b" * (JOIN + 1), b"c" * 300, b"z" * 70]
    holder = index_of([*old, b"b" * (JOIN + 1)])
    plan = BlockPlan(index_of(new), [holder])
    assert plan.missing() == 180
    first = plan.at(0)
    assert isinstance(first, Away)
    assert (first.first, first.end) == (0, 110)
    here = plan.at(110)
    assert isinstance(here, Here)
    assert (here.holder, here.at) == (holder.digest, 600)
    plan.drop(holder.digest, here.block)
    assert isinstance(plan.at(110), Away)
    assert plan.missing() == 180 + JOIN + 1


def test_a_plan_asks_for_little_that_is_here_along_with_what_is_not() -> None:
    new = [b"x" * 50, b"c" * 300, b"z" * 70, b"c" * 300]
    step = BlockPlan(index_of(new), [index_of([b"c" * 300])]).at(0)
    assert isinstance(step, Away)
    assert (step.first, step.end) == (0, 420)  # and not the last, behind which nothing comes


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), min_size=1, max_size=20))
def test_a_plan_covers_the_blob(letters: list[bytes]) -> None:
    pieces = [letter * (1 + 7 * ord(letter)) for letter in letters]
    index = index_of(pieces)
    plan = BlockPlan(index, [index_of([b"a" * (1 + 7 * 97), b"b" * (1 + 7 * 98)])])
    offset = 0
    while offset < index.size:
        step = plan.at(offset)
        block = step.block if isinstance(step, Here) else step.blocks[0]
        assert block.offset == offset
        offset = block.offset + block.size if isinstance(step, Here) else step.end
    assert offset == index.size

# SPDX-License-Identifier: Apache-2.0
"""Rates, windows and slow sources, in a time that passes only when somebody waits."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from edge_server.fill.fill import Want
from edge_server.fill.fills import Fills
from edge_server.fill.origins import Origins
from edge_server.fill.rate import Rate
from edge_server.fill.receive import EDGE, Limits
from edge_server.fill.source import Origin
from edge_server.fill.window import parse_windows
from edge_server.store.store import Store
from registry.digest import digest_of
from registry.oci import MANIFEST_LIMIT, Index
from tests.edge_server.fill.conftest import MakeFills
from tests.edge_server.fill.fake_time import FakeTime
from tests.edge_server.fill.scripted import NAME, Registry, refuse, some_bytes

SIZE = 3 << 20
DATA = some_bytes(SIZE)


class Slow:
    """A source that takes its time: an Answer, and what gives one."""

    status = 200
    etag = ""

    def __init__(self, time: FakeTime, step: int, seconds: float, data: bytes = DATA) -> None:
        self._time = time
        self._step = step  # bytes at once
        self._seconds = seconds  # for each step
        self._data = data
        self._at = 0
        self.start = 0
        self.total = len(data)
        self.opened: list[int] = []

    def open_blob(
        self, name: str, digest: str, first: int = 0, last: int | None = None, etag: str = ""
    ) -> Slow:
        self.opened.append(first)
        self.status = 206 if first else 200
        self.start = self._at = first
        return self

    def readinto(self, buffer: memoryview) -> int:
        self._time.advance(self._seconds)
        part = self._data[self._at : self._at + min(self._step, len(buffer))]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        pass

    def manifest(
        self, name: str, target: str, limit: int = MANIFEST_LIMIT
    ) -> tuple[bytes, str, str]:
        raise AssertionError

    def referrers(self, name: str, digest: str) -> Index:
        raise AssertionError

    def document(self, path: str, limit: int, etag: str = "") -> tuple[bytes | None, str]:
        raise AssertionError


def fills_of(store: Store, time: FakeTime, *sources: Slow) -> Fills:
    origins = [Origin(f"o{at}", "http://slow", source) for at, source in enumerate(sources)]
    there = Origins(origins, time=time, rng=random.Random(1))
    return Fills(store, there, limits=Limits(time=time), rng=random.Random(1))


def test_slow_drip(store: Store, time: FakeTime) -> None:
    """Under 1 KiB/s over 30 s: the next origin goes on."""
    drip, good = Slow(time, 100, 1.0), Slow(time, 1 << 20, 0.01)
    fills = fills_of(store, time, drip, good)
    fill = fills.start(Want(NAME, digest_of(DATA), SIZE))
    assert fill.wait(20).read_bytes() == DATA
    assert good.opened == [3000]
    assert fill.sources == {"origin o0": 3000, "origin o1": SIZE - 3000}
    fills.stop()


def test_a_slow_link_is_no_drip(store: Store, time: FakeTime) -> None:
    data = DATA[: 256 << 10]
    slow = Slow(time, 1100, 1.0, data)
    fills = fills_of(store, time, slow)
    assert fills.start(Want(NAME, digest_of(data), len(data))).wait(20).read_bytes() == data
    assert slow.opened == [0]
    fills.stop()


def test_a_rate_holds_for_all_fills_together(
    registry: Registry, time: FakeTime, make_fills: MakeFills
) -> None:
    blobs = [DATA[: 1 << 20], DATA[1 << 20 : 2 << 20], DATA[2 << 20 :]]
    begin = time.now()
    fills = make_fills(registry, limits=Limits(rate=Rate(100_000, time), time=time))
    wanted = [
        fills.start(Want(NAME, registry.add(data), len(data), urgent=at == 1))
        for at, data in enumerate(blobs)
    ]
    for fill in wanted:
        fill.wait(20)
    assert time.now() - begin >= SIZE / 100_000 - 1


def test_a_fill_pauses_when_its_window_closes(store: Store) -> None:
    """At an edge, and goes on from there when the next one opens."""
    time = FakeTime(datetime(2026, 5, 5, 5, 59, 58, tzinfo=UTC).timestamp())
    source = Slow(time, 400_000, 1.0)
    fills = fills_of(store, time, source)
    fills.stop()
    origins = Origins([Origin("o0", "http://slow", source)], time=time)
    windows = parse_windows("22:00-06:00", utc=True)
    fills = Fills(store, origins, limits=Limits(time=time), windows=windows)
    assert fills.start(Want(NAME, digest_of(DATA), SIZE)).wait(20).read_bytes() == DATA
    assert source.opened == [0, EDGE]
    assert datetime.fromtimestamp(time.wall(), UTC).hour == 22
    assert sum(time.waits) == pytest.approx(16 * 3600, abs=10)
    fills.stop()


def test_a_closed_window_does_not_use_up_the_patience(
    registry: Registry, make_fills: MakeFills
) -> None:
    digest = registry.add(DATA)
    registry.script.append(refuse(503))
    time = FakeTime(datetime(2026, 5, 5, 12, 0, tzinfo=UTC).timestamp())
    fills = make_fills(registry, clock=time, windows=parse_windows("22:00-06:00", utc=True))
    assert fills.start(Want(NAME, digest, SIZE)).wait(20).read_bytes() == DATA
    assert len(registry.asked) == 2


def test_an_urgent_fill_does_not_wait_for_a_window(
    registry: Registry, make_fills: MakeFills
) -> None:
    time = FakeTime(datetime(2026, 5, 5, 12, 0, tzinfo=UTC).timestamp())
    digest = registry.add(DATA)
    fills = make_fills(registry, clock=time, windows=parse_windows("22:00-06:00", utc=True))
    assert fills.start(Want(NAME, digest, SIZE, urgent=True)).wait(20).read_bytes() == DATA
    assert time.waits == []


def test_a_fill_that_becomes_urgent_leaves_its_wait_for_the_window(
    registry: Registry, make_fills: MakeFills
) -> None:
    digest = registry.add(DATA)
    time = FakeTime(datetime(2026, 5, 5, 12, 0, tzinfo=UTC).timestamp())
    fills = make_fills(registry, clock=time, windows=parse_windows("22:00-06:00", utc=True))
    want = Want(NAME, digest, SIZE)

    def hurry(_seconds: float) -> None:
        fills.start(Want(NAME, digest, urgent=True))

    time.on_wait = hurry
    assert fills.start(want).wait(20).read_bytes() == DATA
    assert len(time.waits) == 1

# SPDX-License-Identifier: Apache-2.0
"""Fills that go well: one request for many who want, streaming before the end, going on."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_server.fill.errors import FillFailed, NowhereFound, Stopped
from edge_server.fill.fill import Fill, Want
from edge_server.store.store import Store
from tests.edge_server.fill.conftest import MakeFills
from tests.edge_server.fill.scripted import NAME, Registry, hold, some_bytes

SIZE = 3 << 20
DATA = some_bytes(SIZE)


def test_a_blob_arrives(registry: Registry, store: Store, make_fills: MakeFills) -> None:
    digest = registry.add(DATA)
    fill = make_fills(registry).start(Want(NAME, digest, SIZE))
    path = fill.wait(20)
    assert path == store.path(digest)
    assert path.read_bytes() == DATA
    assert fill.sources == {"origin o0": SIZE}
    assert registry.ranges() == [""]
    assert fill.progress().done == fill.progress().total == SIZE


def test_a_blob_that_is_here_asks_nobody(
    registry: Registry, store: Store, make_fills: MakeFills
) -> None:
    digest = registry.add(DATA)
    store.add(DATA, digest)
    fill = make_fills(registry).start(Want(NAME, digest))
    assert fill.wait(20).read_bytes() == DATA
    assert fill.size == SIZE
    assert registry.asked == []


def test_the_size_is_learnt_by_the_same_request(registry: Registry, make_fills: MakeFills) -> None:
    digest = registry.add(DATA)
    fill = make_fills(registry).start(Want(NAME, digest, urgent=True))
    assert fill.wait_size(20) == SIZE
    assert fill.wait(20).read_bytes() == DATA
    assert registry.ranges() == [""]


def test_an_empty_blob(registry: Registry, make_fills: MakeFills) -> None:
    digest = registry.add(b"")
    assert make_fills(registry).start(Want(NAME, digest, 0)).wait(20).read_bytes() == b""


def test_fifty_who_want_make_one_request(registry: Registry, make_fills: MakeFills) -> None:
    digest = registry.add(DATA)
    go_on = threading.Event()
    registry.script.append(hold(SIZE // 2, go_on))
    fills = make_fills(registry)
    all_here = threading.Barrier(50)

    def want(_number: int) -> bytes:
        all_here.wait(20)
        fill = fills.start(Want(NAME, digest, urgent=True))
        first = fill.read(0, 1 << 16, 20)
        if all_here.wait(20) == 0:  # all have their first bytes, and the origin its last
            go_on.set()
        found = bytearray(first)
        while part := fill.read(len(found), 1 << 18, 20):
            found += part
        return bytes(found)

    with ThreadPoolExecutor(50) as pool:
        assert all(found == DATA for found in pool.map(want, range(50)))
    assert registry.ranges() == [""]


def test_subscribers_hear_of_bytes_and_of_the_end(
    registry: Registry, make_fills: MakeFills
) -> None:
    digest = registry.add(DATA)
    go_on = threading.Event()
    registry.script.append(hold(SIZE // 2, go_on))
    fill = make_fills(registry).start(Want(NAME, digest, SIZE))
    heard: list[int] = []
    some, ended = threading.Event(), threading.Event()

    def callback(fill: Fill) -> None:
        heard.append(fill.available)
        if fill.available:
            some.set()
        if fill.ended.is_set():
            ended.set()

    fill.subscribe(callback)
    assert some.wait(20)
    go_on.set()
    assert ended.wait(20)
    assert heard == sorted(heard)
    assert heard[-1] == SIZE
    late: list[Fill] = []
    fill.subscribe(late.append)
    assert late == [fill]


def test_a_cancelled_fill_goes_on_where_it_was(registry: Registry, make_fills: MakeFills) -> None:
    digest = registry.add(DATA)
    never = threading.Event()
    registry.script.append(hold(SIZE // 2, never))
    fills = make_fills(registry)
    fill = fills.start(Want(NAME, digest, SIZE))
    fill.read(SIZE // 2 - 1, 1, 20)
    fill.cancel()
    again = fills.start(Want(NAME, digest, SIZE))
    assert again is not fill
    never.set()  # the connection of the first gives bytes again, and it sees that it is to stop
    assert again.wait(20).read_bytes() == DATA
    with pytest.raises(Stopped):
        fill.wait(20)
    assert len(registry.ranges()) == 2
    first = int(registry.ranges()[1].removeprefix("bytes=").partition("-")[0])
    assert first >= SIZE // 2
    assert registry.asked[1].headers["If-Range"] == f'"{digest}"'


def test_urgent_goes_before_background(registry: Registry, make_fills: MakeFills) -> None:
    blobs = [some_bytes(1000, seed) for seed in range(4)]
    digests = [registry.add(data) for data in blobs]
    go_on = threading.Event()
    registry.script.append(hold(10, go_on))
    fills = make_fills(registry, background=1, urgent=1)
    first = fills.start(Want(NAME, digests[0], 1000))
    first.read(0, 1, 20)  # the only place for background fills is taken
    waiting = fills.start(Want(NAME, digests[1], 1000))
    assert fills.start(Want(NAME, digests[2], 1000, urgent=True)).wait(20)
    assert fills.start(Want(NAME, digests[1], 1000, urgent=True)) is waiting
    assert waiting.wait(20)
    assert not first.ended.is_set()
    go_on.set()
    assert first.wait(20)


def test_a_blob_that_nobody_has(registry: Registry, make_fills: MakeFills) -> None:
    digest = Registry().add(b"nowhere")
    fill = make_fills(registry).start(Want(NAME, digest))
    with pytest.raises(NowhereFound, match="no origin has it"):
        fill.wait(20)
    assert len(registry.asked) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_ends_one_fill_and_no_other(
    registry: Registry, make_fills: MakeFills, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits hears of it, and the threads go on."""
    digests = [registry.add(some_bytes(1000, seed)) for seed in range(5)]
    fills = make_fills(registry, background=1)

    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr("edge_server.fill.worker.ask", broken)
        wanted = [fills.start(Want(NAME, digest, 1000)) for digest in digests]
        for fill in wanted:
            with pytest.raises(FillFailed, match="a defect ended the fill"):
                fill.wait(20)
    for digest in digests:
        assert fills.start(Want(NAME, digest, 1000)).wait(20)


def test_stop_does_not_wait_for_a_silent_source(registry: Registry, make_fills: MakeFills) -> None:
    digest = registry.add(DATA)
    never = threading.Event()
    registry.script.append(hold(1000, never))
    fills = make_fills(registry, timeout=60.0, background=1)
    fill = fills.start(Want(NAME, digest, SIZE))
    fill.read(999, 1, 20)  # it is this fill that the script holds, and the others queue behind it
    waiting = [fills.start(Want(NAME, registry.add(bytes([at])), 1)) for at in range(5)]
    stopper = threading.Thread(target=fills.stop)
    stopper.start()
    stopper.join(10)
    assert not stopper.is_alive()
    never.set()
    with pytest.raises(Stopped):
        fill.wait(1)
    for one in waiting:
        assert one.ended.wait(1)
    with pytest.raises(Stopped):
        fills.start(Want(NAME, digest, SIZE))


@pytest.mark.parametrize("seed", range(4))
def test_started_and_cancelled_by_many(
    seed: int, registry: Registry, store: Store, make_fills: MakeFills
) -> None:
    """In any order: nobody waits for ever, and what comes is right."""
    blobs = [some_bytes(300_000, number) for number in range(3)]
    digests = [registry.add(data) for data in blobs]
    fills = make_fills(registry, background=1, urgent=2)
    begin = threading.Barrier(8)

    def one(number: int) -> None:
        rng = random.Random(seed * 100 + number)
        begin.wait(20)
        for _ in range(12):
            at = rng.randrange(3)
            fill = fills.start(Want(NAME, digests[at], urgent=rng.random() < 0.5))
            if rng.random() < 0.6:
                fill.cancel()
                continue
            assert fill.wait(20).read_bytes() == blobs[at]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    for digest, data in zip(digests, blobs, strict=True):
        assert fills.start(Want(NAME, digest)).wait(20).read_bytes() == data
    assert store.verify() == []

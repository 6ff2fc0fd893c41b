# SPDX-License-Identifier: Apache-2.0
"""The store killed, and without power, at every step of what it does: afterwards it is whole, holds
what it promised to hold, and fetches nothing again beyond one block."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_server.store import Partial, Store, StoreLimits, StoreView
from registry.digest import digest_of
from tests.edge_server.store.power_cut import Killed, PowerCutDisk, abandon

BLOCK = 4096
SEED, ROUNDS = 6, 60
CUTS = 4  # different cuts at each step


def blob(seed: int, size: int) -> bytes:
    """Bytes of their own for each seed."""
    return random.Random(seed).randbytes(size)


OLD = blob(1, 3000)
SPARE = blob(2, 5000)
NEW = blob(3, 5 * BLOCK + 100)
SMALL = blob(4, 700)
OLD_ID, SPARE_ID, NEW_ID, SMALL_ID = (digest_of(data) for data in (OLD, SPARE, NEW, SMALL))


@dataclass
class Seen:
    """What the store had promised when it was interrupted."""

    there: set[str] = field(default_factory=set)  # in place and pinned
    pins: dict[str, frozenset[str]] = field(default_factory=dict)
    pinning: dict[str, frozenset[str]] = field(default_factory=dict)  # old or new
    received: int = 0


@pytest.fixture
def base() -> Iterator[Path]:
    """In memory where that is possible: nothing here waits for a real disk."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
    (folder / "disk").mkdir()
    yield folder / "disk"
    shutil.rmtree(folder)


def opened(base: Path, disk: PowerCutDisk) -> Store:
    """A store with room for three of the four blobs."""
    return Store.open(base / "store", StoreLimits(30000), disk, lambda: 1e9, block=BLOCK)


def pin(store: Store, seen: Seen, name: str, *digests: str) -> None:
    seen.pinning[name] = frozenset(digests)
    store.pin(name, digests)
    seen.pins[name] = seen.pinning.pop(name)
    kept = frozenset().union(*seen.pins.values())
    seen.there = {digest for digest in seen.there if digest in kept}


def append(partial: Partial, seen: Seen, end: int) -> None:
    """What is missing of the new blob up to `end`, in odd pieces."""
    while partial.offset < min(end, partial.size):
        partial.write(NEW[partial.offset : min(end, partial.offset + 1500)])
        seen.received = partial.offset


def receive(store: Store, seen: Seen) -> None:
    """The new blob, in odd pieces, from where it was left."""
    if store.path(NEW_ID):
        seen.there.add(NEW_ID)
        return
    with store.partial(NEW_ID, len(NEW)) as partial:
        append(partial, seen, len(NEW))
        partial.commit()
        seen.there.add(NEW_ID)


def life(store: Store, seen: Seen) -> None:
    """From one version to the next: pin, fetch, switch, collect."""
    pin(store, seen, "active", OLD_ID)
    store.add(OLD, OLD_ID)
    seen.there.add(OLD_ID)
    store.add(SPARE, SPARE_ID)
    pin(store, seen, "staged", NEW_ID, SMALL_ID)
    receive(store, seen)
    store.add(SMALL, SMALL_ID)
    seen.there.add(SMALL_ID)
    pin(store, seen, "rollback", OLD_ID)
    pin(store, seen, "active", NEW_ID, SMALL_ID)
    seen.pinning["staged"] = frozenset()
    store.unpin("staged")
    seen.pins["staged"] = seen.pinning.pop("staged")
    store.collect(unpinned=True)


def interrupted(base: Path, stop_at: int) -> tuple[PowerCutDisk, Seen, bool]:
    """A life that ends at a step; the last: whether it got to its end before."""
    disk, seen, store = PowerCutDisk(base, stop_at), Seen(), None
    try:
        store = opened(base, disk)
        life(store, seen)
        store.close()
        return disk, seen, True
    except Killed:
        return disk, seen, False
    finally:
        abandon(store)


def check(store: Store, seen: Seen, lost: int) -> None:
    """`lost`: bytes of the blob in flight that may be gone."""
    assert store.verify() == []
    pins = store.pins()
    for name in pins.keys() | seen.pins.keys():
        wanted = {seen.pins.get(name, frozenset()), seen.pinning.get(name)}
        assert pins.get(name, frozenset()) in wanted
        seen.pins[name] = pins.get(name, frozenset())
    seen.pinning.clear()
    held = {entry.digest for entry in store.entries()}
    assert seen.there <= held
    if NEW_ID not in held:
        with store.partial(NEW_ID, len(NEW)) as partial:
            assert partial.offset >= seen.received - lost
            assert partial.pread(0, len(NEW)) == NEW[: partial.offset]
            seen.received = partial.offset


def go_on(base: Path, disk: PowerCutDisk, seen: Seen, lost: int) -> None:
    """After the interruption: check, and live on to the end."""
    with opened(base, disk) as store:
        check(store, seen, lost)
        receive(store, seen)
        life_again(store)
        assert store.verify() == []
        assert {e.digest for e in store.entries()} == {OLD_ID, NEW_ID, SMALL_ID}


def life_again(store: Store) -> None:
    """Every step may come twice."""
    for name, digests in (("rollback", [OLD_ID]), ("active", [NEW_ID, SMALL_ID])):
        store.pin(name, digests)
    store.unpin("staged")
    for data in (OLD, SMALL):
        store.add(data, digest_of(data))
    store.collect(unpinned=True)
    assert store.unfinished() == []


def renew(base: Path) -> None:
    shutil.rmtree(base)
    base.mkdir()


def test_killed_at_every_step(base: Path) -> None:
    step = 0
    done = False
    while not done:
        step += 1
        disk, seen, done = interrupted(base, step)
        disk.restart()
        go_on(base, disk, seen, 0)
        renew(base)
    assert step > 100


def test_power_cut_at_every_step(base: Path) -> None:
    rng = random.Random(5)
    step = cuts = 0
    done = False
    while not done:
        step += 1
        for _ in range(CUTS):
            disk, seen, done = interrupted(base, step)
            disk.cut(rng)
            go_on(base, disk, seen, BLOCK)
            renew(base)
            cuts += 1
    assert cuts >= 300


def test_what_was_seen_after_a_kill_is_there_after_a_power_cut(base: Path) -> None:
    """The killed process had not synced it yet; whoever sees it may act on it."""
    rng = random.Random(8)
    step, done = 0, False
    while not done:
        step += 1
        disk, _, done = interrupted(base, step)
        disk.restart()
        with opened(base, disk) as store:
            pins = store.pins()
            held = {entry.digest for entry in store.entries()}
        disk.cut(rng)
        with opened(base, disk) as store:
            assert store.pins() == pins
            assert {entry.digest for entry in store.entries()} >= held
            assert store.verify() == []
        renew(base)


def test_a_fill_that_went_on_after_a_kill_loses_one_block_to_a_power_cut(base: Path) -> None:
    """Whatever the killed process had left to be synced of bytes, record and names."""
    rng = random.Random(10)
    step, done = 0, False
    while not done:
        step += 1
        for more in (10, 1400, 1400, 2 * BLOCK):
            disk, seen, done = PowerCutDisk(base, step), Seen(), False
            store = None
            try:
                store = opened(base, disk)
                with store.partial(NEW_ID, len(NEW)) as partial:
                    append(partial, seen, 4 * BLOCK)
                store.close()
                done = True
            except Killed:
                abandon(store)
            disk.restart()
            with opened(base, disk) as store, store.partial(NEW_ID, len(NEW)) as partial:
                seen.received = partial.offset
                append(partial, seen, partial.offset + more)
            disk.cut(rng)
            with opened(base, disk) as store:
                check(store, seen, BLOCK)
            renew(base)


def test_a_pin_beside_the_owner_is_synced_before_it_is_acted_on(base: Path) -> None:
    """Its writer was killed before its sync, and the owner goes by what it reads."""
    for step in range(1, 9):
        for seed in range(12):
            disk = PowerCutDisk(base)
            with opened(base, disk) as store:
                for data in (OLD, SPARE):
                    store.add(data, digest_of(data))
                store.pin("active", [OLD_ID])
                disk.steps, disk.stop_at = 0, step
                with suppress(Killed):
                    StoreView(base / "store", disk).pin("active", [SPARE_ID])
                disk.dead, disk.stop_at = False, None  # it was another process
                if seed % 2:
                    store.collect(unpinned=True)
                else:
                    store.make_room(30000 - len(SPARE))
            disk.cut(random.Random(seed))
            with opened(base, disk) as store:
                (pinned,) = store.pins()["active"]
                assert store.path(pinned)
            renew(base)


def test_power_cut_after_power_cut(base: Path) -> None:
    """Each boot ends at a random step; what was kept once is not lost by a later one."""
    rng = random.Random(SEED)
    for _ in range(ROUNDS):
        disk, seen, _ = interrupted(base, rng.randint(5, 140))
        for _ in range(4):
            if rng.random() < 0.7:
                disk.cut(rng, stop_at=rng.randint(5, 90))
                seen.received -= BLOCK
            else:
                disk.restart(stop_at=rng.randint(5, 90))
            store = None
            try:
                store = opened(base, disk)
                check(store, seen, 0)
                life(store, seen)
                store.close()
            except Killed:
                pass
            finally:
                abandon(store)
        disk.cut(rng)
        go_on(base, disk, seen, BLOCK)
        renew(base)


def test_killed_while_the_power_cut_is_cleaned_up(base: Path) -> None:
    disk, seen, _ = interrupted(base, 70)
    disk.cut(random.Random(7))
    step, done = 0, False
    while not done:
        step += 1
        disk.restart(stop_at=step)
        with suppress(Killed):
            opened(base, disk).close()
            done = True
    disk.restart()
    go_on(base, disk, seen, BLOCK)

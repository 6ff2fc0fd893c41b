# SPDX-License-Identifier: Apache-2.0
"""Blobs, pins, eviction by use, the bounds, and damage that is found and mended."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edge_server.store import Disk, Store, StoreLimits, StoreView
from edge_server.store.errors import BadPinName, NoRoom, NoStore
from registry.digest import digest_of
from registry.errors import NotFound, WrongDigest


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


class SmallDisk(Disk):
    """A disk with `left` bytes, of which each whole blob or partial takes its size."""

    def __init__(self, root: Path, total: int) -> None:
        self.root = root
        self.total = total

    def free(self, path: Path) -> int:
        taken = [p.stat().st_size for p in self.root.rglob("*") if len(p.name) == 64]
        return self.total - sum(taken)

    def allocate(self, fd: int, offset: int, count: int) -> None:
        pass


def blob(number: int, size: int = 1000) -> tuple[bytes, str]:
    data = number.to_bytes(8, "big") * (size // 8)
    return data, digest_of(data)


def put(store: Store, number: int, size: int = 1000) -> str:
    data, digest = blob(number, size)
    store.add(data, digest)
    return digest


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """With room for four small blobs."""
    with Store.open(tmp_path / "store", StoreLimits(max_bytes=4096), clock=clock) as found:
        yield found


def test_add_and_read(store: Store) -> None:
    data, digest = blob(1)
    path = store.add(data, digest)
    assert path.read_bytes() == data
    assert store.size(digest) == len(data)
    assert store.add(data, digest) == path
    assert store.read(digest, len(data)) == data
    assert store.read(digest, len(data) - 1) is None
    assert store.read(blob(2)[1], 1000) is None
    assert list((store.root / "tmp").iterdir()) == []


def test_add_of_other_bytes(store: Store) -> None:
    with pytest.raises(WrongDigest):
        store.add(b"other", blob(1)[1])
    assert store.entries() == []


def test_the_least_used_goes_first(store: Store, clock: Clock) -> None:
    digests = []
    for number in range(4):
        clock.now += 10
        digests.append(put(store, number))
    clock.now += 10
    store.touch(digests[0])
    put(store, 4)
    assert store.path(digests[0])
    assert store.path(digests[1]) is None
    assert store.entries()[0].digest == digests[2]


def test_uses_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    with Store.open(tmp_path, StoreLimits(4096), clock=clock) as store:
        digests = [put(store, number) for number in range(4)]
        clock.now += 10
        store.touch(digests[0])
    with Store.open(tmp_path, StoreLimits(4096), clock=clock) as store:
        put(store, 4)
        assert store.path(digests[0])
        assert store.path(digests[1]) is None


@pytest.mark.parametrize("notes", [b"", b"\0" * 50, b"[]", b'{"a": "x"}', b'{"a": NaN}'])
def test_torn_notes_of_use_are_no_harm(tmp_path: Path, notes: bytes) -> None:
    with Store.open(tmp_path) as store:
        digest = put(store, 1)
    (tmp_path / "used").write_bytes(notes)
    with Store.open(tmp_path) as store:
        assert store.entries()[0].used == pytest.approx(
            (store.path(digest) or tmp_path).stat().st_mtime
        )


def test_clock_set_back(store: Store, clock: Clock) -> None:
    """What is used after the clock went back is still used later than what was before."""
    old = [put(store, number) for number in range(4)]
    clock.now -= 86400 * 365
    store.touch(old[0])
    put(store, 4)
    assert store.path(old[0])
    assert store.path(old[1]) is None


def test_a_use_costs_no_disk_operation(store: Store, clock: Clock) -> None:
    digest = put(store, 1)
    before = (store.root / "used").exists()
    for _ in range(1000):
        store.touch(digest)
    assert (store.root / "used").exists() == before
    clock.now += 61
    store.touch(digest)
    assert (store.root / "used").exists()


def test_pins_are_kept_whatever_comes(store: Store, clock: Clock) -> None:
    first, second = put(store, 1), put(store, 2)
    store.pin("active", [first])
    store.pin("rollback", [second])
    for number in range(3, 10):
        clock.now += 10
        put(store, number)
    assert store.path(first)
    assert store.path(second)
    assert store.pins() == {"active": frozenset({first}), "rollback": frozenset({second})}
    with pytest.raises(NoRoom, match=r"pins hold active 1000 B, rollback 1000 B") as caught:
        store.make_room(3000)
    assert caught.value.pinned == {"active": 1000, "rollback": 1000}
    assert len(store.entries()) == 4  # nothing went in vain
    assert store.unpin("rollback")
    assert not store.unpin("rollback")
    store.make_room(3000)
    assert {e.digest for e in store.entries()} == {first}


@pytest.mark.parametrize("name", ["vision/digits:1.0", "..", "ä b", "a" * 200])
def test_any_name_can_pin(store: Store, name: str) -> None:
    store.pin(name, [])
    assert store.pins() == {name: frozenset()}
    assert store.unpin(name)


@pytest.mark.parametrize("name", ["", "a" * 201])
def test_names_that_cannot_pin(store: Store, name: str) -> None:
    with pytest.raises(BadPinName):
        store.pin(name, [])


def test_a_partial_counts_and_abandoned_ones_go_first(store: Store, clock: Clock) -> None:
    for number in (1, 2):
        with store.partial(blob(number)[1], 1000) as partial:
            partial.write(blob(number)[0][:900])
    kept = put(store, 3)
    with store.partial(blob(4, 1496)[1], 1496) as filling:  # 900 + 900 + 1000 + 1496 > 4096
        assert len(store.unfinished()) == 2
        assert store.path(kept)
        filling.write(blob(4, 1496)[0])
        with pytest.raises(NoRoom):
            store.make_room(4000)  # the one being filled does not go
        filling.commit()


def test_a_partial_of_a_pinned_blob_stays(store: Store) -> None:
    with store.partial(blob(1)[1], 1000) as partial:
        partial.write(blob(1)[0][:900])
    store.pin("staged", [blob(1)[1]])
    store.collect(unpinned=True)
    with pytest.raises(NoRoom):
        store.make_room(4000)
    with store.partial(blob(1)[1], 1000) as partial:
        assert partial.offset == 900


def test_room_for_a_partial_is_set_aside(store: Store) -> None:
    """Two that do not fit together: the second hears it at once, not in the middle."""
    with store.partial(blob(1, 2400)[1], 2400), pytest.raises(NoRoom):
        store.partial(blob(2, 2400)[1], 2400)


def test_free_space_reserve(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path, 5000)
    with Store.open(tmp_path, StoreLimits(reserve_bytes=2000), disk) as store:
        digests = [put(store, number) for number in range(3)]
        put(store, 4)
        assert store.path(digests[0]) is None
        with pytest.raises(NoRoom, match=r"reserve of 2\.0 KiB left free"):
            store.make_room(3001)
        disk.total = 1500  # others filled the disk
        found = store.collect()
        assert found.over == 500
        assert store.entries() == []


def test_what_has_another_name_gives_no_space_back(tmp_path: Path) -> None:
    """A blob linked into a model repository frees nothing: another has to go."""
    disk = SmallDisk(tmp_path / "store", 3000)
    with Store.open(tmp_path / "store", disk=disk) as store:
        first, second = put(store, 1), put(store, 2)
        path = store.path(first)
        assert path
        (tmp_path / "model").hardlink_to(path)
        store.make_room(1500)
        assert store.path(first)
        assert store.path(second) is None


def test_readers_of_an_evicted_blob_go_on(store: Store) -> None:
    digest = put(store, 1)
    fd = store.open_blob(digest)
    assert fd is not None
    store.collect(unpinned=True)
    assert store.path(digest) is None
    assert store.open_blob(digest) is None
    assert os.pread(fd, 5000, 0) == blob(1)[0]
    os.close(fd)


def test_collect(store: Store, clock: Clock) -> None:
    first, second = put(store, 1), put(store, 2)
    store.pin("active", [first])
    with store.partial(blob(3)[1], 1000) as partial:
        partial.write(b"x")
    clock.now = partial_age(store)
    assert store.collect().removed == ()
    clock.now += 8 * 86400
    assert [v.digest for v in store.collect(dry_run=True).removed] == [blob(3)[1]]
    assert len(store.unfinished()) == 1
    assert [v.digest for v in store.collect().removed] == [blob(3)[1]]
    found = store.collect(unpinned=True)
    assert ([v.digest for v in found.removed], found.bytes) == ([second], 1000)
    assert [e.digest for e in store.entries()] == [first]


def partial_age(store: Store) -> float:
    return store.unfinished()[0].touched


def test_damaged_blob(store: Store) -> None:
    """Found by verify, never served again, brought back by repair."""
    good, bad = put(store, 1), put(store, 2)
    store.pin("active", [bad])
    path = store.path(bad)
    assert path
    path.chmod(0o644)
    path.write_bytes(b"\0" * 1000)
    read: list[int] = []
    (found,) = store.verify(read.append)
    assert (found.digest, found.pins) == (bad, ("active",))
    assert sum(read) == 2000
    assert store.path(bad) is None
    assert store.path(good)
    assert store.damaged() == [bad]
    assert store.quarantined(bad)

    def no_origin(_digest: str) -> None:
        raise NotFound("no origin has it")

    failed = store.repair(no_origin).failed
    assert list(failed) == [bad]
    assert store.repair(lambda _digest: None).failed[bad].args
    assert store.repair(lambda _digest: put(store, 2)).mended == (bad,)
    assert store.verify() == []
    assert store.damaged() == []
    assert store.quarantined(bad) is None


def test_a_damaged_blob_is_not_read(store: Store) -> None:
    digest = put(store, 1)
    path = store.path(digest)
    assert path
    path.chmod(0o644)
    path.write_bytes(b"x" * 1000)
    assert store.read(digest, 1000) is None
    assert store.damaged() == [digest]


class BadSectors(Disk):
    """Says EIO to every read of whole buffers."""

    def preadv(self, fd: int, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        raise OSError(5, "Input/output error")


def test_a_blob_that_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    with Store.open(tmp_path, disk=BadSectors()) as store:
        digest = put(store, 1)
        (found,) = store.verify()
        assert found.reason == "cannot be read at 0: Input/output error"
        assert store.path(digest) is None


def test_verify_can_be_stopped(store: Store) -> None:
    for number in range(4):
        put(store, number)

    def stop(_count: int) -> None:
        raise InterruptedScrub

    with pytest.raises(InterruptedScrub):
        store.verify(stop)
    assert len(store.entries()) == 4


class InterruptedScrub(Exception):
    """The caller's own."""


def test_verify_keeps_to_its_rate(store: Store) -> None:
    for number in range(4):
        put(store, number)
    now = 0.0
    paused: list[float] = []

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds
        paused.append(seconds)

    store.verify(rate=1000.0, clock=lambda: now, pause=pause)
    assert sum(paused) == pytest.approx(4.0)


def test_a_view_beside_the_owner(store: Store) -> None:
    first = put(store, 1)
    view = StoreView.look(store.root)
    view.pin("by hand", [first])
    assert [(e.digest, e.pins) for e in view.entries()] == [(first, ("by hand",))]
    assert view.verify() == []
    store.collect(unpinned=True)
    assert store.path(first)
    assert view.unpin("by hand")
    store.collect(unpinned=True)
    assert view.entries() == []


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(NoStore, match="is no store"):
        StoreView.look(tmp_path)
    with pytest.raises(NoStore):
        Store.open(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(NoStore, match="is no folder"):
        Store.open(tmp_path / "file")
    Store.open(tmp_path).close()
    (tmp_path / "format").write_bytes(b"tepi store 2\n")
    with pytest.raises(NoStore, match="tepi store 2"):
        Store.open(tmp_path)


def test_many_threads(store: Store) -> None:
    """Adding, pinning and evicting at once: what is pinned stays."""
    store.limits = StoreLimits(20_000)
    pinned = put(store, 0)
    store.pin("active", [pinned])

    def work(first: int) -> None:
        for number in range(first, first + 30):
            digest = put(store, number)
            store.touch(digest)
            store.pin(f"pin {first}", [digest])

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.path(pinned)
    assert store.verify() == []
    assert sum(e.size for e in store.entries()) <= 20_000
    assert len(store.pins()) == 5

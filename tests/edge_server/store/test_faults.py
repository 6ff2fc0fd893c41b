# SPDX-License-Identifier: Apache-2.0
"""The store on disks that are full, read-only or damaged, beside another process, and after kill -9
of a real one."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edge_server.store import Disk, Store, StoreLimits, StoreView
from edge_server.store.disk import Buffer
from edge_server.store.errors import (
    DamagedPins,
    DiskFailed,
    DiskFull,
    NoRoom,
    NotPermitted,
    ReadOnlyDisk,
    StoreBusy,
    StoreError,
)
from registry.digest import digest_of

MIB = 1 << 20
DATA = random.Random(1).randbytes(3 * MIB)
DIGEST = digest_of(DATA)
SMALL = b"a small blob"


class FailingDisk(Disk):
    """Says an error to every operation that changes something, once `error` is set."""

    error: int = 0

    def _check(self, path: Path | None = None) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error), str(path) if path else None)

    def open(self, path: Path, flags: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._check(path)
        return super().open(path, flags)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        if self.error == errno.ENOSPC:
            super().pwrite(fd, memoryview(data)[: len(data) // 2], offset)  # as a full disk does
        self._check()
        super().pwrite(fd, data, offset)

    def unlink(self, path: Path) -> None:
        self._check(path)
        super().unlink(path)

    def rename(self, source: Path, path: Path) -> None:
        self._check(source)
        super().rename(source, path)

    def fdatasync(self, fd: int) -> None:
        self._check()
        super().fdatasync(fd)


ERRORS = [
    (errno.ENOSPC, DiskFull, "full"),
    (errno.EDQUOT, DiskFull, "full"),
    (errno.EROFS, ReadOnlyDisk, "read-only"),
    (errno.EACCES, NotPermitted, "Permission"),
    (errno.EIO, DiskFailed, "Input/output"),
]


@pytest.mark.parametrize(("number", "error", "text"), ERRORS)
def test_a_disk_that_fails_loses_nothing(
    tmp_path: Path, number: int, error: type[StoreError], text: str
) -> None:
    """Full, read-only, forbidden, broken: each by its name with a way out, and later it goes on."""
    disk = FailingDisk()
    with Store.open(tmp_path, disk=disk) as store:
        kept = store.add(SMALL, digest_of(SMALL))
        store.pin("active", [digest_of(SMALL)])
        partial = store.partial(DIGEST, len(DATA))
        partial.write(DATA[:MIB])
        disk.error = number
        calls: Sequence[Callable[[], object]] = (
            lambda: partial.write(DATA[MIB:]),
            lambda: store.add(b"x", digest_of(b"x")),
            lambda: store.pin("active", []),
            lambda: store.unpin("active"),
        )
        for call in calls:
            with pytest.raises(error, match=text) as caught:
                call()
            assert caught.value.remedy
        assert partial.offset >= MIB
        partial.close()
        assert kept.read_bytes() == SMALL
        assert store.pins() == {"active": frozenset({digest_of(SMALL)})}
        disk.error = 0
        with store.partial(DIGEST, len(DATA)) as partial:
            assert partial.offset >= MIB
            partial.write(DATA[partial.offset :])
            partial.commit()
        assert store.verify() == []


def test_a_full_disk_while_the_buffer_is_kept(tmp_path: Path) -> None:
    """The writer may try again with the bytes that it has received."""
    disk = FailingDisk()
    with Store.open(tmp_path, disk=disk) as store, store.partial(DIGEST, len(DATA)) as partial:
        partial.buffer()[:MIB] = DATA[:MIB]
        disk.error = errno.ENOSPC
        with pytest.raises(DiskFull):
            partial.advance(MIB)
        assert partial.offset == 0
        disk.error = 0
        partial.advance(MIB)
        partial.write(DATA[MIB:])
        partial.commit()


class LinklessDisk(FailingDisk):
    """A file system without hard links, such as exFAT."""

    def link(self, source: Path, path: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")


def test_a_disk_without_links(tmp_path: Path) -> None:
    with Store.open(tmp_path, disk=LinklessDisk()) as store:
        store.add(SMALL, digest_of(SMALL))
        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA)
            partial.commit()
        assert len(store.entries()) == 2
        assert store.verify() == []


def test_damage_that_cannot_be_moved_is_replaced(tmp_path: Path) -> None:
    """The damaged file stays in the way of the good one, and then gives way to it."""
    disk = FailingDisk()
    with Store.open(tmp_path, disk=disk) as store:
        path = store.add(SMALL, digest_of(SMALL))
        path.chmod(0o644)
        path.write_bytes(b"other bytes!")
        disk.error = errno.EACCES
        store.verify()
        disk.error = 0
        assert store.damaged() == [digest_of(SMALL)]
        assert store.repair(lambda digest: store.add(SMALL, digest)).mended
        assert path.read_bytes() == SMALL
        assert store.verify() == []


def test_damage_on_a_read_only_disk_is_not_served(tmp_path: Path) -> None:
    """It cannot be moved out of the way, but this process knows."""
    disk = FailingDisk()
    with Store.open(tmp_path, disk=disk) as store:
        path = store.add(SMALL, digest_of(SMALL))
        path.chmod(0o644)
        path.write_bytes(b"other bytes!")
        disk.error = errno.EROFS
        assert len(store.verify()) == 1
        assert path.exists()
        assert store.path(digest_of(SMALL)) is None
        assert store.damaged() == [digest_of(SMALL)]


def mount(folder: Path, options: str) -> None:
    """A tmpfs there; skips the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    flags = {"remount,ro": 1 | 32}.get(options, 0)  # MS_RDONLY | MS_REMOUNT
    data = b"" if flags else options.encode()
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", flags, data):
        pytest.skip(f"mounting a tmpfs is not allowed: {os.strerror(ctypes.get_errno())}")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "tmpfs"
    mount(folder, "size=4m")
    yield folder
    ctypes.CDLL(None).umount2(os.fsencode(folder), 2)  # MNT_DETACH


def test_disk_full(tmpfs: Path) -> None:
    """A real one: a blob that fits the store's limits, but others take the space meanwhile."""
    with Store.open(tmpfs / "store") as store:
        with pytest.raises(NoRoom, match="under what is free on the disk"):
            store.partial(DIGEST, 8 * MIB)
        store.pin("active", [DIGEST])
        with store.partial(DIGEST, len(DATA)) as partial:
            partial.write(DATA[:MIB])
            room = Disk().free(tmpfs)
            hog = tmpfs / "hog"
            with hog.open("wb", buffering=0) as file:
                while room > 0:
                    room -= file.write(bytes(min(room, MIB)))
            try:
                partial.write(DATA[MIB:])
            except DiskFull as error:
                assert "tepi store gc" in error.remedy
            else:
                partial.commit()  # its room was set aside before
            with pytest.raises((DiskFull, NoRoom)):
                store.add(bytes(MIB), digest_of(bytes(MIB)))
        hog.unlink()
        if store.path(DIGEST) is None:
            with store.partial(DIGEST, len(DATA)) as partial:
                assert partial.resumed >= MIB
                partial.write(DATA[partial.offset :])
                partial.commit()
        assert store.verify() == []


def test_read_only_disk(tmpfs: Path) -> None:
    """A real one: what it holds is seen and served, and changes say what is the matter."""
    with Store.open(tmpfs / "store") as store:
        store.add(SMALL, digest_of(SMALL))
    mount(tmpfs, "remount,ro")
    with pytest.raises(ReadOnlyDisk, match="can still be served"):
        Store.open(tmpfs / "store")
    view = StoreView.look(tmpfs / "store")
    assert view.read(digest_of(SMALL), 100) == SMALL
    assert view.verify() == []
    with pytest.raises(ReadOnlyDisk):
        view.pin("x", [])


@pytest.mark.parametrize("torn", [b"", b"\0" * 40, b'{"digests": ["sha', b'{"digests": []}', b"[]"])
def test_damaged_pins(tmp_path: Path, torn: bytes) -> None:
    """They may stand for anything: nothing is evicted until somebody says what they are."""
    with Store.open(tmp_path, StoreLimits(100)) as store:
        store.add(SMALL, digest_of(SMALL))
        store.pin("active", [])
        (tmp_path / "pins" / "active.json").write_bytes(torn)
        calls: Sequence[Callable[[], object]] = (
            store.pins,
            store.collect,
            lambda: store.make_room(100),
            lambda: store.partial(DIGEST, 100),
        )
        for call in calls:
            with pytest.raises(DamagedPins, match="pins active") as caught:
                call()
            assert "tepi store pin" in caught.value.remedy
        assert store.damaged_pins() == ["active"]
        assert [e.digest for e in store.entries()] == [digest_of(SMALL)]
        store.pin("active", [digest_of(SMALL)])
        with pytest.raises(NoRoom):
            store.make_room(100)
        store.unpin("active")
        store.make_room(100)


CHILD = """
import sys, time
from pathlib import Path
from edge_server.store import Store
store = Store.open(Path(sys.argv[1]))
partial = store.partial(sys.argv[2], int(sys.argv[3]))
print(partial.offset, flush=True)
while True:
    piece = sys.stdin.buffer.read(100_000)
    if not piece:
        break
    partial.write(piece)
    print(partial.offset, flush=True)
partial.commit()
"""


def start(root: Path) -> subprocess.Popen[bytes]:
    """A process that owns the store and appends what it gets to the blob."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), DIGEST, str(len(DATA))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_two_processes_on_one_store(tmp_path: Path) -> None:
    with start(tmp_path) as child:
        assert child.stdin
        assert child.stdout
        child.stdout.readline()
        with pytest.raises(StoreBusy, match=rf"owned by process {child.pid}\b") as caught:
            Store.open(tmp_path)
        assert "stop that process" in caught.value.remedy
        view = StoreView.look(tmp_path)
        view.pin("by hand", [DIGEST])
        assert view.entries() == []
        child.stdin.write(DATA)
        child.stdin.close()
        assert child.wait(30) == 0
    with Store.open(tmp_path) as store:
        assert store.pins() == {"by hand": frozenset({DIGEST})}
        assert store.verify() == []
        assert store.path(DIGEST)


def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    """What the process had written is there for the next, three times over."""
    written = 0
    for part in (500_000, 1_300_000, 2_900_000):
        with start(tmp_path) as child:
            assert child.stdin
            assert child.stdout
            assert int(child.stdout.readline()) >= written
            child.stdin.write(DATA[written : part // 100_000 * 100_000])
            child.stdin.flush()
            while written < part // 100_000 * 100_000:
                written = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            child.wait(30)
            child.stdin.close()
    with Store.open(tmp_path) as store, store.partial(DIGEST, len(DATA)) as partial:
        assert partial.offset == written
        partial.write(DATA[written:])
        partial.commit()
        assert store.verify() == []

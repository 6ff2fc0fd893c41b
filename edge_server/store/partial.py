# SPDX-License-Identifier: Apache-2.0
"""One blob on its way into the store: a prefix that grows, and goes on after a restart or a reboot.

The bytes up to `offset` are what somebody sent, not what the digest promises: that shows at
`commit`. Who reads them before (a client that is served while the fill goes on) has to check the
digest itself, as OCI clients do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from edge_server.store.disk import Buffer, Disk, read_file
from edge_server.store.errors import PartialClosed, disk_errors
from edge_server.store.hashing import Hashing
from edge_server.store.layout import Places
from edge_server.store.record import RECORD_LIMIT, Record, last_record
from edge_server.store.syncing import Syncing
from registry.errors import WrongDigest, WrongSize

_AHEAD = 4 << 20  # bytes for which the disk is asked at a time: less than the hashing has in hand


class Keeper(Protocol):
    """Who gave out the partial and hears of its end."""

    def placed(self, partial: Partial) -> None:
        """The blob is in place."""

    def ended(self, partial: Partial) -> None:
        """Nobody writes to it any more."""


class Partial:
    """One writer, any number of readers (`pread`, `offset`), each in any thread.

    After `commit` readers may go on until `close`. After an error of the disk: close it, and go on
    with another from the store once there is room.
    """

    def __init__(
        self, places: Places, disk: Disk, digest: str, size: int, block: int, keeper: Keeper
    ) -> None:
        """Raises DiskFull and its like, BadDigest."""
        self.digest = digest
        self.size = size
        self._disk = disk
        self._places = places
        self._keeper = keeper
        self._block = block
        self._path = places.partial(digest)
        self._boot = disk.boot_id()
        self._lock = threading.Lock()  # of _users, _closed, the record
        self._users = 0  # of the descriptor
        self._closed = False
        self._ended = False
        self._doubt = False  # a sync failed: what it was for may be lost
        with disk_errors(self._path):
            record, self._offset = self._find()
            self._etags = dict(record.etags) if record else {}
            self._named = False  # its names are on the medium
            self._noted = min(record.synced, self._offset) if record else 0
            self._open()
        self._allocated = self._offset  # the disk keeps room up to here
        self.resumed = self._offset  # bytes that were there already
        self._hashing = Hashing(self._readinto, self._offset)
        # A process that was killed may have left all of it to be synced, the record too.
        self._syncing = Syncing(self._sync, self._offset, 0, block)

    def _open(self) -> None:
        disk = self._disk
        self._fd = disk.open(self._path, os.O_RDWR | os.O_CREAT)
        try:
            self._record_fd = disk.open(self._places.record(self.digest), os.O_RDWR | os.O_CREAT)
            try:
                if disk.size(self._fd) > self._offset:
                    disk.truncate(self._fd, self._offset)
                self._record_end = disk.size(self._record_fd)
                self._note(0)
            except BaseException:
                disk.close(self._record_fd)
                raise
        except BaseException:
            disk.close(self._fd)
            raise

    def _find(self) -> tuple[Record | None, int]:
        """What can be gone on from. A prefix of a blob of another size, or without a record, is
        none: both files go first, so that neither speaks of the other's successor."""
        record_path = self._places.record(self.digest)
        found = self._disk.stat(self._path)
        data = read_file(self._disk, record_path, RECORD_LIMIT)
        record = last_record(data) if data else None
        if found and record and record.size == self.size:
            return record, record.usable(found.size, self._boot)
        if found or data is not None:
            self._remove_files()
        return None, 0

    @property
    def offset(self) -> int:
        """Bytes that are there; the next one goes here."""
        return self._offset

    @property
    def unwritten(self) -> int:
        """Bytes for which the disk has no room set aside yet."""
        return self.size - max(self._allocated, self._offset)

    @property
    def synced(self) -> int:
        """Bytes that survive a power cut."""
        return self._syncing.synced

    @property
    def etags(self) -> Mapping[str, str]:
        """What each origin called the blob when bytes came from there, for If-Range."""
        return self._etags

    def set_etag(self, origin: str, etag: str) -> None:
        """Remember it with the prefix, across restarts."""
        if self._etags.get(origin) == etag:
            return
        self._check_open()
        self._etags[origin] = etag
        with disk_errors(self._path):
            self._note(0)

    def buffer(self) -> memoryview:
        """Where to receive the next bytes: 64 KiB to 1 MiB, or less at the blob's end; empty
        there. Blocks while all buffers wait to be hashed. The same until `advance`."""
        self._check_open()
        remaining = self.size - self._offset
        if not remaining:
            return memoryview(b"")
        return self._hashing.buffer()[:remaining]

    def advance(self, count: int) -> None:
        """The first `count` bytes of `buffer()` are the next ones of the blob: write them. When it
        returns readers see them. Raises DiskFull and its like, and then nothing has advanced."""
        data = self.buffer()[:count]
        if len(data) != count:
            raise WrongSize(f"{self.digest}: more bytes than the {self.size} promised")
        if not count:
            return
        with self._using(), disk_errors(self._path):
            self._syncing.before(count)
            self._allocate(self._offset + count)
            self._disk.pwrite(self._fd, data, self._offset)
        self._offset += count
        self._hashing.wrote(count)
        self._syncing.wrote(count)

    def write(self, data: Buffer) -> None:
        """Append bytes of the caller's own, copied. Raises WrongSize, without having written, where
        they are more than were promised; DiskFull and its like after writing some."""
        view = memoryview(data).cast("B")
        if len(view) > self.size - self._offset:
            raise WrongSize(f"{self.digest}: more bytes than the {self.size} promised")
        while view:
            room = self.buffer()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self.advance(count)
            view = view[count:]

    def sync(self) -> None:
        """Return once all up to `offset` survives a power cut. Raises DiskFull and its like."""
        self._check_open()
        with disk_errors(self._path):
            self._syncing.finish()

    def pread(self, offset: int, count: int) -> bytes:
        """At most `count` of the bytes that are there, not verified before `commit`; b'' at
        `offset`. Raises PartialClosed, DiskFailed."""
        count = min(count, self._offset - offset)
        if count <= 0:
            self._check_open()
            return b""
        with self._using(), disk_errors(self._path):
            return self._disk.pread(self._fd, count, offset)

    @contextmanager
    def _using(self) -> Iterator[None]:
        """The descriptor stays open meanwhile, whoever closes the partial."""
        with self._lock:
            if self._closed:
                raise self._gone()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed and not self._users
            if last:
                self._disk.close(self._fd)

    def commit(self) -> Path:
        """Check size and digest, and put the blob in its place; returns once it is there for good.
        Raises WrongSize where bytes are missing (all are kept), WrongDigest (none is kept),
        DiskFull and its like."""
        self._check_open()
        if self._offset != self.size:
            raise WrongSize(f"{self.digest}: {self._offset} of {self.size} bytes are there")
        with disk_errors(self._path):
            found = self._hashing.digest()
            if found != self.digest:
                self.discard()
                raise WrongDigest(
                    f"the {self.size} bytes received for {self.digest} are those of {found}",
                    "fetch from another origin; this one sent other bytes than it was asked for",
                )
            self._syncing.finish()
            path = self._places.install(self._path, self.digest)
            with self._using():  # not before: until now it may have to be gone on with
                self._disk.make_read_only(self._fd)
            self._disk.unlink(self._places.record(self.digest))
        self._keeper.placed(self)
        if self._stop_writing():
            self._keeper.ended(self)
        return path

    def discard(self) -> None:
        """Throw the bytes away, and close. Raises ReadOnlyDisk and its like."""
        try:
            if self._stop_writing():
                try:
                    with disk_errors(self._path):
                        self._remove_files()
                finally:
                    self._keeper.ended(self)
        finally:
            self.close()

    def close(self) -> None:
        """Let go; what was received is kept for the next one. Readers get PartialClosed."""
        if self._stop_writing():
            kept = self._noted if self._doubt else self._offset
            with suppress(OSError):  # then it is the digest that finds out
                self._disk.truncate(self._fd, kept)  # and give back what was set aside
            self._keeper.ended(self)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._disk.close(self._record_fd)
            users = self._users
        if not users:
            self._disk.close(self._fd)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _stop_writing(self) -> bool:
        """Whether it was this call that ended it. The keeper gives the blob to nobody else before
        it is told."""
        with self._lock:
            if self._ended:
                return False
            self._ended = True
        self._hashing.stop()
        self._syncing.stop()
        return True

    def _remove_files(self) -> None:
        self._disk.unlink(self._places.record(self.digest))
        self._disk.unlink(self._path)
        self._disk.fsync_dir(self._places.partials)

    def _allocate(self, end: int) -> None:
        """In large steps: fewer fragments, cheaper writes, and a full disk shows early."""
        if end > self._allocated and self.size > _AHEAD // 4:
            count = min(max(_AHEAD, end - self._allocated), self.size - self._allocated)
            self._disk.allocate(self._fd, self._allocated, count)
            self._allocated += count

    def _sync(self, offset: int) -> None:
        """Make the first `offset` bytes durable, then the line that says so."""
        try:
            self._disk.fdatasync(self._fd)
        except OSError:
            self._doubt = True
            raise
        if offset == self.size <= self._block:
            return  # the whole blob is no more than a power cut may cost, and moves at once
        self._note(offset)
        self._disk.fdatasync(self._record_fd)
        if not self._named:
            self._disk.fsync_dir(self._places.partials)
            self._named = True

    def _note(self, synced: int) -> None:
        """Add a line; `synced` bytes are on the medium, or more."""
        with self._lock:
            if self._closed:
                raise self._gone()
            self._noted = max(self._noted, synced)
            line = Record(self.size, self._noted, self._boot, self._etags).line()
            self._disk.pwrite(self._record_fd, line, self._record_end)
            self._record_end += len(line)

    def _readinto(self, buffer: memoryview, offset: int) -> int:
        return self._disk.preadv(self._fd, [buffer], offset)

    def _check_open(self) -> None:
        if self._ended:
            raise self._gone()

    def _gone(self) -> PartialClosed:
        return PartialClosed(
            f"the partial blob {self.digest} is closed", "ask the store for it again"
        )

# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a store beside its owner, without a lock."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_server.store.disk import REAL_DISK, Disk, read_file
from edge_server.store.errors import disk_errors
from edge_server.store.layout import Places, is_hex
from edge_server.store.pins import Pins
from edge_server.store.record import RECORD_LIMIT, last_record
from edge_server.store.uses import load_uses
from registry.digest import digest_of
from registry.errors import NotFound

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A blob in place. `used`: seconds since 1970. `pins`: names that keep it."""

    digest: str
    size: int
    used: float
    pins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A partial blob: `there` of `size` bytes; a `size` of 0 is not known."""

    digest: str
    there: int
    size: int
    touched: float


@dataclass(frozen=True, slots=True)
class Damaged:
    """A blob whose bytes are not those of its digest, or cannot be read. `pins`: who needs it."""

    digest: str
    reason: str
    pins: tuple[str, ...]


def names_of(pins: Mapping[str, frozenset[str]], digest: str) -> tuple[str, ...]:
    """The pins that hold a blob."""
    return tuple(sorted(name for name, digests in pins.items() if digest in digests))


class StoreView:
    """Reads a store, whoever owns it. Changes nothing but pins."""

    def __init__(self, root: Path, disk: Disk = REAL_DISK) -> None:
        self.root = root
        self._disk = disk
        self._places = Places(root, disk)
        self._pins = Pins(self._places, disk)

    @classmethod
    def look(cls, root: Path, disk: Disk = REAL_DISK) -> StoreView:
        """The store in `root`; works on a read-only disk. Raises NoStore, NotPermitted."""
        view = StoreView(root, disk)
        with disk_errors(root):
            view._places.check()
        return view

    def path(self, digest: str) -> Path | None:
        """Where a whole blob is; None where it is not there. Raises BadDigest."""
        path = self._places.blob(digest)
        with disk_errors(path):
            return path if self._disk.stat(path) else None

    def size(self, digest: str) -> int | None:
        """Bytes of a whole blob; None where it is not there. Raises BadDigest."""
        path = self._places.blob(digest)
        with disk_errors(path):
            found = self._disk.stat(path)
        return found.size if found else None

    def pins(self) -> dict[str, frozenset[str]]:
        """What each name pins. Raises DamagedPins."""
        return self._pins.read()

    def damaged_pins(self) -> list[str]:
        """The names whose pin files do not read."""
        return self._pins.scan()[1]

    def pin(self, name: str, digests: Iterable[str], *, present: bool = False) -> None:
        """From now on `name` keeps these blobs and no others, also those that are yet to come; for
        good when it returns. With `present` all have to be there: NotFound, and nothing changes.
        Raises BadDigest, BadPinName, DiskFull and its like."""
        wanted = list(digests)
        with self._pins.held():
            missing = [digest for digest in wanted if present and self.path(digest) is None]
            if missing:
                raise NotFound(f"{missing[0]} is not in {self.root}", "fetch it first")
            self._pins.write(name, wanted)

    def unpin(self, name: str) -> bool:
        """Let go of what `name` keeps; False where there is no such pin."""
        with self._pins.held():
            return self._pins.remove(name)

    def entries(self) -> list[Entry]:
        """All whole blobs, the least used first. Pins that do not read are left out."""
        pins = self._pins.scan()[0]
        found = []
        with disk_errors(self.root):
            uses = self._last_uses()
            for digest in self._places.digests():
                stat = self._disk.stat(self._places.blob(digest))
                if stat:
                    used = uses.get(digest, stat.modified)
                    found.append(Entry(digest, stat.size, used, names_of(pins, digest)))
        return sorted(found, key=lambda entry: (entry.used, entry.digest))

    def unfinished(self) -> list[Unfinished]:
        """All partial blobs, the oldest first."""
        found = []
        with disk_errors(self._places.partials):
            for name in filter(is_hex, self._disk.names(self._places.partials)):
                digest = f"sha256:{name}"
                stat = self._disk.stat(self._places.partial(digest))
                data = read_file(self._disk, self._places.record(digest), RECORD_LIMIT)
                record = last_record(data or b"")
                if stat:
                    size = record.size if record else 0
                    found.append(Unfinished(digest, stat.size, size, stat.modified))
        return sorted(found, key=lambda partial: (partial.touched, partial.digest))

    def read(self, digest: str, limit: int) -> bytes | None:
        """A small blob, checked; None where it is not there, has more than `limit` bytes, or is
        damaged. Raises BadDigest, DiskFailed."""
        path = self._places.blob(digest)
        with disk_errors(path):
            data = read_file(self._disk, path, limit + 1)
        if data is None or len(data) > limit:
            return None
        if digest_of(data) != digest:
            self._found_damaged(digest)
            return None
        return data

    def verify(
        self,
        tell: Callable[[int], None] = lambda _bytes: None,
        *,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> list[Damaged]:
        """Read every blob again, from the medium; returns those that are damaged. The owner moves
        them out of the way at once. `tell` gets the bytes of each step and may raise to stop.
        `rate`: bytes a second at most. Raises DiskFailed where the folders do not read."""
        pins = self._pins.scan()[0]
        damaged = []
        start, total = clock(), 0

        def told(count: int) -> None:
            nonlocal total
            total += count
            tell(count)
            ahead = total / rate - (clock() - start) if rate else 0.0
            if ahead > 0:
                pause(ahead)

        with disk_errors(self._places.blobs):
            digests = self._places.digests()
        for digest in digests:
            reason = self._examine(digest, told)
            if reason:
                damaged.append(Damaged(digest, reason, names_of(pins, digest)))
                self._found_damaged(digest)
        return damaged

    def _examine(self, digest: str, tell: Callable[[int], None]) -> str:
        """What is wrong with a blob; '' where nothing is, or where it went meanwhile."""
        try:
            fd = self._disk.open(self._places.blob(digest), os.O_RDONLY)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        hasher, offset = hashlib.sha256(), 0
        buffer = memoryview(bytearray(_CHUNK))
        try:
            self._disk.forget(fd)
            while count := self._disk.preadv(fd, [buffer], offset):
                hasher.update(buffer[:count])
                offset += count
                tell(count)
            self._disk.forget(fd)
        except OSError as error:
            return f"cannot be read at {offset}: {error.strerror}"
        finally:
            self._disk.close(fd)
        found = f"sha256:{hasher.hexdigest()}"
        return "" if found == digest else f"its {offset} bytes are those of {found}"

    def _last_uses(self) -> Mapping[str, float]:
        return load_uses(self._disk, self._places.used)

    def _found_damaged(self, digest: str) -> None:
        """A view has nothing to do about it."""

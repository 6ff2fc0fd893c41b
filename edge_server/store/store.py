# SPDX-License-Identifier: Apache-2.0
"""The store as its owner has it: blobs come in, are pinned, used and evicted.

A blob is in place only after its digest was checked and its bytes and name were synced; it goes
only when nothing pins it. Thread-safe; methods block, so asyncio calls them in worker threads.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_server.store.disk import REAL_DISK, Buffer, Disk, write_file
from edge_server.store.errors import (
    BlobPresent,
    NoRoom,
    NoStore,
    PartialBusy,
    StoreError,
    disk_errors,
)
from edge_server.store.layout import is_hex, own
from edge_server.store.partial import Partial
from edge_server.store.room import Collected, Kind, Lack, StoreLimits, Victim, choose
from edge_server.store.sizes import size_text
from edge_server.store.uses import Uses
from edge_server.store.view import StoreView
from registry.digest import check_digest, digest_of, hex_of
from registry.errors import RegistryError, WrongDigest

BLOCK = 8 << 20  # bytes that a power cut costs a partial blob at most
ABANDONED_SECONDS = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Repaired:
    """Digests that are whole again, and those that could not be fetched, with the reasons."""

    mended: tuple[str, ...]
    failed: Mapping[str, RegistryError]


class Store(StoreView):
    """The only owner of a store's folder; see `open`."""

    def __init__(
        self,
        root: Path,
        limits: StoreLimits,
        disk: Disk,
        clock: Callable[[], float],
        block: int,
        lock: int,
    ) -> None:
        """See `open`, which holds the lock."""
        super().__init__(root, disk)
        self.limits = limits
        self._clock = clock
        self._block = block
        self._owned: int | None = lock
        self._lock = threading.RLock()
        self._sizes: dict[str, int] = {}
        self._filling: dict[str, Partial] = {}
        self._bad: set[str] = set()  # known to be damaged: as if they were not there
        self._adding = 0  # bytes of small blobs on their way
        self._numbers = itertools.count()

    @classmethod
    def open(
        cls,
        root: Path,
        limits: StoreLimits | None = None,
        disk: Disk = REAL_DISK,
        clock: Callable[[], float] = time.time,
        *,
        block: int = BLOCK,
        create: bool = True,
    ) -> Store:
        """Own the store in `root`, making it where there is none (unless not `create`).

        Raises StoreBusy, NoStore, ReadOnlyDisk, NotPermitted, DiskFull.
        """
        view = StoreView(root, disk)
        with disk_errors(root):
            if create:
                for folder in [*reversed(root.parents), root]:
                    if not folder.is_dir():
                        disk.mkdir(folder)
            else:
                view._places.check()
            if not root.is_dir():
                raise NoStore(f"{root} is no folder", "give another one with --store")
            lock = own(root, disk)
            try:
                store = Store(root, limits or StoreLimits(), disk, clock, block, lock)
                if create:
                    store._places.make()
                store._begin()
            except BaseException:
                disk.close(lock)
                raise
        return store

    def _begin(self) -> None:
        places, disk = self._places, self._disk
        for folder in (places.tmp, places.partials):
            names = set(disk.names(folder))
            for name in sorted(names):
                stem = name.partition(".")[0]
                placed = is_hex(stem) and self.path(f"sha256:{stem}") is not None
                if placed:
                    places.settle(f"sha256:{stem}")
                if placed or folder == places.tmp or (is_hex(stem) and stem not in names):
                    disk.unlink(folder / name)
        self._pins.settle()
        for digest in places.digests():
            self._sizes[digest] = self.size(digest) or 0
        self._uses = Uses(disk, places.used, self._clock)
        self._uses.keep_only(self._sizes)

    def close(self) -> None:
        """Let go of the store; partials are kept for the next owner."""
        for partial in list(self._filling.values()):
            partial.close()
        with self._lock:
            if self._owned is None:
                return
            self._uses.save()
            self._disk.close(self._owned)
            self._owned = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # Blobs

    def path(self, digest: str) -> Path | None:
        """See StoreView.path; a blob known to be damaged is not there."""
        return None if digest in self._bad else super().path(digest)

    def size(self, digest: str) -> int | None:
        """See StoreView.size; a blob known to be damaged is not there."""
        return None if digest in self._bad else super().size(digest)

    def open_blob(self, digest: str) -> int | None:
        """A descriptor for reading a whole blob, which then is used and stays readable though it
        be evicted; the caller closes it. None where it is not there. Raises BadDigest."""
        with self._lock, disk_errors(self.root):
            path = self.path(digest)
            if path is None:
                return None
            fd = self._disk.open(path, 0)
            self.touch(digest)
            return fd

    def touch(self, digest: str) -> None:
        """The blob is used now: it is evicted later than those used before."""
        with self._lock:
            if digest in self._sizes:
                self._uses.note(digest)

    def add(self, data: Buffer, digest: str) -> Path:
        """Put a small blob in place, for good when it returns. Raises WrongDigest, NoRoom, DiskFull
        and its like, BadDigest."""
        check_digest(digest)
        found = digest_of(data)
        if found != digest:
            raise WrongDigest(f"{len(data)} bytes given as {digest} are those of {found}")
        path = self.path(digest)
        if path is not None:
            self.touch(digest)
            return path
        with self._lock:
            self.make_room(len(data))
            self._adding += len(data)
            new = self._places.tmp / f"{hex_of(digest)}.{next(self._numbers)}"
        try:
            with disk_errors(new):
                write_file(self._disk, new, data)
                path = self._places.install(new, digest)
        except StoreError:
            with suppress(OSError):
                self._disk.unlink(new)
            raise
        else:
            self._put(digest, len(data))
        finally:
            with self._lock:
                self._adding -= len(data)
        return path

    def partial(self, digest: str, size: int) -> Partial:
        """Go on with a blob where it was left, or begin it; makes room for what is missing, and
        keeps that room for it. Raises BlobPresent, PartialBusy, NoRoom, DamagedPins, DiskFull and
        its like, BadDigest."""
        check_digest(digest)
        with self._lock:
            if self.path(digest):
                raise BlobPresent(f"{digest} is in the store already")
            if digest in self._filling:
                raise PartialBusy(f"{digest} is being filled already")
            with disk_errors(self.root):
                found = self._disk.stat(self._places.partial(digest))
            there = max(min(found.size, size), found.allocated) if found else 0
            self._make_room(size, max(0, size - there), apart_from=digest)
            partial = Partial(self._places, self._disk, digest, size, self._block, self)
            self._filling[digest] = partial
        return partial

    def placed(self, partial: Partial) -> None:
        """See Keeper."""
        self._put(partial.digest, partial.size)

    def ended(self, partial: Partial) -> None:
        """See Keeper."""
        with self._lock:
            self._filling.pop(partial.digest, None)

    def _put(self, digest: str, size: int) -> None:
        with self._lock:
            self._sizes[digest] = size
            self._bad.discard(digest)
            self._uses.note(digest)

    # Room

    def make_room(self, size: int) -> None:
        """Evict until `size` bytes more fit under the limits, first what is damaged, then partials
        that nobody fills, then the least used blobs that nothing pins. Raises DamagedPins, and
        NoRoom; then nothing went, unless a reader keeps the space of what did."""
        self._make_room(size, size, apart_from="")

    def _make_room(self, size: int, on_disk: int, apart_from: str) -> None:
        with self._lock, disk_errors(self.root):
            if not self._lack(size, on_disk, apart_from).any:
                return
            with self._pins.held():
                self._pins.settle()
                pins = self._pins.read()
                while (lack := self._lack(size, on_disk, apart_from)).any:
                    chosen, left = choose(self._victims(pins, apart_from), lack)
                    if left.any:
                        raise self._no_room(size, left, pins)
                    for victim in chosen:
                        self._remove(victim)

    def collect(self, *, unpinned: bool = False, dry_run: bool = False) -> Collected:
        """Bring the store under its limits, and remove partials that nobody went on with for a
        week; with `unpinned` everything that no pin holds. `dry_run`: only say what would go.
        Raises DamagedPins, ReadOnlyDisk and its like."""
        with self._lock, disk_errors(self.root), self._pins.held():
            self._pins.settle()
            pins = self._pins.read()
            victims = self._victims(pins, "")
            oldest = self._clock() - ABANDONED_SECONDS
            gone = {v for v in victims if unpinned or self._is_litter(v, oldest)}
            lack = self._lack(0, 0, "")
            lack = Lack(
                lack.limit - sum(v.size for v in gone), lack.disk - sum(v.gain for v in gone)
            )
            chosen, left = choose((v for v in victims if v not in gone), lack)
            removed = [v for v in victims if v in gone or v in chosen]
            if not dry_run:
                for victim in removed:
                    self._remove(victim)
                self._uses.keep_only(self._sizes)
                self._uses.save()
            return Collected(tuple(removed), max(0, left.limit, left.disk))

    def _is_litter(self, victim: Victim, oldest: float) -> bool:
        if victim.kind == Kind.DAMAGED:
            return self.path(victim.digest) is not None  # mended since
        return victim.kind == Kind.ABANDONED and victim.used < oldest

    def _lack(self, size: int, on_disk: int, apart_from: str) -> Lack:
        used = sum(self._sizes.values()) + sum(p.size for p in self._filling.values())
        used += sum(v.size for v in self._strays() if v.digest != apart_from) + self._adding
        most = self.limits.max_bytes
        coming = sum(p.unwritten for p in self._filling.values()) + self._adding
        free = self._disk.free(self.root) - self.limits.reserve_bytes - coming
        return Lack(0 if most is None else used + size - most, on_disk - free)

    def _strays(self) -> list[Victim]:
        """Partials that nobody fills, and what is in quarantine."""
        found = []
        for kind, folder in (
            (Kind.DAMAGED, self._places.quarantine),
            (Kind.ABANDONED, self._places.partials),
        ):
            for name in filter(is_hex, self._disk.names(folder)):
                digest = f"sha256:{name}"
                stat = self._disk.stat(folder / name)
                if stat and not (kind == Kind.ABANDONED and digest in self._filling):
                    gain = max(stat.size, stat.allocated) if stat.links == 1 else 0
                    found.append(Victim(kind, digest, stat.size, gain, stat.modified))
        return found

    def _victims(self, pins: Mapping[str, frozenset[str]], apart_from: str) -> list[Victim]:
        """All that may go. A partial of a pinned blob may not: it is about to be gone on with."""
        kept = frozenset().union(*pins.values()) | {apart_from}
        found = [v for v in self._strays() if v.kind == Kind.DAMAGED or v.digest not in kept]
        for digest in self._sizes.keys() - kept:
            stat = self._disk.stat(self._places.blob(digest))
            if stat:
                gain = max(stat.size, stat.allocated) if stat.links == 1 else 0
                used = self._uses.last(digest, stat.modified)
                found.append(Victim(Kind.BLOB, digest, stat.size, gain, used))
        return sorted(found, key=lambda v: (v.kind, v.used, v.digest))

    def _remove(self, victim: Victim) -> None:
        if victim.kind == Kind.DAMAGED:
            self._disk.unlink(self._places.quarantined(victim.digest))
        elif victim.kind == Kind.ABANDONED:
            self._disk.unlink(self._places.record(victim.digest))
            self._disk.unlink(self._places.partial(victim.digest))
            self._disk.fsync_dir(self._places.partials)
        else:
            self._disk.unlink(self._places.blob(victim.digest))
            self._sizes.pop(victim.digest, None)

    def _no_room(self, size: int, left: Lack, pins: Mapping[str, frozenset[str]]) -> NoRoom:
        by_limit = left.limit > 0
        missing = left.limit if by_limit else left.disk
        limit = "what is free on the disk"
        if by_limit:
            limit = f"the limit of {size_text(self.limits.max_bytes or 0)}"
        elif self.limits.reserve_bytes:
            limit = f"a reserve of {size_text(self.limits.reserve_bytes)} left free on the disk"
        held = {
            name: sum(self._sizes.get(digest, 0) for digest in digests)
            for name, digests in pins.items()
        }
        return NoRoom(size, max(0, size - missing), limit, held)

    # Damage

    def damaged(self) -> list[str]:
        """Digests of the blobs in quarantine that are not mended yet."""
        with disk_errors(self.root):
            names = [n for n in self._disk.names(self._places.quarantine) if is_hex(n)]
        found = {f"sha256:{name}" for name in names} | self._bad
        return sorted(digest for digest in found if self.path(digest) is None)

    def quarantined(self, digest: str) -> Path | None:
        """The file of a damaged blob, of which most blocks may still be good. Raises BadDigest."""
        path = self._places.quarantined(digest)
        with disk_errors(path):
            return path if self._disk.stat(path) else None

    def repair(self, fetch: Callable[[str], object]) -> Repaired:
        """Have `fetch` bring each damaged blob again: it is to fill the store as for any other, and
        may take what is good from `quarantined`. Its RegistryError fails that blob alone."""
        mended: list[str] = []
        failed: dict[str, RegistryError] = {}
        for digest in self.damaged():
            try:
                fetch(digest)
            except RegistryError as error:
                failed[digest] = error
                continue
            if self.path(digest) is None:
                failed[digest] = NoStore(f"{digest} was fetched, but is not in the store")
                continue
            with disk_errors(self.root):
                self._disk.unlink(self._places.quarantined(digest))
            mended.append(digest)
        return Repaired(tuple(mended), failed)

    def _found_damaged(self, digest: str) -> None:
        """Never served again, from this moment: out of the way, for good where the disk lets us."""
        with self._lock:
            self._bad.add(digest)
            self._sizes.pop(digest, None)
            blob = self._places.blob(digest)
            try:
                self._disk.rename(blob, self._places.quarantined(digest))
                self._disk.fsync_dir(self._places.quarantine)
                self._disk.fsync_dir(blob.parent)
            except FileNotFoundError:
                pass  # evicted meanwhile
            except OSError:
                return  # read-only, it stays where it is; `_bad` keeps it from being served
            self._bad.discard(digest)

    def _last_uses(self) -> Mapping[str, float]:
        with self._lock:
            return self._uses.all()

# SPDX-License-Identifier: Apache-2.0
"""When each blob was last used, which is what eviction goes by.

A use costs no disk operation: it is noted in memory and written now and then, without a sync. What
a crash loses of it, or what does not read, is only an older order; a blob without a note counts as
used when its file was written. Times never go back, whatever the clock does.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from edge_server.store.disk import Disk, read_file

SAVE_SECONDS = 60.0
_STEP = 1e-6  # between two uses at the same time, or after the clock was set back
_LIMIT = 256 << 20


def load_uses(disk: Disk, path: Path) -> dict[str, float]:
    """Digest -> seconds since 1970; empty where the file is missing or does not read."""
    try:
        found = json.loads(read_file(disk, path, _LIMIT) or b"{}")
        uses = {str(digest): float(when) for digest, when in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {digest: when for digest, when in uses.items() if math.isfinite(when)}


class Uses:
    """The owner's notes. Not thread-safe: the store's lock guards them."""

    def __init__(self, disk: Disk, path: Path, clock: Callable[[], float]) -> None:
        self._disk = disk
        self._path = path
        self._clock = clock
        self._when = load_uses(disk, path)
        self._newest = max(self._when.values(), default=0.0)
        self._saved = clock()
        self._changed = False

    def last(self, digest: str, otherwise: float) -> float:
        """Seconds since 1970."""
        return self._when.get(digest, otherwise)

    def all(self) -> dict[str, float]:
        """Of each digest that has a note, seconds since 1970."""
        return dict(self._when)

    def note(self, digest: str) -> None:
        """`digest` is used now."""
        self._newest = max(self._clock(), self._newest + _STEP)
        self._when[digest] = self._newest
        self._changed = True
        if abs(self._clock() - self._saved) >= SAVE_SECONDS:
            self.save()

    def keep_only(self, digests: Iterable[str]) -> None:
        """Forget all others."""
        kept = {digest: self._when[digest] for digest in digests if digest in self._when}
        self._changed = self._changed or len(kept) != len(self._when)
        self._when = kept

    def save(self) -> None:
        """Write the notes, if there are new ones. A disk that does not take them, being full or
        read-only, fails no use: the notes stay in memory."""
        if not self._changed:
            return
        self._saved = self._clock()
        try:
            self._write()
        except OSError:
            return
        self._changed = False

    def _write(self) -> None:
        new = self._path.with_name(self._path.name + ".new")
        self._disk.unlink(new)
        fd = self._disk.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            self._disk.pwrite(fd, json.dumps(self._when).encode(), 0)
        finally:
            self._disk.close(fd)
        self._disk.rename(new, self._path)

# SPDX-License-Identifier: Apache-2.0
"""Packages that an operator took back: not to be current again until yet another one is desired.

One small file for each model, written by `tepi sync rollback` beside a running sync.
"""

from __future__ import annotations

from pathlib import Path

from edge_server.store.disk import REAL_DISK, Disk, read_file, replace_file
from edge_server.store.errors import disk_errors

_LIMIT = 4096


class Holds:
    """The holds of one node."""

    def __init__(self, state: Path, disk: Disk = REAL_DISK) -> None:
        self._folder = state / "held"
        self._disk = disk

    def of(self, name: str) -> str:
        """The digest of the package that was taken back; empty where none was."""
        with disk_errors(self._folder):
            data = read_file(self._disk, self._folder / name, _LIMIT)
        return data.decode(errors="replace").strip() if data else ""

    def hold(self, name: str, digest: str) -> None:
        """Take back this package, for good when it returns."""
        with disk_errors(self._folder):
            if self._disk.mkdir(self._folder):
                self._disk.fsync_dir(self._folder.parent)
            replace_file(self._disk, self._folder / name, digest.encode() + b"\n")

    def release(self, name: str, but: str = "") -> None:
        """Forget what was taken back, unless it is `but`."""
        held = self.of(name)
        if not held or held == but:
            return
        with disk_errors(self._folder):
            self._disk.unlink(self._folder / name)
            self._disk.fsync_dir(self._folder)

# SPDX-License-Identifier: Apache-2.0
"""Where things are below the store's folder.

format                      the version of this layout
lock                        held by the process that owns the store; its pid inside
blobs/sha256/ab/abcd...     a whole, verified blob, read-only
partial/abcd...             a prefix of a blob; abcd....json says what of it is on the medium
pins/NAME.json              the blobs that NAME keeps
used                        when each blob was last used
quarantine/abcd...          a blob found damaged, until it is fetched again
tmp/                        small blobs on their way
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from edge_server.store.disk import Disk, read_file, replace_file
from edge_server.store.errors import NoStore, StoreBusy
from registry.digest import hex_of

FORMAT = b"tepi store 1\n"
_HEX = re.compile(r"[0-9a-f]{64}")
# A file system without links, or a file in the way: left by a process that ended right there, or
# damaged and not to be moved out of the way.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EEXIST}


def is_hex(name: str) -> bool:
    """May this name a blob's file?"""
    return _HEX.fullmatch(name) is not None


class Places:
    """The paths of one store."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.root = root
        self.format = root / "format"
        self.lock = root / "lock"
        self.blobs = root / "blobs" / "sha256"
        self.partials = root / "partial"
        self.pins = root / "pins"
        self.used = root / "used"
        self.quarantine = root / "quarantine"
        self.tmp = root / "tmp"
        self._disk = disk
        self._durable: set[Path] = set()  # folders whose own name survives a power cut

    def blob(self, digest: str) -> Path:
        """Raises BadDigest."""
        name = hex_of(digest)
        return self.blobs / name[:2] / name

    def partial(self, digest: str) -> Path:
        """Raises BadDigest."""
        return self.partials / hex_of(digest)

    def record(self, digest: str) -> Path:
        """Raises BadDigest."""
        return self.partials / f"{hex_of(digest)}.json"

    def quarantined(self, digest: str) -> Path:
        """Raises BadDigest."""
        return self.quarantine / hex_of(digest)

    def check(self) -> None:
        """Raises NoStore unless this is a store that this version reads."""
        found = read_file(self._disk, self.format, 1024)
        if found is None:
            raise NoStore(
                f"{self.root} is no store",
                "give the folder with --store; a server that syncs makes it on its first start",
            )
        if found != FORMAT:
            raise NoStore(
                f"{self.root}/format is {found[:40]!r}, not {FORMAT!r}",
                "use the version of tepi that made this store, or another folder",
            )

    def make(self) -> None:
        """Make what is missing. `format` comes last: before it there is no store. Raises OSError,
        NoStore."""
        disk = self._disk
        new = read_file(disk, self.format, 1024) is None
        if not new:
            self.check()
        for folder in (
            self.root,
            self.blobs.parent,
            self.blobs,
            self.partials,
            self.pins,
            self.quarantine,
            self.tmp,
        ):
            disk.mkdir(folder)
        disk.fsync_dir(self.blobs.parent)
        disk.fsync_dir(self.root)
        if new:
            disk.fsync_dir(self.root.parent)
            replace_file(disk, self.format, FORMAT)

    def install(self, source: Path, digest: str) -> Path:
        """Move a verified and synced file to where blobs are; returns once that survives a power
        cut. The old name goes after the new one is safe: at no moment is there neither."""
        blob = self.blob(digest)
        if blob.parent not in self._durable:
            self._disk.mkdir(blob.parent)
        try:
            self._disk.link(source, blob)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._disk.rename(source, blob)
        self.settle(digest)
        self._disk.unlink(source)
        return blob

    def settle(self, digest: str) -> None:
        """Return once the name of a blob in place survives a power cut. Raises OSError."""
        folder = self.blob(digest).parent
        if folder not in self._durable:
            self._disk.fsync_dir(folder.parent)
            self._durable.add(folder)
        self._disk.fsync_dir(folder)

    def digests(self) -> list[str]:
        """Of all blobs in place. Files with other names are not ours and left alone."""
        return [
            f"sha256:{name}"
            for folder in self._disk.names(self.blobs)
            if re.fullmatch(r"[0-9a-f]{2}", folder)
            for name in self._disk.names(self.blobs / folder)
            if is_hex(name) and name.startswith(folder)
        ]


def own(root: Path, disk: Disk) -> int:
    """Take the store's lock. Raises StoreBusy, OSError."""
    path = root / "lock"
    lock = disk.lock(path, wait=False)
    if lock is None:
        owner = (read_file(disk, path, 32) or b"").decode(errors="replace").strip()
        raise StoreBusy(
            f"the store {root} is owned by process {owner or 'of unknown number'}",
            "stop that process first; tepi store list, verify, pin and unpin work beside it",
        )
    try:
        disk.write_pid(lock)
    except BaseException:
        disk.close(lock)
        raise
    return lock

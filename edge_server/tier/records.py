# SPDX-License-Identifier: Apache-2.0
"""What origins said of things that may change, kept over a restart so that it can be said again
while they are down: tags, lists of referrers, the trust's files.

One file each: a line of JSON, then the bytes that its `sha256` names. A file that a power cut tore
does not fit its digest and counts as absent, so nothing is synced here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

_FILES = 4096
_BYTES = 64 << 20
_HEADER = 4096  # bytes of the line at most


@dataclass(frozen=True, slots=True)
class Record:
    """What was said, and when: `checked` in seconds since 1970."""

    data: bytes
    etag: str
    checked: float


class Records:
    """A folder of records, the oldest removed above 4096 files or 64 MiB. Thread-safe."""

    def __init__(self, folder: Path, files: int = _FILES, size: int = _BYTES) -> None:
        """Raises OSError."""
        self._folder = folder
        self._limits = (files, size)
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.new"):
            path.unlink(missing_ok=True)

    def find(self, key: str) -> Record | None:
        """What is held for this key; None for nothing, and for what is torn."""
        try:
            with self._path(key).open("rb") as file:
                header = json.loads(file.readline(_HEADER))
                data = file.read(self._limits[1])
            if header["key"] != key or header["sha256"] != hashlib.sha256(data).hexdigest():
                return None
            return Record(data, str(header["etag"]), float(header["checked"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, key: str, record: Record) -> None:
        """Hold it in place of what was there. A disk that takes nothing costs only the memory of
        it: this never fails."""
        header = {
            "key": key,
            "etag": record.etag,
            "checked": record.checked,
            "sha256": hashlib.sha256(record.data).hexdigest(),
        }
        line = json.dumps(header).encode() + b"\n"
        if len(line) > _HEADER:
            return
        path = self._path(key)
        new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        with self._lock, contextlib.suppress(OSError):
            try:
                new.write_bytes(line + record.data)
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)
            self._trim()

    def forget(self, key: str) -> None:
        """Hold nothing for this key."""
        with self._lock, contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def _trim(self) -> None:
        with os.scandir(self._folder) as entries:
            found = [(entry.stat().st_mtime_ns, entry.stat().st_size, entry) for entry in entries]
        files, size = len(found), sum(one[1] for one in found)
        if files <= self._limits[0] and size <= self._limits[1]:
            return
        for _, count, entry in sorted(found, key=lambda one: one[0]):
            if files <= self._limits[0] and size <= self._limits[1]:
                return
            Path(entry.path).unlink(missing_ok=True)
            files, size = files - 1, size - count

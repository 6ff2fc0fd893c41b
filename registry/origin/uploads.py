# SPDX-License-Identifier: Apache-2.0
"""Blobs that are being pushed: each session a file that only grows, hashed as it grows. A session
outlives its connection and the server's restart: then the file is hashed again."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from registry.digest import check_digest
from registry.origin.problems import DigestInvalid, SizeInvalid, UploadInvalid, UploadUnknown
from registry.origin.storage import Storage, move_durably

_ID = re.compile(r"[0-9a-f]{32}")
_REHASH = 1 << 20
MAX_BLOB = 64 << 30  # bytes
ABANDONED = 24 * 3600.0  # seconds without a byte after which a session is forgotten


class Upload:
    """One session. One request at a time works on it: `acquire` before, `release` after."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._hasher = hashlib.sha256()
        self._busy = threading.Lock()
        self.offset = 0
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_REHASH):
                self._hasher.update(piece)
                self.offset += len(piece)

    def acquire(self) -> None:
        """Raises UploadInvalid where another request is at it."""
        if not self._busy.acquire(blocking=False):
            raise UploadInvalid("another request writes to this upload", "wait for its end")

    def release(self) -> None:
        """The request has ended."""
        self._busy.release()

    def append(self, data: bytes) -> None:
        """More bytes. Raises SizeInvalid, UploadUnknown, OSError; what was there stays."""
        if self.offset + len(data) > self._limit:
            raise SizeInvalid(f"a blob may have {self._limit} bytes; this one has more")
        try:
            opened = self._path.open("r+b", buffering=0)
        except FileNotFoundError:
            raise UploadUnknown(f"the upload {self._path.name} has ended") from None
        with opened as file:
            file.seek(self.offset)
            view = memoryview(data)
            try:
                while view:
                    view = view[file.write(view) :]
            except OSError:
                file.truncate(self.offset)
                raise
        self._hasher.update(data)
        self.offset += len(data)

    def seal(self, digest: str) -> Path:
        """The blob's file, its bytes on the disk. Raises DigestInvalid, and the session is over
        then too."""
        found = f"sha256:{self._hasher.hexdigest()}"
        if found != check_digest(digest):
            self.discard()
            raise DigestInvalid(f"sent as {digest}, but these bytes are {found}", "send it anew")
        with self._path.open("r+b") as file:
            file.truncate(self.offset)
            os.fsync(file.fileno())
        self._path.chmod(0o444)
        return self._path

    def discard(self) -> None:
        """Forget the bytes."""
        self._path.unlink(missing_ok=True)


class Uploads:
    """Every session. `limit`: bytes that a blob may have."""

    def __init__(
        self, storage: Storage, limit: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._storage = storage
        self._limit = limit
        self._clock = clock
        self._open: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def start(self) -> str:
        """A new session's id."""
        name = secrets.token_hex(16)
        (self._storage.uploads / name).touch(mode=0o644, exist_ok=False)
        return name

    def find(self, name: str) -> Upload:
        """Raises UploadUnknown."""
        with self._lock:
            found = self._open.get(name)
            if found is None:
                if not _ID.fullmatch(name):
                    raise UploadUnknown(f"there is no upload {name[:80]!r}")
                try:
                    found = Upload(self._storage.uploads / name, self._limit)
                except FileNotFoundError:
                    raise UploadUnknown(f"there is no upload {name}", "start a new one") from None
                self._open[name] = found
            return found

    def finish(self, name: str, digest: str) -> None:
        """Put a session's blob in place; raises DigestInvalid, UploadInvalid, UploadUnknown."""
        upload = self.find(name)
        upload.acquire()
        try:
            sealed = upload.seal(digest)
            with self._storage.change:
                move_durably(sealed, self._storage.blob_path(digest))
        except FileNotFoundError:
            raise UploadUnknown(f"the upload {name} has ended") from None
        finally:
            upload.release()
            self._forget(name)

    def discard(self, name: str) -> None:
        """Cancel a session; raises UploadUnknown."""
        self.find(name).discard()
        self._forget(name)

    def sweep(self) -> int:
        """Forget sessions, and leftovers of a crash, that got no byte for a day; how many."""
        count = 0
        for path in list(self._storage.uploads.iterdir()):
            try:
                if self._clock() - path.stat().st_mtime < ABANDONED:
                    continue
                path.unlink()
            except FileNotFoundError:
                continue
            self._forget(path.name)
            count += 1
        return count

    def _forget(self, name: str) -> None:
        with self._lock:
            self._open.pop(name, None)

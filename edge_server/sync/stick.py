# SPDX-License-Identifier: Apache-2.0
"""A USB stick, or any folder that `tepi registry export` wrote, as an origin of a node.

`tepi sync import` lets the link `state/import` lead to it for as long as it takes. Nothing in the
folder is believed: signatures and digests are checked as those of every origin are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge_server.fill.source import Origin
from registry.digest import digest_of, hex_of
from registry.oci import MANIFEST_LIMIT, Index, parse
from registry.remote.errors import EndlessData, Missing, Unreachable
from registry.trust.sources import FolderSource

NAME: Final = "import"


class Piece:
    """Bytes of a file from an offset on; see edge_server.fill.source.Answer."""

    etag = ""

    def __init__(self, path: Path, first: int, last: int | None) -> None:
        """Raises Unreachable: the stick may be pulled at any moment."""
        self.start = first
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unreachable(f"the import folder: {error.strerror}") from None
        self.total = os.fstat(self._fd).st_size
        self.status = 206 if first or last is not None else 200
        self._at = first
        self._end = self.total if last is None else min(self.total, last + 1)

    def readinto(self, buffer: memoryview) -> int:
        """As Answer.readinto."""
        view = buffer[: max(0, self._end - self._at)]
        if not view:
            return 0
        try:
            count = os.preadv(self._fd, [view], self._at)
        except OSError as error:
            raise Unreachable(f"the import folder: {error.strerror}") from None
        self._at += count
        return count

    def close(self) -> None:
        """As Answer.close."""
        os.close(self._fd)


class Stick:
    """A folder with `blobs/sha256/` and `tuf/`. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def there(self) -> bool:
        """Whether it can be asked now."""
        return self._folder.is_dir()

    def manifest(
        self, name: str, target: str, limit: int = MANIFEST_LIMIT
    ) -> tuple[bytes, str, str]:
        """As OriginSource.manifest, by digest only."""
        path = self._blob(name, target)
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise Unreachable(f"the import folder: {error.strerror}") from None
        if len(data) > limit:
            raise EndlessData(f"{self._folder}: {target} has over {limit} bytes")
        return data, parse(data, target).media_type, digest_of(data)

    def referrers(self, name: str, digest: str) -> Index:
        """As OriginSource.referrers. An export holds whole packages, no deltas."""
        raise Missing(f"{self._folder}: referrers of {name} {digest}")

    def document(self, path: str, limit: int, etag: str = "") -> tuple[bytes | None, str]:
        """As OriginSource.document; a node reads metadata by `source` instead."""
        raise Missing(f"{self._folder}: {path} (at most {limit} bytes, {etag or 'no tag'})")

    def open_blob(
        self, name: str, digest: str, first: int = 0, last: int | None = None, etag: str = ""
    ) -> Piece:
        """As BlobSource.open_blob."""
        return Piece(self._blob(name, digest), first, last)

    def source(self) -> FolderSource:
        """Its metadata."""
        return FolderSource(self._folder)

    def _blob(self, name: str, digest: str) -> Path:
        path = self._folder / "blobs" / "sha256" / hex_of(digest)
        if not path.is_file():
            raise Missing(f"{self._folder}: {name} {digest}")
        return path


def as_origin(stick: Stick, url: str) -> Origin:
    """The first of a node's origins."""
    return Origin(NAME, url, stick, priority=-1)

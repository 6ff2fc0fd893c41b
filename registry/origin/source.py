# SPDX-License-Identifier: Apache-2.0
"""Where the pull side gets what it serves: a registry's own storage, or a node's store that is
still being filled from further up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from registry.errors import RegistryError
from registry.oci import Descriptor


class SourceFailed(RegistryError):
    """What was promised does not come: the rest of a blob, or anything at all. Nothing that was
    sent so far may be taken for the whole."""


@dataclass(frozen=True, slots=True)
class ManifestFound:
    """A manifest as its bytes, which its digest names."""

    data: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class TrustFile:
    """A small file of TUF metadata; `etag` with its quotes."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob that is all here: an open file, which whoever serves it closes."""

    file: BinaryIO
    size: int

    def close(self) -> None:
        """Let go of it."""
        self.file.close()


class Arriving(Protocol):
    """A blob that comes in while it is served. Closing it does not stop it from coming."""

    async def size(self) -> int:
        """Bytes in all, once known. Raises SourceFailed."""

    async def read(self, offset: int, limit: int) -> bytes:
        """1 to `limit` bytes from `offset` on, once they are there. Raises SourceFailed. The whole
        has not been verified yet: the client's own check of the digest is what counts."""

    def close(self) -> None:
        """Let go of it."""


class Source(Protocol):
    """What the pull side serves. Names, tags and digests were checked before."""

    async def manifest(self, name: str, target: str) -> ManifestFound | None:
        """By tag or digest; None where there is none. Raises SourceFailed."""

    async def content(self, name: str, digest: str, held: bool) -> Stored | Arriving | None:
        """A blob; None where there is none. `held`: only if it is complete here (Cache-Control:
        only-if-cached). Raises SourceFailed."""

    async def referrers(self, name: str, digest: str) -> list[Descriptor]:
        """What refers to a manifest. Raises SourceFailed."""

    async def trust_file(self, path: str) -> TrustFile | None:
        """`metadata/…` or `targets/…`; None where there is none. Raises SourceFailed."""

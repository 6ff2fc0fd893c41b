# SPDX-License-Identifier: Apache-2.0
"""What the fill asks of a registry, an origin or a peer; registry.remote.Remote gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from registry.oci import MANIFEST_LIMIT, Index

# What a Remote of a peer sends with every request (RFC 9111, 5.2.1.7). A peer answers 504 to it
# where it does not hold all of what is asked for, and fetches nothing on our behalf.
PEER_HEADERS = MappingProxyType({"Cache-Control": "only-if-cached"})


class Answer(Protocol):
    """A blob's bytes on their way. `status` 200: from the blob's start, whatever was asked for;
    206: from `start`. `total` is the size of the whole blob, None where the source does not say."""

    @property
    def status(self) -> int:
        """200 or 206."""

    @property
    def start(self) -> int:
        """Offset in the blob of the first byte."""

    @property
    def total(self) -> int | None:
        """Bytes of the whole blob."""

    @property
    def etag(self) -> str:
        """The entity tag, empty where there is none."""

    def readinto(self, buffer: memoryview) -> int:
        """Receive what is there, at most the buffer; 0 at the end. Raises RemoteError."""

    def close(self) -> None:
        """Give the connection back, or end it where there is more on it."""


@runtime_checkable
class Interruptible(Protocol):
    """An answer that a thread may be waiting for."""

    def interrupt(self) -> None:
        """Have a readinto of another thread end now."""


class BlobSource(Protocol):
    """Where a blob can be had. Safe for threads. Everything raises RemoteError."""

    def open_blob(
        self, name: str, digest: str, first: int = 0, last: int | None = None, etag: str = ""
    ) -> Answer:
        """Ask for the bytes from `first` up to and including `last` (None: to the end); not for a
        range where it is the whole. With `etag` a blob that changed is answered as a whole."""


class OriginSource(BlobSource, Protocol):
    """Where manifests can be had as well."""

    def manifest(
        self, name: str, target: str, limit: int = MANIFEST_LIMIT
    ) -> tuple[bytes, str, str]:
        """Bytes, media type and digest of a manifest by tag or digest."""

    def referrers(self, name: str, digest: str) -> Index:
        """What refers to a manifest."""

    def document(self, path: str, limit: int, etag: str = "") -> tuple[bytes | None, str]:
        """A file beside the packages and its entity tag; None where `etag` is still its tag."""


@dataclass(slots=True)
class Carried:
    """What came from one place."""

    requests: int = 0
    failures: int = 0
    bytes: int = 0  # of blobs


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """A registry to fetch from. The lower `priority` is asked first; among equals, the first
    named."""

    name: str
    url: str
    remote: OriginSource
    region: str = ""
    priority: int = 0
    carried: Carried = field(default_factory=Carried)

    @property
    def label(self) -> str:
        """As progress and sources call it."""
        return f"origin {self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """A node of the same LAN that may hold what this one lacks. Its remote sends PEER_HEADERS, else
    two nodes that ask each other would wait for each other."""

    name: str
    url: str
    remote: BlobSource
    region: str = ""
    priority: int = 0
    carried: Carried = field(default_factory=Carried)

    @property
    def label(self) -> str:
        """As progress and sources call it."""
        return f"peer {self.name}"


Place = Origin | Peer

# SPDX-License-Identifier: Apache-2.0
"""The origins of a node in their order, and small documents from whichever answers first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from edge_server.fill.errors import AllOriginsDown, Lied
from edge_server.fill.places import Places
from edge_server.fill.source import Origin, Place
from registry.errors import BadManifest, NotFound, WrongDigest
from registry.oci import MANIFEST_LIMIT, Index
from registry.remote.errors import Missing, RemoteError

T = TypeVar("T")


class Document(NamedTuple):
    """A file beside the packages: `data` is None where the reader's is still the same; `origin`
    gave it."""

    data: bytes | None
    etag: str
    origin: str


class Origins(Places[Origin]):
    """Ordered origins with failover and health. Safe for threads."""

    def manifest(self, name: str, target: str, limit: int = MANIFEST_LIMIT) -> tuple[bytes, str]:
        """Bytes and media type of a manifest by tag or digest, at most `limit` bytes, from the
        first origin that gives it. Raises NotFound where every origin lacks it, else
        AllOriginsDown."""

        def ask(origin: Origin) -> tuple[bytes, str]:
            data, media_type, _ = origin.remote.manifest(name, target, limit)
            return data, media_type

        return self.first(f"manifest of {name} {target}", ask)

    def referrers(self, name: str, digest: str) -> Index:
        """What refers to a manifest; errors as of manifest."""
        return self.first(
            f"referrers of {name} {digest}", lambda origin: origin.remote.referrers(name, digest)
        )

    def get(self, path: str, limit: int, etag: str = "") -> Document:
        """A file beside the packages, `/tuf/metadata/timestamp.json` for example, of at most
        `limit` bytes. `etag`: of the one that the reader has. Errors as of manifest."""

        def ask(origin: Origin) -> Document:
            data, tag = origin.remote.document(path, limit, etag)
            return Document(data, tag, origin.name)

        return self.first(path, ask)

    def first(self, what: str, ask: Callable[[Origin], T]) -> T:
        """The answer of the first origin that gives one; each is asked once at most. `ask` raises
        RemoteError, WrongDigest or BadManifest; errors as of manifest."""
        tried: dict[Place, RemoteError] = {}
        while (origin := self.next(tried)) is not None:
            try:
                answer = ask(origin)
            except RemoteError as error:
                self.failed(origin, error)
                tried[origin] = error
            except (WrongDigest, BadManifest) as error:
                tried[origin] = lied = Lied(str(error))
                self.failed(origin, lied)
            else:
                self.succeeded(origin)
                return answer
        if len(self) and len(tried) == len(self):
            lacking = all(isinstance(error, Missing) for error in tried.values())
            if lacking:
                raise NotFound(f"{what}: no origin has it", "check the name, or publish it")
        missing = {place.name: str(e) for place, e in tried.items() if isinstance(e, Missing)}
        raise AllOriginsDown(what, self.reasons() | missing)

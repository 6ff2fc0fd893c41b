# SPDX-License-Identifier: Apache-2.0
"""Small things from further up, asked for at most once in a while and served stale while nobody
there answers (RFC 5861, stale-if-error): manifests, lists of referrers, the trust's files.

Blocking and thread-safe. What is named by its digest is kept in the store and never asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from typing import Protocol

from edge_server.fill.errors import AllOriginsDown
from edge_server.fill.origins import Document
from edge_server.store.errors import StoreError
from edge_server.store.store import Store
from edge_server.tier.records import Record, Records
from registry.digest import digest_of
from registry.errors import BadManifest, NotFound, WrongDigest
from registry.oci import MANIFEST_LIMIT, Descriptor, Index, parse
from registry.origin.app import TRUST_LIMIT, trust_path
from registry.origin.documents import media_type_of
from registry.origin.source import ManifestFound, SourceFailed, TrustFile

TTL = 5.0  # seconds for which an answer is not asked again
_ROOT = re.compile(r"metadata/\d+\.root\.json")
_TIMESTAMP = "metadata/timestamp.json"


class Upstream(Protocol):
    """What is asked of the origins; edge_server.fill.origins.Origins gives it. Raises NotFound
    where every origin says that there is none, AllOriginsDown."""

    def manifest(self, name: str, target: str, limit: int = ...) -> tuple[bytes, str]:
        """Bytes and media type."""

    def referrers(self, name: str, digest: str) -> Index:
        """What refers to a manifest."""

    def get(self, path: str, limit: int, etag: str = "") -> Document:
        """A file beside the packages; no bytes where `etag` is still right."""


class Relay:
    """`ttl` in seconds; `clock` gives seconds since 1970."""

    def __init__(
        self,
        store: Store,
        origins: Upstream,
        records: Records,
        clock: Callable[[], float] = time.time,
        ttl: float = TTL,
    ) -> None:
        self._store = store
        self._origins = origins
        self._records = records
        self._clock = clock
        self._ttl = ttl

    def manifest(self, name: str, target: str) -> ManifestFound | None:
        """By digest: from the store, else from further up, then kept. By tag: what the tag stands
        for is asked again after the TTL. None where there is none; raises SourceFailed."""
        if ":" in target:
            return self._held(target) or self._fetch(name, target)
        key = f"tag {name} {target}"
        known = self._records.find(key)
        if known is not None and self._fresh(known):
            held = self._held(known.data.decode())
            if held is not None:
                return held
        try:
            found = self._fetch(name, target)
        except SourceFailed:
            held = self._held(known.data.decode()) if known is not None else None
            if held is None:
                raise
            return held
        if found is None:
            self._records.forget(key)
        else:
            self._records.keep(key, Record(found.digest.encode(), "", self._clock()))
        return found

    def referrers(self, name: str, digest: str) -> list[Descriptor]:
        """What refers to a manifest. Raises SourceFailed."""

        def ask(_etag: str) -> Document:
            data = self._origins.referrers(name, digest).encode()
            return Document(data, "", "")

        found = self._document(f"referrers {name} {digest}", ask)
        body = parse(found.data, f"referrers of {digest}") if found is not None else Index(())
        return list(body.manifests) if isinstance(body, Index) else []

    def trust_file(self, path: str) -> TrustFile | None:
        """`metadata/…` or `targets/…`. Raises SourceFailed.

        While nobody answers, what is not held is unknown; but the next root, which clients look
        for until there is none, is simply not on this mirror.
        """
        checked = trust_path(path)
        if checked is None:
            return None
        try:
            found = self._document(
                f"tuf {checked}",
                lambda etag: self._origins.get(f"/tuf/{checked}", TRUST_LIMIT, etag),
            )
        except SourceFailed:
            if _ROOT.fullmatch(checked) and self._records.find(f"tuf {_TIMESTAMP}") is not None:
                return None
            raise
        if found is None:
            return None
        return TrustFile(found.data, f'"{hashlib.sha256(found.data).hexdigest()}"')

    def _document(self, key: str, ask: Callable[[str], Document]) -> Record | None:
        known = self._records.find(key)
        if known is not None and self._fresh(known):
            return known
        try:
            answer = ask(known.etag if known is not None else "")
        except NotFound:
            self._records.forget(key)
            return None
        except AllOriginsDown as error:
            if known is not None:
                return known
            raise SourceFailed(str(error), error.remedy) from None
        if answer.data is None and known is None:
            raise SourceFailed(f"{key}: an origin says 'unchanged' of what was never asked")
        data = answer.data if answer.data is not None else known.data if known is not None else b""
        record = Record(data, answer.etag, self._clock())
        self._records.keep(key, record)
        return record

    def _fresh(self, record: Record) -> bool:
        return 0 <= self._clock() - record.checked < self._ttl

    def _held(self, digest: str) -> ManifestFound | None:
        size = self._store.size(digest)
        path = self._store.path(digest)
        if size is None or path is None or size > MANIFEST_LIMIT:
            return None
        try:
            data = path.read_bytes()
            media_type = media_type_of(data, digest)
        except (OSError, BadManifest):  # evicted since, or no manifest at all
            return None
        if digest_of(data) != digest:
            return None
        self._store.touch(digest)
        return ManifestFound(data, media_type, digest)

    def _fetch(self, name: str, target: str) -> ManifestFound | None:
        try:
            data, media_type = self._origins.manifest(name, target, MANIFEST_LIMIT)
        except NotFound:
            return None
        except AllOriginsDown as error:
            raise SourceFailed(str(error), error.remedy) from None
        digest = digest_of(data)
        if ":" in target and digest != target:
            raise WrongDigest(f"{name}@{target}: an origin gave {digest}")
        with contextlib.suppress(StoreError):  # no room: it is asked again next time
            self._store.add(data, digest)
        return ManifestFound(data, media_type, digest)

# SPDX-License-Identifier: Apache-2.0
"""A damaged blob again from one registry, for repair by hand; a server's sync has its own ways."""

from __future__ import annotations

from collections.abc import Callable

from edge_server.store.partial import Partial
from edge_server.store.store import Store
from registry.errors import NotFound, WrongSize
from registry.remote.client import Remote


class Refetch:
    """Called with a digest, brings that blob into the store. Raises NotFound, RemoteError,
    WrongSize, WrongDigest and what the store raises; what was received is kept."""

    def __init__(
        self, store: Store, remote: Remote, name: str, tell: Callable[[int], object]
    ) -> None:
        self._store = store
        self._remote = remote
        self._name = name
        self._tell = tell

    def __call__(self, digest: str) -> None:
        size = self._remote.head_blob(self._name, digest)
        if size is None:
            raise NotFound(
                f"{self._remote.registry}/{self._name} has no blob {digest}",
                "give the repository that the model came from with --from",
            )
        if size < 0:
            raise WrongSize(f"{self._remote.registry} does not tell the size of {digest}")
        with self._store.partial(digest, size) as partial:
            if partial.offset < size:
                self._receive(partial)
            partial.commit()

    def _receive(self, partial: Partial) -> None:
        with self._remote.open_blob(self._name, partial.digest, partial.offset) as blob:
            skip = partial.offset - blob.start  # a server may send all, whatever was asked
            while partial.offset < partial.size:
                room = partial.buffer()
                got = blob.readinto(room[:skip] if skip else room)
                if not got:
                    return
                if skip:
                    skip -= min(skip, got)
                else:
                    partial.advance(got)
                    self._tell(got)

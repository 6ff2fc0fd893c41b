# SPDX-License-Identifier: Apache-2.0
"""Removing what nothing refers to: blobs and manifests that no repository names."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from registry.errors import RegistryError
from registry.origin.documents import read_document
from registry.origin.problems import LOGGER
from registry.origin.storage import Storage

YOUNG = 3600.0  # seconds that a blob may wait for the manifest that names it


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed."""

    blobs: int
    bytes: int


class Unreadable(RegistryError):
    """A manifest cannot be read, so nobody knows what it needs: nothing is removed."""


def needed(storage: Storage) -> set[str]:
    """Every digest that some repository holds or refers to. Raises Unreadable."""
    found: set[str] = set()
    for name in storage.names():
        for digest in storage.digests(name):
            held = storage.manifest(name, digest)
            try:
                if held is None:
                    raise RegistryError("its blob is missing")
                body = read_document(held.data, held.media_type, f"{name}@{digest}").body
            except RegistryError as error:
                raise Unreadable(
                    f"{name}@{digest} cannot be read ({error}); nothing was removed",
                    "push it anew, or delete it",
                ) from None
            found.add(digest)
            entries = body.blobs if hasattr(body, "blobs") else body.manifests
            found.update(entry.digest for entry in entries)
    return found


def sweep(storage: Storage, clock: Callable[[], float] = time.time) -> Swept:
    """Remove blobs that nothing needs and that are older than an hour. Pushes go on meanwhile: one
    that refers to an old blob makes it young first. Raises Unreadable, OSError."""
    with storage.change:
        keep = needed(storage)
    blobs = count = 0
    for path in list(storage.blobs.iterdir()):
        if f"sha256:{path.name}" in keep:
            continue
        with storage.change:  # what was referred to since is young now
            try:
                found = path.stat()
                if clock() - found.st_mtime < YOUNG:
                    continue
                path.unlink()
            except FileNotFoundError:
                continue
        blobs, count = blobs + 1, count + found.st_size
    LOGGER.info("swept %d blobs, %d bytes", blobs, count)
    return Swept(blobs, count)

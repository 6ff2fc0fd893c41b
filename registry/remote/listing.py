# SPDX-License-Identifier: Apache-2.0
"""What a registry holds, as `tepi model list` shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from registry import oci
from registry.errors import BadManifest
from registry.package.modelpack import variant_of
from registry.remote.client import Remote
from registry.remote.errors import Missing

_REFERRERS_TAG = re.compile(r"sha256-[0-9a-f]{64}")
_PARALLEL = 4


@dataclass(frozen=True)
class Row:
    """A tag and what it stands for; `size` is in bytes, every blob counted once. A manifest that is
    none of OCI's has size -1 and its media type as `note`."""

    name: str
    tag: str
    digest: str
    size: int
    variants: tuple[str, ...] = ()
    note: str = ""


def packages(remote: Remote, name: str = "") -> list[Row]:
    """Every tag of a repository, or of all that the registry tells of. Tags that hold referrers
    (OCI Distribution 1.1, Referrers Tag Schema) are left out. Raises RemoteError."""
    names = [name] if name else remote.catalog()
    with ThreadPoolExecutor(_PARALLEL, "list") as pool:
        tags = list(pool.map(lambda each: (each, _tags(remote, each, bool(name))), names))
        wanted = [(each, tag) for each, found in tags for tag in found]
        rows = pool.map(lambda pair: _row(remote, *pair), wanted)
        return [row for row in rows if row is not None]


def _tags(remote: Remote, name: str, must_be: bool) -> list[str]:
    try:
        return sorted(t for t in remote.tags(name) if not _REFERRERS_TAG.fullmatch(t))
    except Missing:
        if must_be:
            raise
        return []  # a repository whose last tag was deleted


def _row(remote: Remote, name: str, tag: str) -> Row | None:
    try:
        found = remote.manifest(name, tag)
    except Missing:
        return None  # deleted since it was listed
    try:
        document = oci.parse(found.data, f"{name}:{tag}")
        blobs = dict(_blobs(remote, name, document))
    except (BadManifest, Missing) as error:
        note = found.media_type if isinstance(error, BadManifest) else "incomplete"
        return Row(name, tag, found.digest, -1, (), note)
    entries = document.manifests if isinstance(document, oci.Index) else (document,)
    variants = tuple(filter(None, (variant_of(entry)[0] for entry in entries)))
    return Row(name, tag, found.digest, sum(blobs.values()), variants)


def _blobs(
    remote: Remote, name: str, document: oci.Manifest | oci.Index
) -> Iterator[tuple[str, int]]:
    if isinstance(document, oci.Manifest):
        for blob in document.blobs:
            yield blob.digest, blob.size
        return
    for entry in document.manifests:
        if entry.media_type == oci.MANIFEST:
            found = remote.manifest(name, entry.digest)
            yield from _blobs(remote, name, oci.parse_manifest(found.data, entry.digest))

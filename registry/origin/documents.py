# SPDX-License-Identifier: Apache-2.0
"""Manifests as strangers push them: OCI's, and Docker's schema 2, which older tools still send."""

from __future__ import annotations

import json
from dataclasses import dataclass

from registry.errors import BadManifest
from registry.oci import INDEX, MANIFEST, Descriptor, Index, Manifest, parse

_DOCKER = {
    "application/vnd.docker.distribution.manifest.v2+json": MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json": INDEX,
}
_ELSEWHERE = (".foreign.", ".nondistributable.")  # layers that are not to be pushed


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index with the type that it was pushed as."""

    body: Manifest | Index
    media_type: str

    @property
    def needs(self) -> tuple[Descriptor, ...]:
        """What must be here before it: blobs of a manifest, manifests of an index."""
        body = self.body
        if isinstance(body, Index):
            return body.manifests
        return tuple(b for b in body.blobs if not any(w in b.media_type for w in _ELSEWHERE))


def read_document(data: bytes, media_type: str, what: str) -> Document:
    """Raises BadManifest for another type than announced, and for what does not parse."""
    if media_type in _DOCKER:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadManifest(f"{what} is not JSON: {error}") from None
        if not isinstance(found, dict) or found.get("mediaType") != media_type:
            raise BadManifest(f"{what}: mediaType is not {media_type}")
        data = json.dumps(found | {"mediaType": _DOCKER[media_type]}).encode()
        return Document(parse(data, what), media_type)
    if media_type not in (MANIFEST, INDEX):
        raise BadManifest(f"{what}: the type {media_type[:100]!r} is not taken")
    body = parse(data, what)
    if body.media_type != media_type:
        raise BadManifest(f"{what} is sent as {media_type}, but is {body.media_type}")
    return Document(body, media_type)


def media_type_of(data: bytes, what: str) -> str:
    """The type of a manifest that comes without one. Raises BadManifest."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{what} is not JSON: {error}") from None
    named = found.get("mediaType") if isinstance(found, dict) else None
    if named in _DOCKER:
        return str(named)
    return parse(data, what).media_type

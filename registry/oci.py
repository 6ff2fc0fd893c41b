# SPDX-License-Identifier: Apache-2.0
"""Descriptors, manifests and indexes as OCI Image Specification 1.1 writes them.

Parsing is for bytes of strangers: sizes, counts, digests and types are checked, and anything wrong
is a BadManifest that says where. Encoding is deterministic: the same value gives the same bytes and
so the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.digest import check_digest, digest_of
from registry.errors import BadDigest, BadManifest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_JSON = b"{}"
EMPTY_DIGEST = digest_of(EMPTY_JSON)
REF_NAME = "org.opencontainers.image.ref.name"

MANIFEST_LIMIT = 4 << 20  # bytes; what registries take at most
_ENTRIES = 10_000
_SIZE_LIMIT = 1 << 50


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob or of another manifest."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    platform: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The JSON object, without what is empty."""
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        # The order is that of the Go types that most tools encode with: what such a tool reads and
        # writes again keeps its digest.
        if self.annotations:
            found["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform:
            found["platform"] = dict(sorted(self.platform.items()))
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest: a configuration and layers; `subject` is what a referrer refers to."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None

    media_type = MANIFEST

    def encode(self) -> bytes:
        """Its bytes, the same for the same value."""
        found: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        found["config"] = self.config.as_json()
        found["layers"] = [layer.as_json() for layer in self.layers]
        if self.subject is not None:
            found["subject"] = self.subject.as_json()
        return _encode(found, self.annotations)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The configuration and the layers."""
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index: one entry for each variant."""

    manifests: tuple[Descriptor, ...]
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None

    media_type = INDEX

    def encode(self) -> bytes:
        """Its bytes, the same for the same value."""
        found: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        found["manifests"] = [entry.as_json() for entry in self.manifests]
        if self.subject is not None:
            found["subject"] = self.subject.as_json()
        return _encode(found, self.annotations)


def describe(document: Manifest | Index, **extra: Any) -> tuple[Descriptor, bytes]:
    """The descriptor of a manifest or an index, and its bytes."""
    data = document.encode()
    return Descriptor(document.media_type, digest_of(data), len(data), **extra), data


def parse(data: bytes, what: str = "manifest") -> Manifest | Index:
    """A manifest or an index, whichever it is. Raises BadManifest; `what` begins its message."""
    if len(data) > MANIFEST_LIMIT:
        raise BadManifest(f"{what} has {len(data)} bytes; at most {MANIFEST_LIMIT} are taken")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{what} is not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("schemaVersion") != 2:
        raise BadManifest(f"{what}: schemaVersion is not 2")
    subject = _descriptor(found["subject"], f"{what}: subject") if "subject" in found else None
    kind = _text(found, "artifactType", what)
    notes = _texts(found, "annotations", what)
    media_type = _text(found, "mediaType", what)
    if media_type == INDEX or (not media_type and "manifests" in found):
        return Index(_descriptors(found, "manifests", what), kind, notes, subject)
    if media_type not in ("", MANIFEST):
        raise BadManifest(f"{what}: mediaType {media_type!r} is neither {MANIFEST} nor {INDEX}")
    config = _descriptor(found.get("config"), f"{what}: config")
    return Manifest(config, _descriptors(found, "layers", what), kind, notes, subject)


def parse_manifest(data: bytes, what: str = "manifest") -> Manifest:
    """As parse, of a manifest only."""
    found = parse(data, what)
    if not isinstance(found, Manifest):
        raise BadManifest(f"{what} is an index, not a manifest")
    return found


def _encode(found: dict[str, Any], annotations: Mapping[str, str]) -> bytes:
    if annotations:
        found["annotations"] = dict(sorted(annotations.items()))
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


def _descriptors(found: dict[str, Any], key: str, what: str) -> tuple[Descriptor, ...]:
    entries = found.get(key)
    if not isinstance(entries, list) or len(entries) > _ENTRIES:
        raise BadManifest(f"{what}: {key} is not a list of at most {_ENTRIES} descriptors")
    return tuple(_descriptor(e, f"{what}: {key}[{i}]") for i, e in enumerate(entries))


def _descriptor(found: object, what: str) -> Descriptor:
    if not isinstance(found, dict):
        raise BadManifest(f"{what} is not a descriptor")
    size = found.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _SIZE_LIMIT:
        raise BadManifest(f"{what}: size is not a number of bytes")
    try:
        digest = check_digest(_text(found, "digest", what))
    except BadDigest as error:
        raise BadManifest(f"{what}: {error}") from None
    return Descriptor(
        _text(found, "mediaType", what),
        digest,
        size,
        _texts(found, "annotations", what),
        _text(found, "artifactType", what),
        {k: v for k, v in _object(found, "platform", what).items() if isinstance(v, str)},
    )


def _text(found: dict[str, Any], key: str, what: str) -> str:
    value = found.get(key, "")
    if not isinstance(value, str):
        raise BadManifest(f"{what}: {key} is not a text")
    return value


def _object(found: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    value = found.get(key) or {}
    if not isinstance(value, dict):
        raise BadManifest(f"{what}: {key} is not an object")
    return value


def _texts(found: dict[str, Any], key: str, what: str) -> dict[str, str]:
    value = _object(found, key, what)
    if not all(isinstance(v, str) for v in value.values()):
        raise BadManifest(f"{what}: {key} holds something other than texts")
    return value

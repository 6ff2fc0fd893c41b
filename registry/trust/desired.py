# SPDX-License-Identifier: Apache-2.0
"""What a ring of nodes is to run: the document that the desired role signs.

{"format": 1, "ring": "canary", "release": 7,
 "models": [{"name", "repository", "tag", "digest", "size"}]}
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from registry.digest import check_digest
from registry.errors import BadDigest, BadReference
from registry.reference import check_name, check_tag
from registry.trust.errors import BadMetadata

_FORMAT = 1
_MODELS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SIZE_LIMIT = 1 << 50
_RELEASE_LIMIT = 1 << 53


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """A model that a ring is to run: served as `name`, from `repository`:`tag`, whose manifest or
    index has this digest and size in bytes."""

    name: str
    repository: str
    tag: str
    digest: str
    size: int

    def as_json(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "name": self.name,
            "repository": self.repository,
            "tag": self.tag,
            "digest": self.digest,
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired state of a ring. `release` only rises; `expires` is that of the role, in seconds
    since 1970, 0 where it is not known yet."""

    ring: str
    release: int
    models: tuple[DesiredModel, ...]
    expires: float = 0.0

    def encode(self) -> bytes:
        """Its bytes, the same for the same value."""
        return json.dumps(
            {
                "format": _FORMAT,
                "ring": self.ring,
                "release": self.release,
                "models": [model.as_json() for model in sorted(self.models, key=lambda m: m.name)],
            },
            indent=1,
        ).encode()


def is_model_name(name: str) -> bool:
    """Whether a model may be served under this name: it is also that of a folder."""
    return bool(_NAME.fullmatch(name))


def parse_desired(data: bytes, ring: str, expires: float = 0.0) -> Desired:
    """The desired state of `ring` from its bytes; raises BadMetadata. Digest and signature were
    checked before: what is checked here is that it says only what a node can act upon."""
    what = f"the desired state of ring {ring}"
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadMetadata(f"{what} is not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise BadMetadata(
            f"{what} is not of format {_FORMAT}", "bring this node's software up to date"
        )
    if found.get("ring") != ring:
        raise BadMetadata(f"{what} is that of ring {str(found.get('ring'))[:80]!r}")
    release = _whole(found.get("release"), f"{what}: release", _RELEASE_LIMIT)
    models = found.get("models")
    if not isinstance(models, list) or len(models) > _MODELS:
        raise BadMetadata(f"{what}: models is not a list of at most {_MODELS}")
    read = tuple(_model(entry, f"{what}: models[{i}]") for i, entry in enumerate(models))
    if len({model.name for model in read}) != len(read):
        raise BadMetadata(f"{what} names a model twice")
    return Desired(ring, release, read, expires)


def _whole(value: object, what: str, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise BadMetadata(f"{what} is not a whole number up to {limit}")
    return value


def _model(entry: object, what: str) -> DesiredModel:
    if not isinstance(entry, dict):
        raise BadMetadata(f"{what} is not an object")
    texts = {key: entry.get(key) for key in ("name", "repository", "tag", "digest")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise BadMetadata(f"{what}: name, repository, tag and digest are not all texts")
    name, repository, tag, digest = (str(text) for text in texts.values())
    if not is_model_name(name):
        raise BadMetadata(f"{what}: {name[:80]!r} cannot name a model")
    try:
        check_name(repository)
        check_tag(tag)
        check_digest(digest)
    except (BadReference, BadDigest) as error:
        raise BadMetadata(f"{what}: {error}") from None
    return DesiredModel(
        name, repository, tag, digest, _whole(entry.get("size"), f"{what}: size", _SIZE_LIMIT)
    )

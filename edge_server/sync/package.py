# SPDX-License-Identifier: Apache-2.0
"""A package as this node holds it: which blobs it is made of and where each file goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from registry.digest import check_digest
from registry.errors import RegistryError
from registry.package.modelpack import File, check_path
from registry.trust.desired import DesiredModel

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Package:
    """The variant of a desired model that this node runs. `manifests` are the digests of the
    documents it was found by."""

    model: DesiredModel
    variant: str
    manifests: tuple[str, ...]
    files: tuple[File, ...]

    @property
    def digests(self) -> frozenset[str]:
        """Every blob that is to be kept for it: documents, files and their block indexes."""
        indexes = (file.blocks for file in self.files if file.blocks)
        return frozenset((*self.manifests, *(file.digest for file in self.files), *indexes))

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum({file.digest: file.size for file in self.files}.values())

    def encode(self) -> bytes:
        """As it lies beside the files of a deployment."""
        found = {
            "format": _FORMAT,
            "model": self.model.as_json(),
            "variant": self.variant,
            "manifests": list(self.manifests),
            "files": [asdict(file) for file in self.files],
        }
        return json.dumps(found, indent=1).encode()


def parse_package(data: bytes) -> Package | None:
    """What encode wrote; None where it is damaged."""
    try:
        found: Mapping[str, Any] = json.loads(data)
        if found["format"] != _FORMAT:
            return None
        files = tuple(File(**entry) for entry in found["files"])
        for file in files:
            check_path(file.path)
            check_digest(file.digest)
        manifests = tuple(check_digest(digest) for digest in found["manifests"])
        return Package(DesiredModel(**found["model"]), found["variant"], manifests, files)
    except (ValueError, KeyError, TypeError, AttributeError, RegistryError):
        return None

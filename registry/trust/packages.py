# SPDX-License-Identifier: Apache-2.0
"""What NAME:TAG is: digest and size of its index or manifest, as an OCI layout, a registry's own
storage, a remote registry, or whoever signs says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry.digest import check_digest, digest_of
from registry.errors import NotFound
from registry.oci import MANIFEST_LIMIT, Index, parse
from registry.origin.storage import Storage
from registry.package.layout import Layout
from registry.package.modelpack import VARIANT
from registry.remote.client import Remote
from registry.trust.changes import Package
from registry.trust.errors import BadRequest, WrongDigest
from registry.trust.names import split_package


def package_of(text: str, size: int) -> Package:
    """NAME:TAG@DIGEST with its size in bytes, as said. Raises BadRequest,
    BadReference, BadDigest."""
    name, tag, digest = split_package(text)
    if not digest:
        raise BadRequest(f"{text} has no digest", "write NAME:TAG@sha256:… with --size")
    return Package(name, tag, check_digest(digest), size)


def package_in_layout(text: str, path: Path) -> Package:
    """NAME:TAG[@DIGEST], whose TAG stands in the OCI layout at `path`. Raises NotFound, BadLayout,
    WrongDigest, BadManifest, BadReference."""
    _, tag, _ = split_package(text)
    layout = Layout(path)
    return described(text, layout.read(layout.resolve(tag).digest, MANIFEST_LIMIT))


def package_in_storage(text: str, path: Path) -> Package:
    """NAME:TAG[@DIGEST], which was pushed to the registry that is kept in `path`. Raises NotFound,
    BadManifest, WrongDigest, BadReference."""
    name, tag, digest = split_package(text)
    found = Storage(path).manifest(name, digest or tag)
    if found is None:
        raise NotFound(
            f"{path} does not hold {text}",
            "push it first, or say where it is: --layout FOLDER or --registry HOST[:PORT]",
        )
    return described(text, found.data)


def package_in_registry(text: str, remote: Remote) -> Package:
    """NAME:TAG[@DIGEST], which a remote registry has. What it says is believed where no digest is
    given: whoever signs vouches for it. Raises RemoteError, BadManifest, WrongDigest."""
    name, tag, digest = split_package(text)
    return described(text, remote.manifest(name, digest or tag).data)


def described(text: str, data: bytes) -> Package:
    """NAME:TAG[@DIGEST] whose index or manifest has these bytes. Raises BadManifest, WrongDigest,
    BadReference."""
    name, tag, wanted = split_package(text)
    digest = digest_of(data)
    if wanted and wanted != digest:
        raise WrongDigest(
            f"{name}:{tag} is {digest}, not {wanted}", "check which of the two you mean to sign"
        )
    found = parse(data, f"{name}:{tag}")
    custom: dict[str, Any] = {"media_type": found.media_type}
    if isinstance(found, Index):
        names = sorted({entry.annotations.get(VARIANT, "") for entry in found.manifests} - {""})
        custom["variants"] = names
    return Package(name, tag, digest, len(data), custom)

# SPDX-License-Identifier: Apache-2.0
"""What a node without a network needs, in a plain folder: `tuf/` as nodes read it and, with the
packages, an OCI layout (`oci-layout`, `index.json`, `blobs/sha256/<hex>`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry.digest import digest_of_file, hex_of
from registry.errors import NotFound, WrongDigest
from registry.oci import REF_NAME, Descriptor, Index, parse
from registry.trust.desired import DesiredModel
from registry.trust.durable import write_whole
from registry.trust.errors import NotDesired
from registry.trust.folder import Current, RegistryFolder
from registry.trust.names import DESIRED, SNAPSHOT, TARGETS, TIMESTAMP


class Blobs(Protocol):
    """Where packages are copied from: a registry's storage or an OCI layout."""

    def blob_path(self, digest: str) -> Path:
        """Where a blob is or would be."""
        ...


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: models of the rings, blobs and bytes that were not there yet."""

    rings: tuple[str, ...]
    models: tuple[DesiredModel, ...]
    blobs: int
    copied: int  # bytes


def export(
    folder: RegistryFolder,
    to: Path,
    rings: Sequence[str] = (),
    source: Blobs | None = None,
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> Exported:
    """Write what nodes of these rings (none: of all) need to the folder `to`; packages too where
    `source` has them. What is there already is kept, so an export that broke off goes on. `tell`
    gets the bytes done and those of all. The timestamp comes last: until then a node sees what the
    folder held before.

    Raises NotDesired, NotFound, WrongDigest, NotARegistry, OSError.
    """
    current = folder.current()
    known = current.rings()
    for ring in rings:
        if ring not in known:
            raise NotDesired(f"nothing is said of what ring {ring} is to run")
    chosen = tuple(sorted(rings or known))
    models = {(m.repository, m.tag): m for ring in chosen for m in known[ring].models}
    blobs = copied = 0
    if source is not None:
        blobs, copied = _copy_packages(source, to, list(models.values()), tell)
    _copy_metadata(folder, current, to)
    return Exported(chosen, tuple(models.values()), blobs, copied)


def _copy_packages(
    source: Blobs, to: Path, models: Sequence[DesiredModel], tell: Callable[[int, int], None]
) -> tuple[int, int]:
    wanted = {d.digest: d for model in models for d in _reachable(source, model)}
    total = sum(d.size for d in wanted.values())
    done = copied = 0
    for descriptor in wanted.values():
        path = to / "blobs" / "sha256" / hex_of(descriptor.digest)
        if _copy_blob(source.blob_path(descriptor.digest), path, descriptor):
            copied += descriptor.size
        done += descriptor.size
        tell(done, total)
    _write_layout(to, [(model, source.blob_path(model.digest)) for model in models])
    return len(wanted), copied


def _write_layout(to: Path, models: Sequence[tuple[DesiredModel, Path]]) -> None:
    """Make the folder an OCI layout; each package is tagged NAME-TAG, its slashes as dots."""
    entries = []
    for model, path in models:
        media_type = parse(path.read_bytes(), str(path)).media_type
        tag = f"{model.repository.replace('/', '.')}-{model.tag}"
        entries.append(Descriptor(media_type, model.digest, model.size, {REF_NAME: tag[-128:]}))
    (to / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    write_whole(to / "index.json", Index(tuple(entries)).encode())
    write_whole(to / "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def _reachable(source: Blobs, model: DesiredModel) -> Iterator[Descriptor]:
    """A package's index, manifests and blobs, each before what it names."""
    what = f"{model.repository}:{model.tag}"
    todo = [Descriptor("", model.digest, model.size)]
    documents = {model.digest}
    while todo:
        descriptor = todo.pop()
        yield descriptor
        if descriptor.digest not in documents:
            continue
        path = source.blob_path(descriptor.digest)
        if not path.exists():
            raise NotFound(f"{what}: {descriptor.digest} is not in {path.parent}")
        if digest_of_file(path) != descriptor.digest:
            raise WrongDigest(f"{what}: {path} is damaged", "push the package again")
        found = parse(path.read_bytes(), what)
        if isinstance(found, Index):
            documents |= {entry.digest for entry in found.manifests}
            todo += found.manifests
        else:
            todo += found.blobs


def _copy_blob(source: Path, to: Path, descriptor: Descriptor) -> bool:
    """Copy a blob and check what came out; False where it is there already."""
    if to.exists() and digest_of_file(to) == descriptor.digest:
        return False
    if not source.exists():
        raise NotFound(f"{descriptor.digest} is not in {source.parent}", "push the package again")
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = to.with_name(f".{hex_of(descriptor.digest)}.new")
    try:
        with source.open("rb") as read, temporary.open("wb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
            os.fsync(write.fileno())
        if digest_of_file(temporary) != descriptor.digest:
            raise WrongDigest(f"{source} is damaged", "push the package again")
        temporary.replace(to)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _copy_metadata(folder: RegistryFolder, current: Current, to: Path) -> None:
    """In the order of publishing: what is named before what names it."""
    there = RegistryFolder(to)
    for target in current.desired.signed.targets.values():
        path = target.get_prefixed_paths()[0]
        write_whole(there.targets / path, (folder.targets / path).read_bytes())
    for version in range(1, current.root.signed.version + 1):
        write_whole(there.metadata / f"{version}.root.json", folder.root(version))
    names = [
        f"{current.of(role).signed.version}.{role}.json" for role in (TARGETS, DESIRED, SNAPSHOT)
    ]
    for name in (*names, f"{TIMESTAMP}.json"):
        write_whole(there.metadata / name, (folder.metadata / name).read_bytes())

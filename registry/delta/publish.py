# SPDX-License-Identifier: Apache-2.0
"""Deltas and block indexes in a layout, as referrers of the package that they help to fetch.

The subject is what is signed and what a node knows first: the package's index, or its one manifest
where there is none. So one look-up finds all there is, whichever variant the node takes.

    artifactType  application/vnd.tepi.delta.v1
    subject       the new package
    annotations   dev.tepi.delta.base: digest of the old package
    layers        application/vnd.tepi.delta.v1, each with
                  dev.tepi.delta.from and dev.tepi.delta.to: digests of the old and the new layer
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from registry.delta import block_index
from registry.delta.encode import LEVEL, encode_delta
from registry.delta.form import MEDIA_TYPE
from registry.digest import check_digest
from registry.errors import BadDigest, RegistryError
from registry.oci import EMPTY, EMPTY_JSON, Descriptor, Manifest
from registry.package.layout import Layout
from registry.package.modelpack import File
from registry.package.package import Package, Packed, open_package

DELTA = MEDIA_TYPE
FROM = "dev.tepi.delta.from"
TO = "dev.tepi.delta.to"
BASE = "dev.tepi.delta.base"
WORTH = 0.7  # of the new layer's bytes: a larger delta is not published
SMALLEST = 64 << 10  # bytes of a layer that is worth one

Tell = Callable[[str, int], None]


class SamePackage(RegistryError):
    """Both tags name one package: there is nothing between them."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A delta that a registry has: layer `old` and `blob` make layer `new`."""

    old: str
    new: str
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class Considered:
    """A layer of the new package and what was found against an old one. Sizes in bytes."""

    tag: str  # of the old package
    path: str
    old: str
    new: str
    size: int
    delta_size: int
    published: bool

    @property
    def ratio(self) -> float:
        """The delta's share of the layer."""
        return self.delta_size / self.size


def candidates(referrers: Iterable[tuple[Descriptor, Manifest]]) -> list[Delta]:
    """The deltas among a package's referrers, the smallest first; what does not say properly from
    what and to what it leads is left out."""
    found = [
        Delta(layer.annotations[FROM], layer.annotations[TO], layer)
        for _, manifest in referrers
        if manifest.artifact_type == DELTA
        for layer in manifest.layers
        if layer.media_type == MEDIA_TYPE and _named(layer)
    ]
    return sorted(found, key=lambda delta: (delta.blob.size, delta.blob.digest))


def publish_deltas(
    layout: Layout,
    new_tag: str,
    old_tags: Sequence[str] = (),
    tell: Tell = lambda _what, _bytes: None,
    level: int = LEVEL,
) -> list[Considered]:
    """Put into the layout, beside the package `new_tag`, the deltas that make its layers of those
    of `old_tags` (none: of every other tag of the same model), and its block indexes where they
    were left behind. What is there already is not made again. `tell` gets what is done and how many
    bytes more of it are. Raises SamePackage, NotFound and what reading a package raises; OSError.
    """
    new = open_package(layout, new_tag)
    _restore_indexes(layout, new, tell)
    found: list[Considered] = []
    for tag, old in _bases(layout, new, new_tag, old_tags):
        found += _against(layout, new, old, tag, tell, level)
    return found


def _bases(
    layout: Layout, new: Package, new_tag: str, old_tags: Sequence[str]
) -> list[tuple[str, Package]]:
    if old_tags:
        chosen = [(tag, open_package(layout, tag)) for tag in old_tags]
        for tag, old in chosen:
            if old.descriptor.digest == new.descriptor.digest:
                raise SamePackage(
                    f"{tag} and {new_tag} in {layout.path} name the same package",
                    "name with --from what nodes run now, and with --new what they are to run",
                )
        return chosen
    seen = {new.descriptor.digest}
    bases = []
    for tag, descriptor in layout.tags().items():
        if descriptor.digest not in seen:
            seen.add(descriptor.digest)
            old = open_package(layout, tag)
            if old.about.name == new.about.name:
                bases.append((tag, old))
    return bases


def _against(
    layout: Layout, new: Package, old: Package, tag: str, tell: Tell, level: int
) -> list[Considered]:
    """Deltas from one old package, and the referrer that holds those worth it."""
    known = {
        (delta.old, delta.new): delta.blob
        for delta in candidates(layout.referrers(new.descriptor.digest))
        if layout.has(delta.blob.digest)
    }
    found: list[Considered] = []
    layers: list[Descriptor] = []
    for file, before in _pairs(new, old):
        blob = known.get((before.digest, file.digest))
        if blob is not None:
            size = blob.size
        else:
            step = f"delta of {file.path} from {tag}"
            blob, size = _made(layout, before, file, partial(tell, step), level)
        if blob is not None:
            layers.append(blob)
        published = blob is not None
        found.append(
            Considered(tag, file.path, before.digest, file.digest, file.size, size, published)
        )
    if layers:
        _refer(layout, new, DELTA, layers, {BASE: old.descriptor.digest})
    return found


def _made(
    layout: Layout, old: File, new: File, tell: Callable[[int], None], level: int
) -> tuple[Descriptor | None, int]:
    """A delta in the layout, if it is worth it, and the size it has or would have."""
    with tempfile.TemporaryDirectory(prefix="tepi-delta-") as folder:
        out = Path(folder) / "delta"
        before, after = layout.blob_path(old.digest), layout.blob_path(new.digest)
        info = encode_delta(before, after, out, level, tell)
        if (info.old, info.new) != (old.digest, new.digest):
            damaged = old if info.old != old.digest else new
            layout.check_blob(Descriptor(damaged.media_type, damaged.digest, damaged.size))
        if info.ratio >= WORTH:
            return None, info.size
        notes = {FROM: old.digest, TO: new.digest}
        return layout.add(out, MEDIA_TYPE, notes), info.size


def _pairs(new: Package, old: Package) -> list[tuple[File, File]]:
    """Each layer of the new package that the old one lacks, with that of the old one which has its
    place: in a variant for the same nodes, at the same path, else of the same role."""
    held = old.files
    pairs: dict[str, tuple[File, File]] = {}
    for packed in new.variants:
        twins = _twins(packed, old)
        for file in packed.files:
            if file.size < SMALLEST or file.digest in held or file.digest in pairs:
                continue
            for before in (_place(file, twin.files) for twin in twins):
                if before is not None and before.size >= SMALLEST:
                    pairs[file.digest] = (file, before)
                    break
    return list(pairs.values())


def _twins(packed: Packed, old: Package) -> list[Packed]:
    """The old variants, the one for the same nodes first."""

    def apart(other: Packed) -> tuple[bool, bool]:
        return other.variant != packed.variant, other.abi != packed.abi

    return sorted(old.variants, key=apart)


def _place(file: File, others: Sequence[File]) -> File | None:
    """The file of another package that has this one's place. Paths begin with the version's number,
    so that the last part is compared as well."""
    name = file.path.rpartition("/")[2]
    ranks = {
        other.digest: (
            other.path != file.path,
            other.path.rpartition("/")[2] != name,
            other.path,
        )
        for other in others
        if other.role == file.role
    }
    alike = [other for other in others if other.digest in ranks]
    return min(alike, key=lambda other: ranks[other.digest], default=None)


def _restore_indexes(layout: Layout, package: Package, tell: Tell) -> None:
    """Make again the block indexes that the package names and the layout lacks, as after a pull
    without referrers. They cannot be given to a package that names none: its digest would change.
    """
    named = sorted(
        (file for file in package.files.values() if file.blocks), key=lambda file: file.blocks
    )
    layers: list[Descriptor] = []
    lacking = False
    for file in named:
        notes = {block_index.OF: file.digest}
        if layout.has(file.blocks):
            size = layout.blob_path(file.blocks).stat().st_size
            layers.append(Descriptor(block_index.MEDIA_TYPE, file.blocks, size, notes))
            continue
        step = f"indexing {file.path}"
        data = block_index.index_file(layout.blob_path(file.digest), partial(tell, step))
        entry = layout.add(data, block_index.MEDIA_TYPE, notes)
        if entry.digest == file.blocks:
            layers.append(entry)
            lacking = True
    if lacking:
        _refer(layout, package, block_index.MEDIA_TYPE, layers, {})


def _refer(
    layout: Layout,
    package: Package,
    kind: str,
    layers: Sequence[Descriptor],
    notes: dict[str, str],
) -> None:
    config = layout.add(EMPTY_JSON, EMPTY)
    top = package.descriptor
    subject = Descriptor(top.media_type, top.digest, top.size)
    layout.hold(layout.add_document(Manifest(config, tuple(layers), kind, notes, subject)))


def _named(layer: Descriptor) -> bool:
    try:
        check_digest(layer.annotations.get(FROM, ""))
        check_digest(layer.annotations.get(TO, ""))
    except BadDigest:
        return False
    return True

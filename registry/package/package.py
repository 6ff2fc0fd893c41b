# SPDX-License-Identifier: Apache-2.0
"""A package in a layout, opened: its variants with their files, all checked by the codec."""

from __future__ import annotations

from dataclasses import dataclass

from registry.oci import MANIFEST, Descriptor, Index, Manifest
from registry.package.errors import NotAPackage, NoVariant
from registry.package.layout import Layout
from registry.package.modelpack import (
    CONFIG_LIMIT,
    About,
    File,
    about_of,
    choose,
    files_of,
    variant_of,
)


@dataclass(frozen=True, slots=True)
class Packed:
    """One variant."""

    descriptor: Descriptor
    manifest: Manifest
    variant: str
    abi: int | None
    files: tuple[File, ...]
    about: About

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)

    def file(self, role: str) -> File | None:
        """The first file of a role."""
        return next((file for file in self.files if file.role == role), None)


@dataclass(frozen=True, slots=True)
class Package:
    """What a tag of a layout names. `descriptor` is what is signed and published."""

    layout: Layout
    descriptor: Descriptor
    index: Index
    variants: tuple[Packed, ...]

    @property
    def about(self) -> About:
        """What the first variant says; all say the same of the model."""
        return self.variants[0].about

    @property
    def files(self) -> dict[str, File]:
        """Every file of every variant, by digest."""
        return {file.digest: file for packed in self.variants for file in packed.files}

    def choose(self, abi: int | None) -> Packed:
        """As modelpack.choose. Raises NoVariant."""
        digest = choose(self.index, abi).digest
        return next(v for v in self.variants if v.descriptor.digest == digest)

    def named(self, variant: str) -> Packed:
        """The first of a variant. Raises NoVariant."""
        for packed in self.variants:
            if packed.variant == variant:
                return packed
        there = ", ".join(packed.variant for packed in self.variants)
        raise NoVariant(f"the package has no variant {variant!r}; it has {there}")


def open_package(layout: Layout, tag: str = "") -> Package:
    """The package that a tag (or a digest) names: an index, or the manifest of one variant.

    Raises NotFound, WrongDigest, NotAPackage and what files_of raises.
    """
    descriptor = layout.resolve(tag)
    document = layout.manifest(descriptor)
    if isinstance(document, Manifest):
        document = Index((_as_entry(descriptor, document),))
    entries = [entry for entry in document.manifests if entry.media_type == MANIFEST]
    if not entries:
        raise NotAPackage(f"{layout.path} {tag}: the index names no model")
    variants = tuple(_opened(layout, entry) for entry in entries)
    names = {packed.about.name for packed in variants}
    if len(names) != 1:
        raise NotAPackage(f"{layout.path} {tag}: variants of several models, {sorted(names)}")
    return Package(layout, descriptor, document, variants)


def _as_entry(descriptor: Descriptor, manifest: Manifest) -> Descriptor:
    return Descriptor(MANIFEST, descriptor.digest, descriptor.size, manifest.annotations)


def _opened(layout: Layout, entry: Descriptor) -> Packed:
    manifest = layout.manifest(entry)
    if not isinstance(manifest, Manifest):
        raise NotAPackage(f"{entry.digest} in {layout.path} is an index inside an index")
    files = tuple(files_of(manifest))
    config = layout.read(manifest.config.digest, CONFIG_LIMIT)
    if variant_of(manifest) != variant_of(entry):
        raise NotAPackage(f"{entry.digest}: the index calls it another variant than it is itself")
    return Packed(entry, manifest, *variant_of(manifest), files, about_of(manifest, config))

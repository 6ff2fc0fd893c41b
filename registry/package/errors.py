# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a package, a layout or golden vectors."""

from registry.errors import RegistryError


class PackageError(RegistryError):
    """The base of them all."""


class NotAPackage(PackageError):
    """A manifest or an index that is not one of a model as this software packs models."""


class PackedLayer(PackageError):
    """A layer that would have to be expanded: tar, gzip, zstd, zip. None is ever opened."""


class UnsafePath(PackageError):
    """A layer's filepath that leaves the model's folder, or that two layers share."""


class NoVariant(PackageError):
    """The package holds nothing that this node can run."""


class BadLayout(PackageError):
    """Not an OCI image layout, or one that is damaged."""


class BadGolden(PackageError):
    """Golden vectors that cannot be read or made."""


class NotPackable(PackageError):
    """The folder or file is not a model that can be packed."""

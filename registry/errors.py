# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with packages, registries and trust. Messages name the thing; `remedy` says
what to do about it."""


class RegistryError(Exception):
    """The base of them all."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class BadDigest(RegistryError):
    """Not a sha256 digest, or one that would leave its folder."""


class BadReference(RegistryError):
    """Not of the form REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…"""


class BadManifest(RegistryError):
    """A manifest or an index that does not parse, is too large, or names what it must not."""


class WrongDigest(RegistryError):
    """The bytes are not those that the digest names."""


class WrongSize(RegistryError):
    """More bytes than were promised, or fewer."""


class NotFound(RegistryError):
    """There is no such package, tag, blob or file."""

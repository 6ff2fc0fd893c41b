# SPDX-License-Identifier: Apache-2.0
"""Names of packages: REGISTRY/NAME:TAG (OCI Distribution Specification 1.1, Pull)."""

import re
from dataclasses import dataclass

from registry.digest import check_digest
from registry.errors import BadReference

_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/\s]+):(\d{1,5})")
_EXAMPLE = "write REGISTRY/NAME:TAG, for example registry.example:5000/vision/digits:1.0"


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, an IPv6 address in brackets; port 0 is a free one. Raises
    BadReference."""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise BadReference(f"{text!r} is not HOST:PORT", "write for example 0.0.0.0:5000")
    return match[1].strip("[]"), int(match[2])


def check_name(name: str) -> str:
    """`name`, if it may name a repository; raises BadReference. It never leaves a folder."""
    if len(name) > 255 or not _NAME.fullmatch(name):
        raise BadReference(
            f"{name[:80]!r} cannot name a repository",
            "use lower-case words joined by '.', '_', '-' or '/'",
        )
    return name


def check_tag(tag: str) -> str:
    """`tag`, if it may be a tag; raises BadReference."""
    if not _TAG.fullmatch(tag):
        raise BadReference(
            f"{tag[:80]!r} cannot be a tag", "use at most 128 letters, digits, '.', '_' or '-'"
        )
    return tag


@dataclass(frozen=True, slots=True)
class Reference:
    """A package in a registry. `digest` wins over `tag` where both are given."""

    registry: str  # HOST[:PORT]
    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.name}{tag}{'@' + self.digest if self.digest else ''}"

    @property
    def target(self) -> str:
        """What stands in the URL of a manifest."""
        return self.digest or self.tag


def parse_reference(text: str, default_tag: str = "latest") -> Reference:
    """REGISTRY/NAME[:TAG][@DIGEST]; raises BadReference. `oci://` and `docker://` may lead."""
    bare = text.removeprefix("oci://").removeprefix("docker://")
    registry, slash, rest = bare.partition("/")
    rest, at, digest = rest.partition("@")
    name, colon, tag = rest.partition(":")
    if not slash or not name or not _HOST.fullmatch(registry):
        raise BadReference(f"{text!r} is not a reference to a package", _EXAMPLE)
    if at:
        check_digest(digest)
    if colon:
        check_tag(tag)
    elif not at:
        tag = default_tag
    return Reference(registry, check_name(name), tag, digest)

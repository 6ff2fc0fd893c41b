# SPDX-License-Identifier: Apache-2.0
"""Roles, the names of what they speak for, and limits: what publisher and node agree on."""

from __future__ import annotations

import re

from tuf.ngclient import UpdaterConfig

from registry.reference import check_name, check_tag
from registry.trust.errors import BadRequest

ROOT = "root"
TARGETS = "targets"
SNAPSHOT = "snapshot"
TIMESTAMP = "timestamp"
DESIRED = "desired"  # delegated by targets; its key is online
ROLES = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS, DESIRED)  # in the order of checking (TUF 5.3 to 5.6)
OFFLINE = (ROOT, TARGETS)
ONLINE = (SNAPSHOT, TIMESTAMP, DESIRED)

DESIRED_PATHS = ("desired/*",)
SIGNED_AT = "x-tepi-signed-at"  # seconds since 1970, in the timestamp: this time has passed

DOCUMENT_LIMIT = 1 << 20  # bytes of a ring's document
LIMITS = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=4,
    root_max_length=512_000,
    timestamp_max_length=16_384,
    snapshot_max_length=2_000_000,
    targets_max_length=16_000_000,
    prefix_targets_with_hash=True,
    app_user_agent="tepi",
)

_RING = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")


def check_ring(ring: str) -> str:
    """`ring`, if it may name a ring; raises BadRequest. What passes is safe as a file name."""
    if not _RING.fullmatch(ring):
        raise BadRequest(
            f"{ring[:80]!r} cannot name a ring",
            "use at most 64 lower-case letters, digits, '.', '_' or '-'",
        )
    return ring


def model_target(name: str, tag: str) -> str:
    """The target that stands for a package. A tag has no '/', so the two never run together.
    Raises BadReference."""
    return f"models/{check_name(name)}/{check_tag(tag)}"


def split_model_target(path: str) -> tuple[str, str]:
    """Name and tag of a package's target, ('', '') where it is no package's."""
    kind, _, rest = path.partition("/")
    name, _, tag = rest.rpartition("/")
    return (name, tag) if kind == "models" else ("", "")


def desired_target(ring: str) -> str:
    """The target that holds a ring's desired state. Raises BadRequest."""
    return f"desired/{check_ring(ring)}.json"


def split_package(text: str) -> tuple[str, str, str]:
    """(name, tag, digest or '') of NAME:TAG[@DIGEST]; raises BadReference, BadRequest."""
    rest, _, digest = text.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon:
        raise BadRequest(f"{text!r} has no tag", "write NAME:TAG, for example vision/digits:1.0")
    return check_name(name), check_tag(tag), digest

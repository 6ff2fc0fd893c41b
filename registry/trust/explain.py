# SPDX-License-Identifier: Apache-2.0
"""Which attack it was: the library's error and what came last, turned into an error of ours.

python-tuf decides whether metadata is good; this only gives a name to why not. It reads what the
library has verified from the scratch folder, and what the source sent from `Seen`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp

from registry.trust.errors import (
    BadMetadata,
    BadRoot,
    BelowThreshold,
    Expired,
    Freeze,
    MixAndMatch,
    Rollback,
    SourceDown,
    TrustError,
    UnknownKey,
    WrongDigest,
)
from registry.trust.names import DESIRED, ROLES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP


@dataclass(slots=True)
class Seen:
    """What a source has sent. `role` is the one asked for last, '' before the first."""

    source: str
    role: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


def expired(role: str, expires: float, where: str) -> TrustError:
    """The error for metadata whose time is over."""
    when = datetime.datetime.fromtimestamp(expires, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if role == TIMESTAMP:
        return Freeze(f"{where}: the timestamp expired on {when}")
    return Expired(f"{where}: the metadata of role {role} expired on {when}")


def explain(error: Exception, seen: Seen, scratch: Path, now: float) -> TrustError:
    """The error of ours for one that the walk met."""
    role, where = seen.role, seen.source
    if not role:
        return BadRoot(f"the root that this node was given does not verify: {error}")
    if isinstance(error, DownloadHTTPError):
        return SourceDown(f"{where} has no metadata of role {role}", "copy it there as a whole")
    if isinstance(error, DownloadError):
        return SourceDown(f"{where}: {error}")
    if isinstance(error, ExpiredMetadataError):
        return _expired(seen, scratch, now)
    if isinstance(error, UnsignedMetadataError):
        return _unsigned(seen, scratch)
    if isinstance(error, LengthOrHashMismatchError):
        return _mismatch(error, seen)
    if isinstance(error, BadVersionNumberError):
        return _version(error, seen, scratch)
    if role == SNAPSHOT and _read(seen.files.get(role)) is not None:
        return MixAndMatch(f"{where}: the snapshot does not go with what came before: {error}")
    cause = error.__cause__ or error
    if isinstance(error, RepositoryError) and not error.__cause__:
        return BadMetadata(f"{where}: the metadata of role {role}: {error}")
    return BadMetadata(
        f"{where}: the metadata of role {role} cannot be read: {type(cause).__name__}: {cause}"
    )


def _expired(seen: Seen, scratch: Path, now: float) -> TrustError:
    """The first role in the order of checking whose time is over: an expired timestamp shows only
    when the snapshot is looked at."""
    when = datetime.datetime.fromtimestamp(now, datetime.UTC)
    for role in ROLES:
        signed = _signed(role, seen, scratch)
        if signed is not None and signed.is_expired(when):
            return expired(role, signed.expires.timestamp(), seen.source)
    return Expired(f"{seen.source}: the metadata of role {seen.role} has expired")


def _unsigned(seen: Seen, scratch: Path) -> TrustError:
    metadata = _read(seen.files.get(seen.role))
    delegator = _local(TARGETS if seen.role == DESIRED else ROOT, scratch)
    if metadata is None or not isinstance(delegator, Root | Targets):
        return BadMetadata(f"{seen.source}: the metadata of role {seen.role} cannot be read")
    judges = [delegator]
    if seen.role == ROOT and isinstance(metadata.signed, Root):
        judges.append(metadata.signed)  # signed by the old threshold and the new (TUF 5.3.4)
    for judge in judges:
        result = judge.get_verification_result(
            seen.role, metadata.signed_bytes, metadata.signatures
        )
        if result.verified:
            continue
        if not result.signed:
            signers = ", ".join(keyid[:8] for keyid in metadata.signatures) or "none"
            return UnknownKey(
                f"{seen.source}: the metadata of role {seen.role} has no good signature of a key "
                f"of that role; it carries those of {signers}"
            )
        return BelowThreshold(
            f"{seen.source}: the metadata of role {seen.role} has {len(result.signed)} good "
            f"signatures of the {result.threshold} that it needs"
        )
    return BadMetadata(f"{seen.source}: the signatures of role {seen.role} do not verify")


def _mismatch(error: Exception, seen: Seen) -> TrustError:
    """Bytes that are metadata, but not those that the layer above names."""
    metadata = _read(seen.files.get(seen.role))
    above = TIMESTAMP if seen.role == SNAPSHOT else SNAPSHOT
    if metadata is not None and metadata.signatures:
        return MixAndMatch(
            f"{seen.source}: version {metadata.signed.version} of role {seen.role} is not the one "
            f"that the {above} names"
        )
    return WrongDigest(f"{seen.source}: the metadata of role {seen.role}: {error}")


def _version(error: Exception, seen: Seen, scratch: Path) -> TrustError:
    role, where = seen.role, seen.source
    sent = _read(seen.files.get(role))
    version = sent.signed.version if sent is not None else 0
    if role == SNAPSHOT and sent is not None:
        timestamp = _local(TIMESTAMP, scratch)
        if isinstance(timestamp, Timestamp) and timestamp.snapshot_meta.version != version:
            return MixAndMatch(
                f"{where}: version {version} of the snapshot is not version "
                f"{timestamp.snapshot_meta.version}, which the timestamp names"
            )
        older = _local(SNAPSHOT, scratch)
        if isinstance(older, Snapshot) and isinstance(sent.signed, Snapshot):
            for name, meta in older.meta.items():
                now = sent.signed.meta.get(name)
                if now is not None and now.version < meta.version:
                    return Rollback(
                        f"{where}: the snapshot names version {now.version} of "
                        f"{name.removesuffix('.json')}; this node has seen version {meta.version}"
                    )
    before = _local(TIMESTAMP, scratch)
    if role == TIMESTAMP and isinstance(before, Timestamp) and version > before.version:
        return Rollback(
            f"{where}: the timestamp names an older snapshot than version "
            f"{before.snapshot_meta.version}, which this node has seen"
        )
    if role in (TARGETS, DESIRED):
        return MixAndMatch(f"{where}: the metadata of role {role}: {error}")
    held = _local(role, scratch)
    seen_here = f"version {held.version}, which this node has seen" if held else "what it follows"
    return Rollback(f"{where}: version {version} of role {role} does not go on from {seen_here}")


def _read(data: bytes | None) -> Metadata | None:  # type: ignore[type-arg]
    try:
        return Metadata.from_bytes(data) if data is not None else None
    except RepositoryError:
        return None


def _local(role: str, scratch: Path) -> Signed | None:
    """What the library has verified of a role."""
    path = scratch / f"{role}.json"
    metadata = _read(path.read_bytes()) if path.exists() else None
    return metadata.signed if metadata is not None else None


def _signed(role: str, seen: Seen, scratch: Path) -> Signed | None:
    """What the source sent of a role, else what was there. A root that came is there if it is
    good, and a root of the source's that is not good decides nothing."""
    metadata = _read(seen.files.get(role)) if role != ROOT else None
    return metadata.signed if metadata is not None else _local(role, scratch)

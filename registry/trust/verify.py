# SPDX-License-Identifier: Apache-2.0
"""One walk through a source's metadata (TUF 5.3 to 5.7), by python-tuf's Updater.

The walk works in a scratch folder on a copy of what was good before, so a walk that fails, or is
cut off, changes nothing. What it verified comes back as bytes, to be kept as a whole.
"""

from __future__ import annotations

import datetime
import errno
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Targets
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from registry.trust.errors import BadMetadata, NotDesired, TrustError, WrongDigest
from registry.trust.explain import Seen, explain
from registry.trust.names import (
    DESIRED,
    DOCUMENT_LIMIT,
    LIMITS,
    ROLES,
    ROOT,
    SIGNED_AT,
    TARGETS,
    TIMESTAMP,
    desired_target,
)
from registry.trust.sources import MetadataSource, Missing, too_large

# What a hostile file can make the library raise besides its own errors: it takes values of types
# that it did not expect some way before they fail.
BY_BAD_VALUES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Walk:
    """What one source led to. `roots` maps versions to bytes, `files` the other roles to bytes,
    `signed` all roles to what they say; `document` is the ring's, None where the desired role has
    none. With an `error` only `roots` is good."""

    roots: Mapping[int, bytes]
    files: Mapping[str, bytes] = field(default_factory=dict)
    signed: Mapping[str, Signed] = field(default_factory=dict)
    document: bytes | None = None
    error: TrustError | None = None

    @property
    def root(self) -> Root:
        """The newest root."""
        signed = self.signed[ROOT]
        assert isinstance(signed, Root)
        return signed

    @property
    def signed_at(self) -> float:
        """When the timestamp was signed, in seconds since 1970; 0 where it does not say. Raises
        BadMetadata."""
        found = self.signed[TIMESTAMP].unrecognized_fields.get(SIGNED_AT, 0)
        if not isinstance(found, int) or not 0 <= found < 1 << 37:  # until the year 6325
            raise BadMetadata(f"the timestamp says that it was signed at {str(found)[:40]}")
        return float(found)

    @property
    def targets(self) -> Targets:
        """What is vouched for."""
        signed = self.signed[TARGETS]
        assert isinstance(signed, Targets)
        return signed


class _Fetcher(FetcherInterface):
    """Between the Updater and a source; remembers what came last, for the explanation."""

    def __init__(self, source: MetadataSource, seen: Seen) -> None:
        self._source = source
        self._seen = seen

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, LIMITS.targets_max_length)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The whole file, its size checked as it comes. Raises DownloadHTTPError, TrustError."""
        path = url.removeprefix("./")
        role = path.removesuffix(".json").rpartition("/")[2].rpartition(".")[2]
        self._seen.role = role
        try:
            data = self._source.get(path, max_length)
        except Missing:
            raise DownloadHTTPError(f"{path} is not there", 404) from None
        if len(data) > max_length:  # a source may be careless
            raise too_large(self._source.name, path, max_length)
        self._seen.files[role] = data
        return data


def walk(
    source: MetadataSource,
    root: bytes,
    kept_roots: Mapping[int, bytes],
    kept: Mapping[str, bytes],
    ring: str,
    now: float,
    folder: Path,
) -> Walk:
    """Follow `source` from the shipped `root` over what was kept. `now` is in seconds since 1970.
    Never raises TrustError: a failed walk carries it. Raises OSError of the scratch folder."""
    with tempfile.TemporaryDirectory(prefix="walk-", dir=folder) as name:
        scratch = Path(name)
        _lay_out(scratch, kept_roots, kept)
        seen = Seen(source.name)
        error: TrustError | None = None
        files: dict[str, bytes] = {}
        signed: dict[str, Signed] = {}
        document: bytes | None = None
        try:
            updater = Updater(
                str(scratch),
                "./metadata/",
                fetcher=_Fetcher(source, seen),
                config=LIMITS,
                bootstrap=root,
            )
            # The library takes the machine's clock as it is made; ours is passed in.
            updater._trusted_set.reference_time = datetime.datetime.fromtimestamp(now, datetime.UTC)
            document = _follow(updater, source, ring)
            read = {role: (scratch / f"{role}.json").read_bytes() for role in ROLES}
            signed = {role: Metadata[Any].from_bytes(data).signed for role, data in read.items()}
            files = {role: read[role] for role in ROLES if role != ROOT}
        except TrustError as found:
            error = found
        except (RepositoryError, DownloadError, *BY_BAD_VALUES) as found:
            error = explain(found, seen, scratch, now)
        except OSError as found:
            if found.errno != errno.ENAMETOOLONG:  # the library names files after delegated roles
                raise
            error = BadMetadata(f"{source.name}: a role has a name too long for a file")
        return Walk(_roots(scratch), files, signed, document, error)


def _follow(updater: Updater, source: MetadataSource, ring: str) -> bytes | None:
    updater.refresh()
    target = desired_target(ring)
    info = updater.get_targetinfo(target)
    if DESIRED not in updater._trusted_set:  # else what was kept of it would pass for verified
        raise BadMetadata(f"{source.name}: the targets role does not delegate to {DESIRED}")
    if info is None:
        return None
    limit = min(info.length, DOCUMENT_LIMIT)
    path = f"targets/{info.get_prefixed_paths()[0]}"
    try:
        data = source.get(path, limit)
    except Missing:
        raise NotDesired(
            f"{source.name}: {path} is not there, though the desired role names it",
            "copy the registry's tuf folder as a whole, or use another source",
        ) from None
    if len(data) > limit:
        raise too_large(source.name, path, limit)
    try:
        info.verify_length_and_hashes(data)
    except RepositoryError as error:
        raise WrongDigest(f"{source.name}: {path}: {error}") from None
    return data


def _lay_out(scratch: Path, roots: Mapping[int, bytes], kept: Mapping[str, bytes]) -> None:
    """As the Updater expects its own folder."""
    history = scratch / "root_history"
    history.mkdir()
    for version, data in roots.items():
        (history / f"{version}.root.json").write_bytes(data)
    for role, data in kept.items():
        (scratch / f"{role}.json").write_bytes(data)


def _roots(scratch: Path) -> dict[int, bytes]:
    """The chain that was verified: up to the one that `root.json` points to."""
    newest = scratch / f"{ROOT}.json"
    if not newest.exists():
        return {}
    last = int(newest.resolve().name.partition(".")[0])
    return {
        version: (scratch / "root_history" / f"{version}.root.json").read_bytes()
        for version in range(1, last + 1)
        if (scratch / "root_history" / f"{version}.root.json").exists()
    }

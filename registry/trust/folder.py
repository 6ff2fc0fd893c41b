# SPDX-License-Identifier: Apache-2.0
"""The metadata of a registry on disk: `tuf/metadata` and `tuf/targets`, which are served to nodes,
`tuf/pending` for what lacks signatures, `tuf/settings.json`, and `keys` for the online keys.

Writing goes from what is named to what names it: documents, targets and desired, root, snapshot,
and the timestamp last (TUF 7, consistent snapshots). Until the timestamp is in place nodes see the
former state; a file that an interruption left is written over by the next attempt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from registry.trust.desired import Desired, parse_desired
from registry.trust.durable import write_whole
from registry.trust.errors import NotARegistry, TrustError
from registry.trust.names import DESIRED, OFFLINE, ROLES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP

DAY = 86_400
EXPIRY = {ROOT: 365 * DAY, TARGETS: 365 * DAY, SNAPSHOT: 7 * DAY, TIMESTAMP: DAY, DESIRED: 7 * DAY}


@dataclass(frozen=True, slots=True)
class Current:
    """What is published. `documents` maps targets to the bytes of the rings' documents."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    desired: Metadata[Targets]
    documents: Mapping[str, bytes] = field(default_factory=dict)

    def of(self, role: str) -> Metadata[Any]:
        """The metadata of a role."""
        found: Metadata[Any] = getattr(self, role)
        return found

    def rings(self) -> dict[str, Desired]:
        """What each ring is to run. Raises BadMetadata."""
        expires = self.desired.signed.expires.timestamp()
        found = {}
        for path, data in self.documents.items():
            ring = path.removeprefix("desired/").removesuffix(".json")
            found[ring] = parse_desired(data, ring, expires)
        return found


class RegistryFolder:
    """The folder of a registry. Raises OSError throughout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = path / "tuf" / "metadata"
        self.targets = path / "tuf" / "targets"
        self.pending_folder = path / "tuf" / "pending"
        self.online_keys = path / "keys"
        self.lock = path / "tuf" / ".lock"
        self._settings = path / "tuf" / "settings.json"

    @property
    def exists(self) -> bool:
        """Whether there is a registry."""
        return (self.metadata / "timestamp.json").exists()

    def current(self) -> Current:
        """What is published, by following the timestamp. Raises NotARegistry."""
        root = self._read(self._newest_root())
        timestamp = self._read(self.metadata / "timestamp.json")
        version = timestamp.signed.snapshot_meta.version
        snapshot = self._read(self.metadata / f"{version}.snapshot.json")
        lower = {
            role: self._read(
                self.metadata / f"{snapshot.signed.meta[f'{role}.json'].version}.{role}.json"
            )
            for role in (TARGETS, DESIRED)
        }
        documents = {}
        for path, info in lower[DESIRED].signed.targets.items():
            try:
                documents[path] = (self.targets / info.get_prefixed_paths()[0]).read_bytes()
                info.verify_length_and_hashes(documents[path])
            except (OSError, RepositoryError) as error:
                raise NotARegistry(f"{self.path}: {path}: {error}", _RESTORE) from None
        return Current(root, timestamp, snapshot, lower[TARGETS], lower[DESIRED], documents)

    def root(self, version: int) -> bytes:
        """The bytes of a root."""
        return (self.metadata / f"{version}.root.json").read_bytes()

    def pending(self, role: str) -> Metadata[Any] | None:
        """What of a role waits for signatures. Raises NotARegistry."""
        path = self.pending_path(role)
        return self._read(path) if path.exists() else None

    def pending_path(self, role: str) -> Path:
        """Where it waits: the file may be copied to a key holder and back."""
        return self.pending_folder / f"{role}.json"

    def set_pending(self, role: str, metadata: Metadata[Any] | None) -> None:
        """Let it wait, or let nothing wait."""
        assert role in OFFLINE
        if metadata is None:
            self.pending_path(role).unlink(missing_ok=True)
        else:
            write_whole(self.pending_path(role), metadata.to_bytes())

    def write(self, found: Mapping[str, tuple[int, bytes]], documents: Mapping[str, bytes]) -> None:
        """Publish: `found` maps roles to version and bytes, `documents` paths under
        `tuf/targets` to bytes."""
        for path, data in documents.items():
            write_whole(self.targets / path, data)
        for role in (TARGETS, DESIRED, ROOT, SNAPSHOT, TIMESTAMP):
            if role in found:
                version, data = found[role]
                name = f"{role}.json" if role == TIMESTAMP else f"{version}.{role}.json"
                write_whole(self.metadata / name, data)

    def expiry(self) -> dict[str, int]:
        """How long metadata of each role lives, in seconds. Raises NotARegistry."""
        try:
            held = json.loads(self._settings.read_bytes())["expiry_seconds"]
            return EXPIRY | {role: int(held[role]) for role in ROLES if role in held}
        except FileNotFoundError:
            return dict(EXPIRY)
        except (ValueError, LookupError, TypeError) as error:
            raise NotARegistry(f"{self._settings} cannot be read: {error!r}", _RESTORE) from None

    def set_expiry(self, expiry: Mapping[str, int]) -> None:
        """Keep how long metadata lives from now on."""
        body = {"format": 1, "expiry_seconds": dict(expiry)}
        write_whole(self._settings, json.dumps(body, indent=1).encode())

    def _newest_root(self) -> Path:
        versions = [
            int(path.name.partition(".")[0])
            for path in self.metadata.glob("*.root.json")
            if path.name.partition(".")[0].isdecimal()
        ]
        if not versions:
            raise NotARegistry(f"{self.path} holds no registry")
        return self.metadata / f"{max(versions)}.root.json"

    def _read(self, path: Path) -> Metadata[Any]:
        try:
            return read_metadata(path)
        except (FileNotFoundError, TrustError) as error:
            raise NotARegistry(f"{path}: {error}", _RESTORE) from None


_RESTORE = "restore the folder from a copy: what nodes have seen cannot be made again"


def read_metadata(path: Path) -> Metadata[Any]:
    """The metadata in a file. Raises NotARegistry, OSError."""
    try:
        return Metadata[Any].from_bytes(path.read_bytes())
    except RepositoryError as error:
        raise NotARegistry(f"{path} is not metadata: {error.__cause__ or error}") from None

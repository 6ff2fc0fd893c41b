# SPDX-License-Identifier: Apache-2.0
"""What an attacker can make: a copy of a registry, changed, and signed with the keys he stole."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from registry.trust.desired import Desired
from registry.trust.folder import Current, RegistryFolder
from registry.trust.keys import load_key
from registry.trust.names import DESIRED, SNAPSHOT, TARGETS, TIMESTAMP, desired_target

Edit = Callable[[Any], None]


def nothing(_signed: Any) -> None:
    """Signs it anew, no more."""


def sign(metadata: Metadata[Any], role: str, *stolen: Path) -> None:
    """With every key of the role in these folders, in place of the signatures it has."""
    metadata.signatures.clear()
    for folder in stolen:
        for path in sorted(folder.glob(f"{role}-*.pem")):
            metadata.sign(load_key(path), append=True)


def forge(mirror: Path, edits: Mapping[str, Edit], *stolen: Path) -> None:
    """Change the roles of `edits` and all that must name the change; each gets the next version
    unless its edit says another. What no stolen key can sign carries no signature."""
    folder = RegistryFolder(mirror)
    current = folder.current()
    changed: dict[str, bytes] = {}
    for role in (TARGETS, DESIRED, SNAPSHOT, TIMESTAMP):
        if role not in edits and not (role in (SNAPSHOT, TIMESTAMP) and changed):
            continue
        metadata = copy.deepcopy(current.of(role))
        signed = metadata.signed
        signed.version += 1
        if role == SNAPSHOT:
            for name, data in changed.items():
                version = Metadata[Any].from_bytes(data).signed.version
                signed.meta[f"{name}.json"] = MetaFile.from_data(version, data, ["sha256"])
        if role == TIMESTAMP and SNAPSHOT in changed:
            data = changed[SNAPSHOT]
            version = Metadata[Any].from_bytes(data).signed.version
            signed.snapshot_meta = MetaFile.from_data(version, data, ["sha256"])
        edits.get(role, nothing)(signed)
        sign(metadata, role, *stolen)
        changed[role] = metadata.to_bytes()
        name = f"{role}.json" if role == TIMESTAMP else f"{signed.version}.{role}.json"
        (folder.metadata / name).write_bytes(changed[role])


def forge_ring(mirror: Path, desired: Desired, *stolen: Path) -> None:
    """Let a ring's document say this, as one can who has the online keys."""
    data = desired.encode()
    path = desired_target(desired.ring)
    target = TargetFile.from_data(path, data, ["sha256"])
    (mirror / "tuf" / "targets" / target.get_prefixed_paths()[0]).write_bytes(data)

    def edit(signed: Any) -> None:
        signed.targets[path] = target

    forge(mirror, {DESIRED: edit}, *stolen)


def forge_raw(
    mirror: Path, role: str, change: Callable[[dict[str, Any]], None], keys: Path
) -> None:
    """Let a role's metadata say anything at all that JSON can, under good signatures, and let all
    above name it. Raises FormatError, TypeError where it cannot be signed."""
    folder = RegistryFolder(mirror)
    current = folder.current()
    data = _signed_raw(json.loads(current.of(role).to_bytes())["signed"], role, change, keys)
    version = current.of(role).signed.version
    above: dict[str, Edit] = {}

    def name_it(meta: MetaFile, data: bytes) -> None:
        meta.length, meta.hashes = len(data), {"sha256": hashlib.sha256(data).hexdigest()}

    if role == "root":
        (folder.metadata / f"{version + 1}.root.json").write_bytes(data)
        return
    if role == TIMESTAMP:
        (folder.metadata / "timestamp.json").write_bytes(data)
        return
    (folder.metadata / f"{version}.{role}.json").write_bytes(data)
    if role == SNAPSHOT:
        above[TIMESTAMP] = lambda signed: name_it(signed.snapshot_meta, data)
    else:
        above[SNAPSHOT] = lambda signed: name_it(signed.meta[f"{role}.json"], data)
    _forge_above(folder, current, above, keys)


def _signed_raw(
    signed: dict[str, Any], role: str, change: Callable[[dict[str, Any]], None], keys: Path
) -> bytes:
    if role in ("root", TIMESTAMP):
        signed["version"] += 1
    change(signed)
    payload = encode_canonical(signed)
    assert payload is not None
    signatures = [
        load_key(path).sign(payload.encode()).to_dict()
        for path in sorted(keys.glob(f"{role}-*.pem"))
    ]
    return json.dumps({"signed": signed, "signatures": signatures}).encode()


def _forge_above(
    folder: RegistryFolder, current: Current, edits: Mapping[str, Edit], keys: Path
) -> None:
    data = b""
    for role in (SNAPSHOT, TIMESTAMP):
        if role not in edits and not data:
            continue
        metadata = copy.deepcopy(current.of(role))
        metadata.signed.version += 1
        if role in edits:
            edits[role](metadata.signed)
        elif data:
            version = metadata.signed.snapshot_meta.version + 1
            metadata.signed.snapshot_meta = MetaFile.from_data(version, data, ["sha256"])
        sign(metadata, role, keys)
        data = metadata.to_bytes()
        name = f"{role}.json" if role == TIMESTAMP else f"{metadata.signed.version}.{role}.json"
        (folder.metadata / name).write_bytes(data)

# SPDX-License-Identifier: Apache-2.0
"""How a registry begins: its keys, its first root, and empty metadata under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from registry.trust import keys
from registry.trust.errors import AlreadyARegistry, BadRequest
from registry.trust.names import (
    DESIRED,
    DESIRED_PATHS,
    OFFLINE,
    ONLINE,
    ROOT,
    SIGNED_AT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
)
from registry.trust.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Plan:
    """How many keys each offline role has, and how many of them must sign."""

    counts: Mapping[str, int] = field(default_factory=lambda: {ROOT: 3, TARGETS: 1})
    thresholds: Mapping[str, int] = field(default_factory=lambda: {ROOT: 2, TARGETS: 1})

    def check(self) -> None:
        """Raises BadRequest."""
        for role in OFFLINE:
            if not 1 <= self.thresholds[role] <= self.counts[role]:
                raise BadRequest(
                    f"{role} cannot have {self.counts[role]} keys of which "
                    f"{self.thresholds[role]} must sign",
                    "the threshold is at least 1 and at most the number of keys",
                )


def init(
    publisher: Publisher,
    keys_folder: Path,
    plan: Plan,
    expiry: Mapping[str, int],
    passphrase: str = "",
) -> Path:
    """Make keys and the first metadata; returns the root to bring to the nodes. Raises
    AlreadyARegistry, BadRequest. An interruption before the timestamp is written leaves no
    registry: run it again."""
    folder = publisher.folder
    plan.check()
    if folder.exists:
        raise AlreadyARegistry(f"{folder.path} holds a registry already")
    folder.set_expiry(expiry)
    root = Root(expires=publisher.expires(ROOT), consistent_snapshot=True)
    made: dict[str, list[Key]] = {}
    for role in OFFLINE:
        made[role] = [
            keys.make_key(role, keys_folder, passphrase) for _ in range(plan.counts[role])
        ]
        root.roles[role].threshold = plan.thresholds[role]
    for role in ONLINE:
        made[role] = [keys.make_key(role, publisher.online)]
    for role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP):
        for key in made[role]:
            root.add_key(key, role)
    key = made[DESIRED][0]
    delegated = DelegatedRole(DESIRED, [key.keyid], 1, True, list(DESIRED_PATHS))
    delegations = Delegations({key.keyid: key}, {DESIRED: delegated})
    first: dict[str, Metadata[Any]] = {
        ROOT: Metadata(root),
        TARGETS: Metadata(Targets(expires=publisher.expires(TARGETS), delegations=delegations)),
        DESIRED: Metadata(Targets(expires=publisher.expires(DESIRED))),
    }
    homes = {ROOT: keys_folder, TARGETS: keys_folder, DESIRED: publisher.online}
    written: dict[str, tuple[int, bytes]] = {}
    ask: keys.Ask = (lambda _path: passphrase) if passphrase else keys.no_passphrase

    def sign(role: str, metadata: Metadata[Any], home: Path) -> None:
        for signer in keys.load_keys(role, [home], [k.keyid for k in made[role]], ask):
            metadata.sign(signer, append=True)
        written[role] = (1, metadata.to_bytes())

    for role, metadata in first.items():
        sign(role, metadata, homes[role])
    meta = {
        f"{role}.json": MetaFile.from_data(1, written[role][1], ["sha256"])
        for role in (TARGETS, DESIRED)
    }
    snapshot = Snapshot(expires=publisher.expires(SNAPSHOT), meta=meta)
    sign(SNAPSHOT, Metadata(snapshot), publisher.online)
    timestamp = Timestamp(
        expires=publisher.expires(TIMESTAMP),
        snapshot_meta=MetaFile.from_data(1, written[SNAPSHOT][1], ["sha256"]),
        unrecognized_fields={SIGNED_AT: int(publisher.clock())},
    )
    sign(TIMESTAMP, Metadata(timestamp), publisher.online)
    folder.write(written, {})
    return folder.metadata / "1.root.json"

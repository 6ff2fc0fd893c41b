# SPDX-License-Identifier: Apache-2.0
"""The registry's side of trust: makes metadata, changes it, signs it, publishes it.

A change of root or targets needs the threshold of their offline keys. What lacks signatures waits
in `tuf/pending`, where other key holders add theirs; nothing is published before what results
verifies as a whole.
"""

from __future__ import annotations

import copy
import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
    VerificationResult,
)

from registry.trust import keys
from registry.trust.durable import locked
from registry.trust.errors import BadRequest, KeyMissing
from registry.trust.folder import Current, RegistryFolder
from registry.trust.names import (
    DESIRED,
    ROLES,
    ROOT,
    SIGNED_AT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change of an offline role. Where it is not `published` it waits in
    `pending` for more signatures; `have` and `need` count good ones."""

    role: str
    version: int
    published: bool
    have: int
    need: int
    pending: Path | None = None


class Publisher:
    """One change after the other, under the folder's lock: use `with Publisher.opened(...)`.

    `offline` are the folders with the offline keys at hand, `online` that with the online keys;
    `ask` gives the passphrase of a key file. Raises KeyMissing, BadKey, NotARegistry and OSError
    throughout.
    """

    def __init__(
        self,
        folder: RegistryFolder,
        clock: Callable[[], float] = time.time,
        offline: Sequence[Path] = (),
        online: Path | None = None,
        ask: keys.Ask = keys.no_passphrase,
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.offline = offline
        self.online = online if online is not None else folder.online_keys
        self.ask = ask

    @classmethod
    @contextmanager
    def opened(cls, folder: RegistryFolder, *args: Any, **kwargs: Any) -> Iterator[Publisher]:
        """A publisher that holds the lock; raises Busy."""
        with locked(folder.lock, f"the registry in {folder.path}"):
            yield cls(folder, *args, **kwargs)

    def expires(self, role: str) -> datetime.datetime:
        """When metadata of this role that is made now expires."""
        seconds = int(self.clock()) + self.folder.expiry()[role]
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)

    def edit_targets(self, edit: Callable[[Targets], None]) -> list[Outcome]:
        """Change what targets says, sign it with the keys at hand, publish it if that is enough.
        A change that waits already is carried on, and needs its signatures again."""
        targets = self._next(TARGETS)
        edit(targets.signed)
        return self.settle(None, targets)

    def edit_root(self, edit: Callable[[Root], None], with_targets: bool = False) -> list[Outcome]:
        """As edit_targets, of root; `with_targets` signs targets anew as well, for when its keys
        change."""
        root = self._next(ROOT)
        edit(root.signed)
        return self.settle(root, self._next(TARGETS) if with_targets else None)

    def settle(
        self, root: Metadata[Root] | None, targets: Metadata[Targets] | None
    ) -> list[Outcome]:
        """Add the signatures at hand, publish the most that verifies as a whole, let the rest
        wait."""
        current = self.folder.current()
        root = root or self._waiting(ROOT, current)
        targets = targets or self._waiting(TARGETS, current)
        offered: dict[str, Metadata[Any]] = {}
        if root is not None:
            offered[ROOT] = root
            ids = [*current.root.signed.roles[ROOT].keyids, *root.signed.roles[ROOT].keyids]
            self._add_signatures(ROOT, root, ids)
        if targets is not None:
            offered[TARGETS] = targets
            judge = (root or current.root).signed
            ids = [*current.root.signed.roles[TARGETS].keyids, *judge.roles[TARGETS].keyids]
            self._add_signatures(TARGETS, targets, ids)
        chosen = _choose(current, root, targets)
        for role in offered:  # an interruption between root and targets is made good from here
            self.folder.set_pending(role, offered[role])
        if chosen:
            self.publish(current, {role: offered[role] for role in chosen})
        for role in chosen:
            self.folder.set_pending(role, None)
        judge = (root or current.root).signed
        return [
            self._outcome(current, role, metadata, role in chosen, judge)
            for role, metadata in offered.items()
        ]

    def _outcome(
        self,
        current: Current,
        role: str,
        metadata: Metadata[Any],
        published: bool,
        judge: Root,
    ) -> Outcome:
        results = results_of(role, metadata, current.root.signed, judge)
        worst = min(results, key=lambda result: len(result.signed) - result.threshold)
        path = None if published else self.folder.pending_path(role)
        version = metadata.signed.version
        return Outcome(role, version, published, len(worst.signed), worst.threshold, path)

    def publish(
        self,
        current: Current,
        changed: Mapping[str, Metadata[Any]],
        documents: Mapping[str, bytes] | None = None,
        within: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Publish what `changed` by role, with what must be signed anew by the online keys: what
        names a change, what the root or targets would no longer verify, what of a role expires
        `within` so many seconds. `documents` maps paths to bytes. Returns the roles
        that were signed anew."""
        found: dict[str, tuple[int, bytes]] = {}
        root = changed.get(ROOT, current.root)
        targets = changed.get(TARGETS, current.targets)
        desired = changed.get(DESIRED, current.desired)
        spans = within or {}

        def poor(judge: Root | Targets, role: str, metadata: Metadata[Any]) -> bool:
            seconds = self.clock() + spans.get(role, 0.0)
            return _poor(
                judge, role, metadata, datetime.datetime.fromtimestamp(seconds, datetime.UTC)
            )

        if DESIRED in changed or poor(targets.signed, DESIRED, desired):
            desired = self._renew(DESIRED, desired, current.desired, targets.signed)
        for role, metadata in ((ROOT, root), (TARGETS, targets), (DESIRED, desired)):
            if metadata is not current.of(role):
                found[role] = (metadata.signed.version, metadata.to_bytes())
        snapshot: Metadata[Snapshot] = current.snapshot
        below = {role: found[role] for role in (TARGETS, DESIRED) if role in found}
        if below or poor(root.signed, SNAPSHOT, snapshot):
            snapshot = copy.deepcopy(snapshot)
            for role, (version, data) in below.items():
                snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
            snapshot = self._renew(SNAPSHOT, snapshot, current.snapshot, root.signed)
            found[SNAPSHOT] = (snapshot.signed.version, snapshot.to_bytes())
        timestamp: Metadata[Timestamp] = current.timestamp
        if SNAPSHOT in found or poor(root.signed, TIMESTAMP, timestamp):
            timestamp = copy.deepcopy(timestamp)
            if SNAPSHOT in found:
                version, data = found[SNAPSHOT]
                timestamp.signed.snapshot_meta = MetaFile.from_data(version, data, ["sha256"])
            timestamp.signed.unrecognized_fields[SIGNED_AT] = int(self.clock())
            timestamp = self._renew(TIMESTAMP, timestamp, current.timestamp, root.signed)
            found[TIMESTAMP] = (timestamp.signed.version, timestamp.to_bytes())
        self.folder.write(found, documents or {})
        return [role for role in ROLES if role in found]

    def _waiting(self, role: str, current: Current) -> Metadata[Any] | None:
        """What waits for signatures. An interruption may have left what was published since."""
        found = self.folder.pending(role)
        new = found is not None and found.signed.version > current.of(role).signed.version
        return found if new else None

    def _next(self, role: str) -> Metadata[Any]:
        """The next version of an offline role, unsigned: what waits, else a copy of what is
        published."""
        current = self.folder.current()
        published = current.of(role)
        metadata: Metadata[Any] = copy.deepcopy(self._waiting(role, current) or published)
        metadata.signatures.clear()
        metadata.signed.version = published.signed.version + 1
        metadata.signed.expires = self.expires(role)
        return metadata

    def _renew(
        self, role: str, metadata: Metadata[Any], before: Metadata[Any], judge: Root | Targets
    ) -> Metadata[Any]:
        """The next version of an online role, signed."""
        metadata = copy.deepcopy(metadata)
        metadata.signatures.clear()
        metadata.signed.version = before.signed.version + 1
        metadata.signed.expires = self.expires(role)
        held = judge.get_delegated_role(role)
        signers = keys.load_keys(role, [self.online], held.keyids, self.ask)
        if len(signers) < held.threshold:
            wanted = ", ".join(keyid[:8] for keyid in held.keyids)
            raise KeyMissing(f"{self.online} holds {len(signers)} keys of {role} of {wanted}")
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata

    def _add_signatures(self, role: str, metadata: Metadata[Any], ids: Iterable[str]) -> None:
        for signer in keys.load_keys(role, self.offline, ids, self.ask):
            metadata.sign(signer, append=True)


def results_of(
    role: str, metadata: Metadata[Any], old: Root, new: Root
) -> list[VerificationResult]:
    """How far the signatures of an offline role go: a root by the old root and by itself."""
    judges = [old, metadata.signed] if role == ROOT else [new]
    payload = metadata.signed_bytes
    return [judge.get_verification_result(role, payload, metadata.signatures) for judge in judges]


def _choose(
    current: Current, root: Metadata[Root] | None, targets: Metadata[Targets] | None
) -> tuple[str, ...]:
    """The most of what waits that can be published so that all that results verifies."""
    for roles in ((ROOT, TARGETS), (ROOT,), (TARGETS,)):
        new_root = root if ROOT in roles else current.root
        new_targets = targets if TARGETS in roles else current.targets
        if new_root is None or new_targets is None:
            continue
        good = all(results_of(TARGETS, new_targets, new_root.signed, new_root.signed))
        if ROOT in roles:
            good = good and all(results_of(ROOT, new_root, current.root.signed, new_root.signed))
        if good:
            return roles
    return ()


def _poor(
    judge: Root | Targets, role: str, metadata: Metadata[Any], soon: datetime.datetime
) -> bool:
    """Whether it must be signed anew."""
    result = judge.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    return not result.verified or metadata.signed.is_expired(soon)


def add_package(
    targets: Targets, path: str, digest: str, size: int, custom: Mapping[str, Any]
) -> None:
    """Let targets vouch for a package. Raises BadRequest where it vouches for another of the same
    name and tag: a tag that changes its meaning is what signatures are to prevent."""
    held = targets.targets.get(path)
    hashes = {"sha256": digest.removeprefix("sha256:")}
    if held is not None and held.hashes != hashes:
        raise BadRequest(
            f"{path} is vouched for as sha256:{held.hashes.get('sha256')}, not as {digest}",
            "give the package another tag, or take the old one back with `tepi registry revoke`",
        )
    fields = {"custom": dict(custom)} if custom else {}
    targets.targets[path] = TargetFile(size, hashes, path, fields)


def role_of_key(current: Current, keyid: str) -> tuple[str, str]:
    """(role, whole key id) of a key given by the start of its id. Raises BadRequest."""
    found = {
        (role, whole)
        for role in ROLES
        for whole in keyids_of(current, role)
        if len(keyid) >= 8 and whole.startswith(keyid)
    }
    if len(found) != 1:
        raise BadRequest(
            f"{keyid!r} names {len(found)} keys of this registry",
            "give at least 8 digits; `tepi registry status` lists them",
        )
    return found.pop()


def keyids_of(current: Current, role: str) -> list[str]:
    """The key ids of a role."""
    judge = current.targets.signed if role == DESIRED else current.root.signed
    held: list[str] = judge.get_delegated_role(role).keyids
    return held

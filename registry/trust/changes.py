# SPDX-License-Identifier: Apache-2.0
"""What can be done to a registry's metadata: vouch, desire, renew keys, take back, refresh."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.metadata import (
    Key,
    Metadata,
    Root,
    TargetFile,
    Targets,
)

from registry.trust import keys
from registry.trust.desired import Desired, DesiredModel, is_model_name
from registry.trust.errors import BadRequest, NotVouched
from registry.trust.folder import Current
from registry.trust.names import (
    DESIRED,
    OFFLINE,
    ONLINE,
    ROLES,
    TARGETS,
    desired_target,
    model_target,
    split_package,
)
from registry.trust.publisher import (
    Outcome,
    Publisher,
    add_package,
    keyids_of,
    role_of_key,
)


@dataclass(frozen=True, slots=True)
class Package:
    """A package to vouch for: digest and size of its index or manifest; `custom` goes into the
    metadata."""

    name: str
    tag: str
    digest: str
    size: int
    custom: Mapping[str, Any] = field(default_factory=dict)


def vouch(publisher: Publisher, packages: Sequence[Package]) -> list[Outcome]:
    """Vouch for packages. Raises BadRequest."""

    def edit(targets: Targets) -> None:
        for p in packages:
            add_package(targets, model_target(p.name, p.tag), p.digest, p.size, p.custom)

    return publisher.edit_targets(edit)


def desire(
    publisher: Publisher,
    ring: str,
    models: Sequence[str],
    remove: Iterable[str] = (),
    only: bool = False,
) -> Desired:
    """Say what a ring is to run: `models` are [MODEL=]NAME:TAG[@DIGEST] to add or to change,
    `remove` names models to take away; `only` takes away all others. The release rises by one.

    Raises NotVouched, BadRequest, BadReference.
    """
    current = publisher.folder.current()
    target = desired_target(ring)
    before = current.rings().get(ring, Desired(ring, 0, ()))
    held = {} if only else {model.name: model for model in before.models}
    for name in remove:
        if name not in held:
            raise BadRequest(f"ring {ring} does not run {name!r}", f"it runs: {_listed(held)}")
        del held[name]
    added: dict[str, str] = {}
    for text in models:
        model = _model(current, text)
        if added.get(model.name, model.repository) != model.repository:
            raise BadRequest(
                f"{added[model.name]} and {model.repository} would both be served as {model.name}",
                f"write MODEL=NAME:TAG, for example {model.name}2={model.repository}:{model.tag}",
            )
        added[model.name] = model.repository
        held[model.name] = model
    desired = Desired(ring, before.release + 1, tuple(held.values()))
    _publish_rings(publisher, current, {target: desired})
    return desired


def withdraw(publisher: Publisher, text: str, force: bool = False) -> list[Outcome]:
    """Vouch no more for NAME:TAG. With `force` it is taken from the rings that run it, at once and
    before targets is signed. Raises NotVouched, BadRequest."""
    name, tag, _ = split_package(text)
    path = model_target(name, tag)
    current = publisher.folder.current()
    if path not in current.targets.signed.targets:
        raise NotVouched(f"nobody vouches for {name}:{tag}", "`tepi registry status` lists them")
    users = {
        ring: desired
        for ring, desired in current.rings().items()
        if any((m.repository, m.tag) == (name, tag) for m in desired.models)
    }
    if users and not force:
        raise BadRequest(
            f"{name}:{tag} is what ring {', '.join(sorted(users))} is to run",
            "desire another tag first, or take it away from the rings too with --force",
        )
    changed = {
        desired_target(ring): Desired(
            ring,
            desired.release + 1,
            tuple(m for m in desired.models if (m.repository, m.tag) != (name, tag)),
        )
        for ring, desired in users.items()
    }
    if changed:
        _publish_rings(publisher, current, changed)
    return publisher.edit_targets(lambda targets: _drop(targets, path))


def change_keys(
    publisher: Publisher, role: str, drop: Iterable[str], add: Sequence[Key]
) -> list[Outcome]:
    """Take keys from a role and give it others; with neither it is signed anew, to expire later.
    Raises BadRequest where fewer keys than the threshold would be left."""
    dropped = list(drop)

    def edit(judge: Root | Targets) -> None:
        held = judge.get_delegated_role(role)
        for key in add:
            judge.add_key(key, role)
        for keyid in dropped:
            if keyid in held.keyids:
                judge.revoke_key(keyid, role)
        if len(held.keyids) < held.threshold:
            raise BadRequest(
                f"{role} would have {len(held.keyids)} keys of which {held.threshold} must sign",
                f"replace the key instead: `tepi registry rotate DIR {role} --key KEYID`",
            )

    if role == DESIRED:
        return publisher.edit_targets(edit)
    if role == TARGETS and not dropped and not add:
        return publisher.edit_targets(lambda _targets: None)
    return publisher.edit_root(edit, with_targets=role == TARGETS)


def rotate(
    publisher: Publisher,
    role: str,
    keyids: Sequence[str],
    keys_folder: Path,
    passphrase: str = "",
    brought: Sequence[Key] = (),
) -> tuple[list[Outcome], list[Key]]:
    """Replace keys of a role, by those `brought` and else each by a new one in `keys_folder`.
    Without key ids: the only key of the role. Returns the new keys too. Raises BadRequest."""
    current = publisher.folder.current()
    held = keyids_of(current, role)
    if not keyids and len(held) > 1:
        raise BadRequest(
            f"{role} has {len(held)} keys",
            f"say which: --key {' or --key '.join(k[:8] for k in held)}",
        )
    old = [_key_of_role(current, role, keyid) for keyid in keyids or held]
    if brought and len(brought) != len(old):
        raise BadRequest(f"{len(old)} keys cannot be replaced by {len(brought)}")
    for key in brought:
        if any(key.keyid in keyids_of(current, r) for r in ROLES):
            raise BadRequest(
                f"{key.keyid[:8]} is a key of this registry already",
                "let its holder make a new one",
            )
    new: list[Key] = list(brought)
    if not new:
        new += [keys.make_key(role, keys_folder, passphrase) for _ in old]
    return change_keys(publisher, role, old, new), new


def revoke_key(publisher: Publisher, keyid: str) -> tuple[str, list[Outcome]]:
    """Take a key from its role; returns the role. Raises BadRequest."""
    role, whole = role_of_key(publisher.folder.current(), keyid)
    return role, change_keys(publisher, role, [whole], [])


def refresh(publisher: Publisher, within: float | None = None) -> list[str]:
    """Sign anew what the online keys sign and what expires within so many seconds (None: within
    half of its life), or what a root of late no longer verifies; returns the roles."""
    publisher.settle(None, None)  # what an interruption left, signed and not published
    life = publisher.folder.expiry()
    spans = {role: life[role] / 2 if within is None else within for role in ONLINE}
    return publisher.publish(publisher.folder.current(), {}, within=spans)


def add_pending(publisher: Publisher, brought: Metadata[Any] | None) -> list[Outcome]:
    """Add the signatures at hand to what waits, and those of a copy that another key holder has
    signed. Raises BadRequest."""
    if brought is not None:
        role = brought.signed.type
        waiting = publisher.folder.pending(role) if role in OFFLINE else None
        if waiting is None or waiting.signed_bytes != brought.signed_bytes:
            raise BadRequest(
                f"no such version of {role} waits for signatures here",
                "it was published already, or changed since; bring the file in tuf/pending anew",
            )
        waiting.signatures.update(brought.signatures)
        publisher.folder.set_pending(role, waiting)
    return publisher.settle(None, None)


def _publish_rings(publisher: Publisher, current: Current, rings: Mapping[str, Desired]) -> None:
    metadata = copy.deepcopy(current.desired)
    documents = {}
    for path, desired in rings.items():
        data = desired.encode()
        target = TargetFile.from_data(path, data, ["sha256"])
        metadata.signed.targets[path] = target
        documents[target.get_prefixed_paths()[0]] = data
    publisher.publish(current, {DESIRED: metadata}, documents)


def _model(current: Current, text: str) -> DesiredModel:
    model, equals, package = text.partition("=")
    repository, tag, digest = split_package(package if equals else text)
    target = current.targets.signed.targets.get(model_target(repository, tag))
    if target is None:
        raise NotVouched(f"nobody vouches for {repository}:{tag}")
    held = f"sha256:{target.hashes['sha256']}"
    if digest and digest != held:
        raise NotVouched(f"{repository}:{tag} is vouched for as {held}, not as {digest}")
    name = model if equals else repository.rpartition("/")[2]
    if not is_model_name(name):
        raise BadRequest(f"{name[:80]!r} cannot name a model", "write MODEL=NAME:TAG")
    return DesiredModel(name, repository, tag, held, target.length)


def _key_of_role(current: Current, role: str, keyid: str) -> str:
    found, whole = role_of_key(current, keyid)
    if found != role:
        raise BadRequest(f"key {keyid} is of role {found}, not of {role}")
    return whole


def _drop(targets: Targets, path: str) -> None:
    targets.targets.pop(path, None)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"

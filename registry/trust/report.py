# SPDX-License-Identifier: Apache-2.0
"""The state of a registry's metadata, as data: roles, keys, expiry, packages, rings, what waits."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.trust.client import TrustClient
from registry.trust.errors import TrustError
from registry.trust.folder import Current, RegistryFolder
from registry.trust.names import DESIRED, OFFLINE, ROLES, ROOT, split_model_target
from registry.trust.publisher import results_of
from registry.trust.sources import HttpSource


def report(folder: RegistryFolder, now: float) -> dict[str, Any]:
    """Everything that `tepi registry status` shows; times are in seconds, `expires` since 1970.
    Raises NotARegistry, OSError."""
    current = folder.current()
    return {
        "directory": str(folder.path),
        "roles": {role: _role(current, role, now) for role in ROLES},
        "packages": [
            {
                "name": name,
                "tag": tag,
                "digest": f"sha256:{t.hashes.get('sha256')}",
                "size": t.length,
            }
            for path, t in sorted(current.targets.signed.targets.items())
            for name, tag in [split_model_target(path)]
            if name
        ],
        "rings": {
            ring: {"release": d.release, "models": [model.as_json() for model in d.models]}
            for ring, d in sorted(current.rings().items())
        },
        "pending": [found for role in OFFLINE if (found := _pending(folder, current, role))],
    }


def _role(current: Current, role: str, now: float) -> dict[str, Any]:
    metadata = current.of(role)
    judge = current.targets.signed if role == DESIRED else current.root.signed
    held = judge.get_delegated_role(role)
    result = judge.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    expires = metadata.signed.expires.timestamp()
    return {
        "version": metadata.signed.version,
        "expires": expires,
        "left": expires - now,
        "threshold": held.threshold,
        "keys": list(held.keyids),
        "signed_by": list(result.signed),
        "verified": result.verified,
    }


def _pending(folder: RegistryFolder, current: Current, role: str) -> dict[str, Any] | None:
    metadata = folder.pending(role)
    if metadata is None:
        return None
    root = folder.pending(ROOT)
    judge = root.signed if root is not None else current.root.signed
    results = results_of(role, metadata, current.root.signed, judge)
    return {
        "role": role,
        "version": metadata.signed.version,
        "file": str(folder.pending_path(role)),
        "signed_by": sorted({keyid for result in results for keyid in result.signed}),
        "missing": max(result.missing for result in results),
    }


def online_key_problems(current: Current, online: Path) -> list[str]:
    """The online keys that `online` does not hold."""
    problems = []
    for role in ROLES:
        if role in OFFLINE:
            continue
        judge = current.targets.signed if role == DESIRED else current.root.signed
        for keyid in judge.get_delegated_role(role).keyids:
            if not (online / f"{role}-{keyid[:8]}.pem").exists():
                problems.append(f"{online} lacks the key {keyid[:8]} of {role}")
    return problems


@dataclass(frozen=True, slots=True)
class Mirror:
    """What a new node sees at a mirror: the error that it meets, the roles that are behind."""

    error: str
    behind: tuple[str, ...] = ()


def look_at_mirror(
    folder: RegistryFolder, current: Current, url: str, clock: Callable[[], float] = time.time
) -> Mirror:
    """Walk the metadata at `url` as a new node of any ring would. Raises OSError."""
    ring = next(iter(sorted(current.rings())), "none")
    with tempfile.TemporaryDirectory(prefix="mirror-") as name:
        node = TrustClient(Path(name), folder.root(1), clock)
        try:
            seen = node.refresh([HttpSource(url)], ring)
        except TrustError as error:
            return Mirror(f"{type(error).__name__}: {error}")
    ours = {role: current.of(role).signed.version for role in ROLES}
    return Mirror("", tuple(role for role in ROLES if seen.versions[role] < ours[role]))

# SPDX-License-Identifier: Apache-2.0
"""The people who hold offline keys: what they are shown, what they sign, and warnings."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from registry.trust import keys
from registry.trust.durable import write_whole
from registry.trust.errors import BadRequest, KeyMissing
from registry.trust.folder import Current
from registry.trust.names import OFFLINE, split_model_target

_WARN_DAYS = 30


def summary(metadata: Metadata[Any]) -> list[str]:
    """What offline metadata says, line by line, for whoever is asked to sign it. Raises
    BadRequest."""
    signed = metadata.signed
    if signed.type not in OFFLINE:
        raise BadRequest(f"the role {signed.type} is signed by the registry itself")
    lines = [f"{signed.type}, version {signed.version}, expires {signed.expires:%Y-%m-%d}"]
    if isinstance(signed, Root):
        for role, held in signed.roles.items():
            ids = ", ".join(keyid[:8] for keyid in held.keyids)
            lines.append(f"  {role}: {held.threshold} of {ids}")
    if isinstance(signed, Targets):
        for path, target in sorted(signed.targets.items()):
            name, tag = split_model_target(path)
            what = f"{name}:{tag}" if name else path
            lines.append(f"  {what} sha256:{target.hashes.get('sha256')} {target.length} bytes")
        roles = signed.delegations.roles if signed.delegations else None
        for name, delegated in (roles or {}).items():
            ids = ", ".join(keyid[:8] for keyid in delegated.keyids)
            lines.append(f"  delegates {', '.join(delegated.paths or ())} to {name}: {ids}")
    return lines


def sign_file(
    path: Path, metadata: Metadata[Any], folders: Sequence[Path], ask: keys.Ask
) -> list[str]:
    """Add the signatures of every key of its role in `folders` to the file; returns the key ids.
    Which of them count is decided where it is published. Raises KeyMissing, BadKey, OSError."""
    role = metadata.signed.type
    found = [
        keys.load_key(file, ask)
        for folder in folders
        for file in sorted(folder.glob(f"{role}-*.pem"))
    ]
    if not found:
        where = ", ".join(str(folder) for folder in folders) or "no folder"
        raise KeyMissing(f"there is no key of role {role} in {where}", "name it with --keys")
    for signer in found:
        metadata.sign(signer, append=True)
    write_whole(path, metadata.to_bytes())
    return [signer.public_key.keyid for signer in found]


def offline_expiry(current: Current, now: float) -> list[str]:
    """A warning for each offline role that expires within a month."""
    when = datetime.datetime.fromtimestamp(now, datetime.UTC)
    found = []
    for role in OFFLINE:
        expires = current.of(role).signed.expires
        if expires - when < datetime.timedelta(days=_WARN_DAYS):
            verb = "expired" if expires <= when else "expires"
            found.append(
                f"{role} {verb} on {expires:%Y-%m-%d}: sign it anew with its offline keys, "
                f"`tepi registry rotate DIR {role} --keep-keys`"
            )
    return found

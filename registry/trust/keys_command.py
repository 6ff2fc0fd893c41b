# SPDX-License-Identifier: Apache-2.0
"""`tepi registry rotate` and `tepi registry revoke`: keys are replaced, keys and packages taken
back."""

from __future__ import annotations

from pathlib import Path

import click

from registry.trust import changes
from registry.trust.console import (
    FILE,
    as_json,
    ask,
    directory,
    new_passphrase,
    offline_keys,
    online_keys,
    tell_outcomes,
)
from registry.trust.folder import RegistryFolder
from registry.trust.keys import load_public
from registry.trust.names import OFFLINE, ROLES
from registry.trust.publisher import Publisher

__all__ = ["revoke", "rotate"]


@click.command(
    epilog="""\b
Examples:
  tepi registry rotate /srv/registry timestamp --keys /media/safe
  tepi registry rotate /srv/registry root --key 1f0c9a7e --keys /media/safe --keys /media/new
  tepi registry rotate /srv/registry root --key 1f0c9a7e --public ann.pub --keys /media/safe
  tepi registry rotate /srv/registry targets --keep-keys --keys /media/safe

\b
The new key of an offline role is made in the last folder of --keys. Nodes follow by themselves. A
key of root is replaced under the signatures of the old root and of the new one; the other roles
need those of root, desired those of targets. What lacks signatures waits for
`tepi registry sign --pending`.
"""
)
@directory
@click.argument("role", type=click.Choice(ROLES))
@click.option(
    "--key",
    "keyids",
    multiple=True,
    metavar="KEYID",
    help="The key to replace, by at least 8 digits of its id.  [default: the only one]",
)
@click.option(
    "--public",
    type=FILE,
    multiple=True,
    help="Public key (PEM, Ed25519) that its holder made elsewhere, in place of a new one.",
)
@click.option("--keep-keys", is_flag=True, help="Replace none: sign anew, to expire later.")
@click.option("--passphrase", is_flag=True, help="Encrypt the new offline key; asks for it.")
@offline_keys
@online_keys
@as_json
def rotate(
    directory: Path,
    role: str,
    keyids: tuple[str, ...],
    public: tuple[Path, ...],
    keep_keys: bool,
    passphrase: bool,
    offline: tuple[Path, ...],
    online: Path | None,
    as_json: bool,
) -> None:
    """Replace the key of a ROLE: root, targets, snapshot, timestamp or desired."""
    if not offline:
        raise click.UsageError("name the folder of the offline keys with --keys")
    if keep_keys and (keyids or passphrase or public or role not in OFFLINE):
        raise click.UsageError(
            "--keep-keys is for root and targets, and goes with no option on keys but --keys; "
            "`tepi registry refresh` signs the other roles anew"
        )
    if public and (passphrase or role not in OFFLINE):
        raise click.UsageError("--public is for root and targets, and for keys made elsewhere")
    with Publisher.opened(
        RegistryFolder(directory), offline=offline, online=online, ask=ask
    ) as publisher:
        if keep_keys:
            tell_outcomes(changes.change_keys(publisher, role, [], []), as_json)
            return
        home = offline[-1] if role in OFFLINE else publisher.online
        secret = new_passphrase(passphrase and role in OFFLINE)
        brought = [load_public(path) for path in public]
        outcomes, new = changes.rotate(publisher, role, keyids, home, secret, brought)
    if not as_json:
        for key in new:
            name = f"{role}-{key.keyid[:8]}.pem"
            where = f"its holder keeps it as {name}" if public else str(home / name)
            click.echo(f"new key of {role}: {key.keyid[:8]}, {where}")
    tell_outcomes(outcomes, as_json, role=role, new_keys=[key.keyid for key in new])


@click.command(
    epilog="""\b
Examples:
  tepi registry revoke /srv/registry vision/digits:1.0 --keys /media/safe
  tepi registry revoke /srv/registry vision/digits:1.0 --force --keys /media/safe
  tepi registry revoke /srv/registry --key 1f0c9a7e --keys /media/safe

\b
A package that is taken back is not installed any more; nodes that run it are told by `desire`, or
at once with --force. A key that is stolen is better replaced: `tepi registry rotate`.
"""
)
@directory
@click.argument("package", required=False, metavar="[NAME:TAG]")
@click.option("--key", "keyid", metavar="KEYID", help="Take back a key, by 8 digits of its id.")
@click.option("--force", is_flag=True, help="Take NAME:TAG away from the rings that run it too.")
@offline_keys
@online_keys
@as_json
def revoke(
    directory: Path,
    package: str | None,
    keyid: str | None,
    force: bool,
    offline: tuple[Path, ...],
    online: Path | None,
    as_json: bool,
) -> None:
    """Take back a package or a key."""
    if (package is None) == (keyid is None):
        raise click.UsageError("name either NAME:TAG or --key KEYID")
    if not offline:
        raise click.UsageError("name the folder of the offline keys with --keys")
    with Publisher.opened(
        RegistryFolder(directory), offline=offline, online=online, ask=ask
    ) as publisher:
        if keyid is not None:
            role, outcomes = changes.revoke_key(publisher, keyid)
            tell_outcomes(outcomes, as_json, role=role)
            return
        assert package is not None
        tell_outcomes(changes.withdraw(publisher, package, force), as_json, package=package)

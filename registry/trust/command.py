# SPDX-License-Identifier: Apache-2.0
"""Trust from the shell: `tepi registry init`, `sign`, `desire`, `refresh`; the commands for keys,
the export and the status stand in modules of their own and are offered here."""

from __future__ import annotations

import json
from pathlib import Path

import click

from registry.digest import digest_of_file
from registry.remote.options import Access, registry_options
from registry.trust import changes, founding
from registry.trust.console import (
    FILE,
    FOLDER,
    Duration,
    as_json,
    ask,
    directory,
    new_passphrase,
    offline_keys,
    online_keys,
    tell_outcomes,
)
from registry.trust.export_command import export
from registry.trust.folder import EXPIRY, RegistryFolder, read_metadata
from registry.trust.founding import Plan
from registry.trust.holders import offline_expiry, sign_file, summary
from registry.trust.keys_command import revoke, rotate
from registry.trust.names import OFFLINE, ROLES, ROOT, TARGETS
from registry.trust.packages import (
    package_in_layout,
    package_in_registry,
    package_in_storage,
    package_of,
)
from registry.trust.publisher import Publisher
from registry.trust.status_command import status

__all__ = ["desire", "export", "init", "refresh", "revoke", "rotate", "sign", "status"]


def _expiry(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, int]:
    found = dict(EXPIRY)
    for text in texts:
        role, equals, value = text.partition("=")
        if role not in ROLES or not equals:
            raise click.BadParameter(f"{text!r} is not ROLE=TIME with a role of {', '.join(ROLES)}")
        found[role] = Duration().convert(value, None, None)
    return found


@click.command(
    epilog="""\b
Examples:
  tepi registry init /srv/registry --keys /media/safe
  tepi registry init /srv/registry --keys /media/safe --passphrase --root-keys 5 --root-threshold 3
  tepi registry init /srv/registry --keys keys --expiry timestamp=6h --expiry desired=3d
"""
)
@directory
@click.option("--keys", "home", type=FOLDER, required=True, help="Folder for the offline keys.")
@online_keys
@click.option(
    "--root-keys",
    type=click.IntRange(1, 32),
    default=3,
    show_default=True,
    help="Keys of the role root.",
)
@click.option(
    "--root-threshold",
    type=click.IntRange(1, 32),
    default=2,
    show_default=True,
    help="How many of them must sign.",
)
@click.option(
    "--targets-keys",
    type=click.IntRange(1, 32),
    default=1,
    show_default=True,
    help="Keys of the role targets, which vouches for packages.",
)
@click.option(
    "--targets-threshold",
    type=click.IntRange(1, 32),
    default=1,
    show_default=True,
    help="How many of them must sign.",
)
@click.option(
    "--expiry",
    multiple=True,
    callback=_expiry,
    metavar="ROLE=TIME",
    help="How long metadata of a role lives.  [default: root=365d targets=365d "
    "snapshot=7d timestamp=1d desired=7d]",
)
@click.option("--passphrase", is_flag=True, help="Encrypt the offline keys; asks for it.")
@as_json
def init(
    directory: Path,
    home: Path,
    online: Path | None,
    root_keys: int,
    root_threshold: int,
    targets_keys: int,
    targets_threshold: int,
    expiry: dict[str, int],
    passphrase: bool,
    as_json: bool,
) -> None:
    """Make a registry in DIR with its keys and its first metadata."""
    plan = Plan(
        {ROOT: root_keys, TARGETS: targets_keys}, {ROOT: root_threshold, TARGETS: targets_threshold}
    )
    plan.check()
    secret = new_passphrase(passphrase)
    with Publisher.opened(RegistryFolder(directory), online=online) as publisher:
        root = founding.init(publisher, home, plan, expiry, secret)
        online = publisher.online
    digest = digest_of_file(root)
    if as_json:
        click.echo(
            json.dumps(
                {"root": str(root), "digest": digest, "keys": str(home), "online_keys": str(online)}
            )
        )
        return
    click.echo(
        f"the registry in {directory} is ready\n"
        f"  offline keys   {home}: move each {', '.join(OFFLINE)} key to a place of its own, off "
        "this machine, and keep copies\n"
        f"  online keys    {online}: stay on this machine, readable by nobody else\n"
        f"  nodes' root    {root}\n"
        f"                 {digest}\n"
        "                 bring it to each node by a way that you trust"
    )


@click.command(
    epilog="""\b
Examples:
  tepi registry sign /srv/registry vision/digits:1.0 --keys /media/safe
  tepi registry sign /srv/registry vision/digits:1.0 --layout build/digits --keys /media/safe
  tepi registry sign /srv/registry vision/digits:1.0 --registry ghcr.io --keys /media/safe
  tepi registry sign /srv/registry vision/digits:1.0@sha256:… --size 1234 --keys /media/safe
  tepi registry sign --pending targets.json --keys /media/safe      (another key holder)
  tepi registry sign /srv/registry --pending targets.json           (what was brought back)

\b
PACKAGE is NAME:TAG, with @sha256:… to be sure of what is signed. Where the threshold of a role is
more than one, the first signature lets the change wait in DIR/tuf/pending.
"""
)
@click.argument("directory", type=FOLDER, metavar="[DIR]", required=False)
@click.argument("packages", nargs=-1, metavar="[PACKAGE]...")
@click.option("--layout", type=FOLDER, help="OCI layout that holds the packages, by their tags.")
@click.option("--registry", "host", metavar="HOST[:PORT]", help="Registry that holds the packages.")
@click.option(
    "--size",
    type=click.IntRange(1),
    help="Bytes of PACKAGE's index or manifest, where its digest is given and it is not at hand.",
)
@click.option(
    "--pending",
    type=FILE,
    help="Sign what waits in this file; with DIR, take the signatures that it brings.",
)
@offline_keys
@online_keys
@registry_options
@as_json
def sign(
    directory: Path | None,
    packages: tuple[str, ...],
    layout: Path | None,
    host: str | None,
    size: int | None,
    pending: Path | None,
    offline: tuple[Path, ...],
    online: Path | None,
    access: Access,
    as_json: bool,
) -> None:
    """Vouch for packages, or add a signature to a change that waits for it."""
    if pending is not None and packages:
        raise click.UsageError("--pending signs what waits; it takes no PACKAGE")
    if directory is None:
        if pending is None:
            raise click.UsageError("name DIR, and what to vouch for")
        _sign_file(pending, offline, as_json)
        return
    if pending is None and not packages:
        raise click.UsageError("name what to vouch for: NAME:TAG")
    if pending is None and not offline:
        raise click.UsageError("name the folder of the offline keys with --keys")
    if sum(x is not None for x in (layout, host, size)) > 1:
        raise click.UsageError("--layout, --registry and --size exclude each other")
    with Publisher.opened(
        RegistryFolder(directory), offline=offline, online=online, ask=ask
    ) as publisher:
        if pending is not None:
            outcomes = changes.add_pending(publisher, read_metadata(pending))
            tell_outcomes(outcomes, as_json)
            return
        publisher.folder.current()
        if layout is not None:
            found = [package_in_layout(text, layout) for text in packages]
        elif host is not None:
            with access.remote(host) as remote:
                found = [package_in_registry(text, remote) for text in packages]
        elif size is not None:
            found = [package_of(text, size) for text in packages]
        else:
            found = [package_in_storage(text, directory) for text in packages]
        outcomes = changes.vouch(publisher, found)
    if not as_json:
        for package in found:
            click.echo(f"{package.name}:{package.tag} is {package.digest}, {package.size} bytes")
    tell_outcomes(outcomes, as_json, packages=[f"{p.name}:{p.tag}@{p.digest}" for p in found])


def _sign_file(path: Path, offline: tuple[Path, ...], json_wanted: bool) -> None:
    """On a key holder's machine, where there is no registry: show what it says, sign it."""
    metadata = read_metadata(path)
    for line in summary(metadata):
        click.echo(line, err=json_wanted)
    added = sign_file(path, metadata, offline, ask)
    if json_wanted:
        click.echo(json.dumps({"role": metadata.signed.type, "signed_with": added}))
        return
    click.echo(f"signed {path} with {', '.join(keyid[:8] for keyid in added)}; bring it back")


@click.command(
    epilog="""\b
Examples:
  tepi registry desire /srv/registry canary vision/digits:2.0
  tepi registry desire /srv/registry all vision/digits:2.0 speech/words:1.4
  tepi registry desire /srv/registry canary reader=vision/digits:2.0
  tepi registry desire /srv/registry canary --remove digits

\b
MODEL=NAME:TAG serves a package as MODEL; without it a model has the last word of NAME. What the
ring runs besides stays, but for --only. Only packages that were signed may be desired.
"""
)
@directory
@click.argument("ring")
@click.argument("models", nargs=-1, metavar="[[MODEL=]NAME:TAG]...")
@click.option("--remove", multiple=True, metavar="MODEL", help="Take a model away from the ring.")
@click.option("--only", is_flag=True, help="Take away all other models.")
@click.option(
    "--expiry",
    type=Duration(),
    help="From now on nodes install by what is desired for so long after it was signed, say 7d.",
)
@online_keys
@as_json
def desire(
    directory: Path,
    ring: str,
    models: tuple[str, ...],
    remove: tuple[str, ...],
    only: bool,
    expiry: int | None,
    online: Path | None,
    as_json: bool,
) -> None:
    """Say which models a RING of nodes is to run."""
    if not models and not remove and not only and expiry is None:
        raise click.UsageError("name models to run, or --remove MODEL, or --only for none")
    folder = RegistryFolder(directory)
    with Publisher.opened(folder, online=online, ask=ask) as publisher:
        if expiry is not None:
            folder.set_expiry({**folder.expiry(), "desired": expiry})
        found = changes.desire(publisher, ring, models, remove, only)
    if as_json:
        click.echo(found.encode().decode())
        return
    click.echo(f"ring {ring}, release {found.release}:")
    for model in found.models:
        click.echo(f"  {model.name}: {model.repository}:{model.tag} {model.digest}")


@click.command(
    epilog="""\b
Examples:
  tepi registry refresh /srv/registry
  tepi registry refresh /srv/registry --within 2d
  17 * * * *  tepi registry refresh /srv/registry      (a line of a crontab)
"""
)
@directory
@click.option(
    "--within",
    type=Duration(),
    help="Sign what expires within this time.  [default: half of the life of each role]",
)
@online_keys
@as_json
def refresh(directory: Path, within: int | None, online: Path | None, as_json: bool) -> None:
    """Sign anew what the online keys sign and what expires soon. Run it from cron."""
    with Publisher.opened(RegistryFolder(directory), online=online, ask=ask) as publisher:
        roles = changes.refresh(publisher, within)
        warnings = offline_expiry(publisher.folder.current(), publisher.clock())
    if as_json:
        click.echo(json.dumps({"signed": roles, "warnings": warnings}))
    else:
        click.echo(f"signed anew: {', '.join(roles)}" if roles else "nothing expires soon")
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)

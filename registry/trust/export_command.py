# SPDX-License-Identifier: Apache-2.0
"""`tepi registry export` and `tepi registry status`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from device.console import console
from registry.origin.storage import Storage
from registry.package.layout import Layout
from registry.trust.console import FOLDER, as_json, directory, online_keys
from registry.trust.export import Blobs
from registry.trust.export import export as write_export
from registry.trust.folder import DAY, RegistryFolder
from registry.trust.holders import offline_expiry
from registry.trust.report import online_key_problems, report

__all__ = ["export", "status"]

_EXIT_BAD = 1


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    if not sys.stderr.isatty():
        yield lambda _done, _all: None
        return
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("copy", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@click.command(
    epilog="""\b
Examples:
  tepi registry export /srv/registry --to /media/usb --packages
  tepi registry export /srv/registry --to /media/usb --ring canary --packages
  tepi registry export /srv/registry --to /media/usb --packages --layout build/digits
  tepi registry export /srv/registry --to mirror

\b
The folder holds tuf/, which a node takes as a source of metadata, and with --packages an OCI
layout. Called again it copies only what is missing. It is good until the timestamp expires: see
`status`.
"""
)
@directory
@click.option("--to", "to", type=FOLDER, required=True, help="Where to write, say a USB stick.")
@click.option("--ring", "rings", multiple=True, help="Only what this ring runs.  [default: all]")
@click.option("--packages", is_flag=True, help="Copy the packages too.")
@click.option("--layout", type=FOLDER, help="Take packages from this OCI layout, not from DIR.")
@as_json
def export(
    directory: Path,
    to: Path,
    rings: tuple[str, ...],
    packages: bool,
    layout: Path | None,
    as_json: bool,
) -> None:
    """Write what a node without a network needs to a folder."""
    if layout is not None and not packages:
        raise click.UsageError("--layout goes with --packages")
    folder = RegistryFolder(directory)
    current = folder.current()
    source: Blobs | None = None
    if packages:
        source = Layout(layout) if layout is not None else Storage(directory)
    with _bar() as tell:
        found = write_export(folder, to, rings, source, tell)
    until = current.timestamp.signed.expires
    if as_json:
        click.echo(
            json.dumps(
                {
                    "to": str(to),
                    "rings": list(found.rings),
                    "models": [model.as_json() for model in found.models],
                    "blobs": found.blobs,
                    "copied": found.copied,
                    "good_until": until.timestamp(),
                }
            )
        )
        return
    click.echo(f"wrote {to} for {', '.join(found.rings) or 'no ring'}")
    if packages:
        click.echo(f"  {len(found.models)} packages, {found.blobs} blobs, {found.copied} bytes new")
    click.echo(f"  nodes install from it until {until:%Y-%m-%d %H:%M} UTC")


@click.command(
    epilog="""\b
Examples:
  tepi registry status /srv/registry
  tepi registry status /srv/registry --json

\b
Exits 1 where nodes would refuse what is published, or where an online key is missing.
"""
)
@directory
@online_keys
@as_json
def status(directory: Path, online: Path | None, as_json: bool) -> int:
    """Show roles, keys, expiry, what is vouched for, what rings run and what waits."""
    folder, now = RegistryFolder(directory), time.time()
    found = report(folder, now)
    current = folder.current()
    problems = [
        f"{role} has expired" if state["left"] <= 0 else f"{role} does not verify"
        for role, state in found["roles"].items()
        if state["left"] <= 0 or not state["verified"]
    ]
    problems += online_key_problems(current, online or folder.online_keys)
    warnings = offline_expiry(current, now)
    if as_json:
        click.echo(json.dumps({**found, "problems": problems, "warnings": warnings}))
    else:
        _print(found)
        for text in (*problems, *warnings):
            click.echo(text, err=True)
    return _EXIT_BAD if problems else 0


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    table = Table("role", "version", "expires in", "keys", "threshold", box=None, pad_edge=False)
    for role, state in found["roles"].items():
        keys = " ".join(key[:8] for key in state["keys"])
        table.add_row(
            role, str(state["version"]), _span(state["left"]), keys, str(state["threshold"])
        )
    out.print(table)
    packages = Table("package", "digest", box=None, pad_edge=False)
    for package in found["packages"]:
        packages.add_row(f"{package['name']}:{package['tag']}", package["digest"])
    if found["packages"]:
        out.print()
        out.print(packages)
    for ring, state in found["rings"].items():
        models = ", ".join(f"{m['name']} = {m['repository']}:{m['tag']}" for m in state["models"])
        out.print(f"\nring {ring}, release {state['release']}: {models or 'nothing'}")
    for waiting in found["pending"]:
        out.print(
            f"\nversion {waiting['version']} of {waiting['role']} waits for "
            f"{waiting['missing']} signatures: {waiting['file']}"
        )


def _span(seconds: float) -> str:
    """In days, or in hours below two days."""
    if seconds <= 0:
        return "over"
    days = seconds / DAY
    return f"{days:.0f} days" if days >= 2 else f"{seconds / 3600:.0f} hours"

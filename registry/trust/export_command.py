# SPDX-License-Identifier: Apache-2.0
"""`tepi registry export`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from registry.origin.storage import Storage
from registry.package.layout import Layout
from registry.trust.console import FOLDER, as_json, directory
from registry.trust.export import Blobs
from registry.trust.export import export as write_export
from registry.trust.folder import RegistryFolder

__all__ = ["export"]


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

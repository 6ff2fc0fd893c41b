# SPDX-License-Identifier: Apache-2.0
"""`tepi model push`, `pull` and `list`."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path

import click

from device.console import console
from registry.package.layout import Layout, split_tag
from registry.reference import Reference, check_name, parse_reference
from registry.remote.backoff import Retry
from registry.remote.options import Access, registry_options
from registry.remote.transfers import PARALLEL, Transfers, Watch, size_text

_PUSH_EXAMPLES = """\b
Examples:
  tepi model push digits.oci registry.example/vision/digits:1.0
  tepi model push digits.oci:1.0 localhost:5000/digits:1.0
  echo "$PASSWORD" | tepi model push digits.oci registry.example/digits:1.0 \\
      --username publisher --password-stdin

\b
The last line printed is the package by its digest, which is what to sign.
"""
_PULL_EXAMPLES = """\b
Examples:
  tepi model pull registry.example/vision/digits:1.0 -o digits.oci
  tepi model pull registry.example/digits@sha256:… -o digits.oci --variant cpu
  tepi model pull localhost:5000/digits:1.0 -o copy.oci --referrers

\b
What the layout holds already is not fetched, and what broke off goes on where it was.
"""
_LIST_EXAMPLES = """\b
Examples:
  tepi model list registry.example
  tepi model list registry.example/vision/digits --json
"""
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
_PARALLEL = click.option(
    "--parallel",
    type=click.IntRange(1, 16),
    default=PARALLEL,
    show_default=True,
    help="Blobs moved at once.",
)
_RETRIES = click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=5,
    show_default=True,
    help="How often to try again in a row, with growing pauses, what failed and may succeed later.",
)


@click.command(epilog=_PUSH_EXAMPLES)
@click.argument("package", metavar="LAYOUT[:TAG]")
@click.argument("reference", metavar="REGISTRY/NAME[:TAG]")
@click.option(
    "--mount-from",
    metavar="NAME",
    default="",
    help="Repository of the same registry that may hold the blobs already.",
)
@_PARALLEL
@_RETRIES
@registry_options
@_JSON
def push(
    package: str,
    reference: str,
    mount_from: str,
    parallel: int,
    retries: int,
    access: Access,
    as_json: bool,
) -> None:
    """Publish a package, all its variants and its deltas in a registry.

    Without a TAG the layout's only package is taken, and published as `latest`.
    """
    from registry.remote.bars import Bars
    from registry.remote.publish import plan, publish

    wanted = parse_reference(reference)
    if wanted.digest:
        raise click.BadParameter(
            "a digest follows from the bytes; give a TAG", param_hint=reference
        )
    path, tag = split_tag(package)
    layout = Layout(path)
    root = layout.resolve(tag)
    with access.remote(wanted.registry) as remote, Bars(as_json) as bars:
        bars.expect(plan(layout, root).size)
        done = publish(
            remote,
            layout,
            root,
            wanted.name,
            wanted.tag,
            _transfers(bars, parallel, retries),
            check_name(mount_from) if mount_from else "",
        )
    named = Reference(wanted.registry, wanted.name, digest=done.digest)
    if as_json:
        click.echo(json.dumps({"reference": str(wanted), "pinned": str(named), **asdict(done)}))
        return
    click.echo(
        f"{done.sent} blobs sent ({size_text(done.sent_bytes)}), {done.existing} were there, "
        f"{done.mounted} mounted; {done.documents} manifests, {done.referrers} referrers"
    )
    click.echo(str(named))


@click.command(epilog=_PULL_EXAMPLES)
@click.argument("reference", metavar="REGISTRY/NAME[:TAG|@DIGEST]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The layout to fetch into; made where it does not exist.",
)
@click.option(
    "--variant",
    metavar="NAME",
    default="",
    help="One variant only, `card` or `cpu`.  [default: all]",
)
@click.option(
    "--referrers", is_flag=True, help="Fetch what refers to it too: block indexes and deltas."
)
@_PARALLEL
@_RETRIES
@registry_options
@_JSON
def pull(
    reference: str,
    output: Path,
    variant: str,
    referrers: bool,
    parallel: int,
    retries: int,
    access: Access,
    as_json: bool,
) -> None:
    """Fetch a package from a registry into an OCI layout, and check every byte of it."""
    from registry.remote.bars import Bars
    from registry.remote.fetch import fetch, look_up

    wanted = parse_reference(reference)
    with access.remote(wanted.registry) as remote, Bars(as_json) as bars:
        transfers = _transfers(bars, parallel, retries)
        package = look_up(
            remote, wanted.name, wanted.target, transfers, variant=variant, referrers=referrers
        )
        bars.expect(package.size)
        layout = Layout(output, create=True)
        done = fetch(remote, layout, wanted.name, package, wanted.tag, transfers)
    if as_json:
        click.echo(json.dumps({"reference": str(wanted), "layout": str(output), **asdict(done)}))
        return
    click.echo(
        f"{done.received} blobs received ({size_text(done.received_bytes)}), {done.kept} were there"
    )
    click.echo(f"{output}{':' + wanted.tag if wanted.tag else ''}: {done.digest}")


@click.command("list", epilog=_LIST_EXAMPLES)
@click.argument("registry", metavar="REGISTRY[/NAME]")
@registry_options
@_JSON
def list_models(registry: str, access: Access, as_json: bool) -> None:
    """List the packages of a registry with tags, digests, sizes and variants."""
    from rich.table import Table

    from registry.remote.listing import packages

    scheme, mark, bare = registry.rstrip("/").rpartition("://")
    host, slash, name = bare.partition("/")
    with access.remote(f"{scheme}{mark}{host}") as remote:
        rows = packages(remote, check_name(name) if slash else "")
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    if not rows:
        click.echo("no packages")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("package", "tag", "variants", "size", "digest"):
        table.add_column(column, overflow="fold", justify="right" if column == "size" else "left")
    for row in rows:
        size = size_text(row.size) if row.size >= 0 else "?"
        what = " ".join(row.variants) or row.note
        table.add_row(row.name, row.tag, what, size, row.digest)
    console().print(table)


def _transfers(watch: Watch, parallel: int, retries: int) -> Transfers:
    stop = threading.Event()  # what ends all transfers also ends the pauses between tries
    return Transfers(Retry(attempts=retries + 1, sleep=stop.wait), watch, parallel, stop)

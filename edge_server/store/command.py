# SPDX-License-Identifier: Apache-2.0
"""`tepi store list`, `verify`, `gc`, `pin` and `unpin`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from device.console import console
from edge_server.store.errors import StoreBusy
from edge_server.store.refetch import Refetch
from edge_server.store.room import Collected, StoreLimits
from edge_server.store.sizes import parse_size, size_text
from edge_server.store.store import Repaired, Store
from edge_server.store.view import Damaged, Entry, StoreView, Unfinished
from registry.errors import NotFound
from registry.reference import parse_reference
from registry.remote.options import Access, registry_options

DEFAULT_STORE = Path("/var/lib/tepi/store")
_LEAST_PREFIX = 6  # hexadecimal digits that stand for a digest
_SHOWN = len("sha256:") + 12
_LIST_EXAMPLES = """\b
Examples:
  tepi store list
  tepi store list --store /data/tepi --json
"""
_VERIFY_EXAMPLES = """\b
Examples:
  tepi store verify
  tepi store verify --rate 20MiB
  tepi store verify --repair
  tepi store verify --repair --from registry.example/vision/digits

\b
Without --repair nothing is changed, and a running server may own the store. Exit code 1: something
is damaged, and still is.
"""
_GC_EXAMPLES = """\b
Examples:
  tepi store gc --dry-run --unpinned
  tepi store gc --max-size 20GiB --reserve 2GiB

\b
A running server does this by itself. Exit code 1: a server owns the store, or pins hold more than
the limits allow.
"""
_PIN_EXAMPLES = """\b
Examples:
  tepi store pin keep sha256:2bd806c97f0e
  tepi store pin keep 2bd806c97f0e 9f86d081884c

\b
A pin is a name and its blobs: the same name again replaces them. It works beside a running server.
"""
_UNPIN_EXAMPLES = """\b
Examples:
  tepi store unpin keep
"""


def _bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


store_option = click.option(
    "--store",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STORE,
    show_default=True,
    help="The store's folder.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@click.command("list", epilog=_LIST_EXAMPLES)
@store_option
@_JSON
def list_blobs(root: Path, as_json: bool) -> None:
    """List blobs with size, use and pins, the least used first; then what is on its way."""
    view = StoreView.look(root)
    entries, partials = view.entries(), view.unfinished()
    torn = view.damaged_pins()
    if as_json:
        found = {
            "blobs": [asdict(entry) for entry in entries],
            "partials": [asdict(partial) for partial in partials],
            "bytes": sum(entry.size for entry in entries),
            "damaged_pins": torn,
        }
        click.echo(json.dumps(found))
    else:
        _print_blobs(entries, partials)
    if torn:
        view.pins()  # raises DamagedPins, which says what to do


def _print_blobs(entries: list[Entry], partials: list[Unfinished]) -> None:
    from rich.table import Table

    table, now = Table(box=None, pad_edge=False), time.time()
    table.add_column("digest", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("used", no_wrap=True)
    table.add_column("pins", overflow="fold")
    for entry in entries:
        pins = ", ".join(entry.pins)
        table.add_row(entry.digest[:_SHOWN], size_text(entry.size), ago(now - entry.used), pins)
    for partial in partials:
        there = f"{partial.there * 100 // max(partial.size, 1)}% there" if partial.size else "?"
        used = ago(now - partial.touched)
        table.add_row(partial.digest[:_SHOWN], size_text(partial.size), used, f"({there})")
    if entries or partials:
        console().print(table)
    total = sum(entry.size for entry in entries)
    click.echo(f"{len(entries)} blobs, {size_text(total)}; {len(partials)} on their way")


def ago(seconds: float) -> str:
    """'5 min ago'."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return "now" if seconds < 1 else f"{seconds:.0f} s ago"


@click.command(epilog=_VERIFY_EXAMPLES)
@store_option
@click.option(
    "--rate",
    callback=_bytes,
    metavar="SIZE",
    help="Bytes a second to read at most.  [default: all]",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Take damaged blobs out of the way, so that they are never served, and fetch them again.",
)
@click.option(
    "--from",
    "source",
    metavar="REGISTRY/NAME",
    help="Where --repair fetches from.  [default: the next sync fetches what it needs]",
)
@registry_options
@_JSON
def verify(
    root: Path, rate: int | None, repair: bool, source: str | None, access: Access, as_json: bool
) -> None:
    """Read every blob again and repair what is damaged."""
    if source and not repair:
        raise click.UsageError("--from needs --repair")
    if not repair:
        view = StoreView.look(root)
        damaged = _verified(view, rate, as_json)
        _report(damaged, None, as_json)
        return
    with Store.open(root, create=False) as store:
        damaged = _verified(store, rate, as_json)
        repaired = _refetched(store, source, access, as_json) if source else Repaired((), {})
        missing = store.damaged()
    found = [blob for blob in damaged if blob.digest in missing]
    known = {blob.digest for blob in damaged}
    found += [Damaged(digest, "found before", ()) for digest in missing if digest not in known]
    _report(found, repaired, as_json)


def _verified(view: StoreView, rate: int | None, as_json: bool) -> list[Damaged]:
    total = sum(entry.size for entry in view.entries())
    with _bar("verify", total, quiet=as_json) as bar:
        return view.verify(bar, rate=rate)


def _refetched(store: Store, source: str, access: Access, as_json: bool) -> Repaired:
    reference = parse_reference(source)
    with (
        access.remote(reference.registry) as remote,
        _bar("repair", None, quiet=as_json) as bar,
    ):
        return store.repair(Refetch(store, remote, reference.name, bar))


def _report(damaged: list[Damaged], repaired: Repaired | None, as_json: bool) -> None:
    mended = repaired.mended if repaired else ()
    failed = repaired.failed if repaired else {}
    if as_json:
        found = {
            "damaged": [asdict(blob) for blob in damaged],
            "mended": list(mended),
            "failed": {digest: str(error) for digest, error in failed.items()},
        }
        click.echo(json.dumps(found))
    else:
        for digest in mended:
            click.echo(f"{digest}: fetched again")
        for blob in damaged:
            pins = f"; pinned by {', '.join(blob.pins)}" if blob.pins else ""
            click.echo(f"{blob.digest}: {failed.get(blob.digest, blob.reason)}{pins}")
        click.echo("nothing is damaged" if not damaged else _advice(len(damaged), repaired))
    if damaged:
        raise click.exceptions.Exit(1)


def _advice(count: int, repaired: Repaired | None) -> str:
    if repaired is None:
        return f"{count} damaged; with --repair they are never served, and fetched again"
    return f"{count} damaged and out of the way; the next sync, or --from, fetches them again"


@click.command(epilog=_GC_EXAMPLES)
@store_option
@click.option(
    "--max-size",
    callback=_bytes,
    metavar="SIZE",
    help="Bytes to keep at most.  [default: no limit]",
)
@click.option(
    "--reserve",
    callback=_bytes,
    default="0",
    metavar="SIZE",
    help="Bytes to leave free on the disk.  [default: 0]",
)
@click.option("--unpinned", is_flag=True, help="Remove everything that no pin holds.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@_JSON
def gc(
    root: Path, max_size: int | None, reserve: int, unpinned: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove what nothing needs, least used first.

    That is partials that nobody went on with for a week, blobs that were mended since, and as many
    unpinned blobs as the limits ask for.
    """
    try:
        with Store.open(root, StoreLimits(max_size, reserve), create=False) as store:
            found = store.collect(unpinned=unpinned, dry_run=dry_run)
    except StoreBusy as error:
        raise StoreBusy(
            f"{error}, which removes by itself what its limits ask for",
            "lower max_bytes in its settings, or stop it first",
        ) from None
    _print_collected(found, dry_run, as_json)
    if found.over:
        raise click.exceptions.Exit(1)


def _print_collected(found: Collected, dry_run: bool, as_json: bool) -> None:
    if as_json:
        removed = [
            {"kind": victim.kind.name.lower(), "digest": victim.digest, "size": victim.size}
            for victim in found.removed
        ]
        click.echo(json.dumps({"removed": removed, "bytes": found.bytes, "over": found.over}))
        return
    for victim in found.removed:
        click.echo(f"{victim.kind.name.lower():<9} {victim.digest}  {size_text(victim.size)}")
    verb = "would go" if dry_run else "removed"
    click.echo(f"{len(found.removed)} {verb}, {size_text(found.bytes)}")
    if found.over:
        click.echo(f"still {size_text(found.over)} over the limits: pins hold the rest", err=True)


@click.command(epilog=_PIN_EXAMPLES)
@click.argument("name")
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@store_option
@_JSON
def pin(name: str, digests: tuple[str, ...], root: Path, as_json: bool) -> None:
    """Keep blobs whatever the store's limits say, under a NAME.

    DIGEST may be the first digits of one, as `tepi store list` shows it.
    """
    view = StoreView.look(root)
    held = [entry.digest for entry in view.entries()]
    wanted = [_whole(digest, held, root) for digest in digests]
    view.pin(name, wanted, present=True)
    if as_json:
        click.echo(json.dumps({"name": name, "digests": wanted}))
    else:
        click.echo(f"{name} keeps {len(wanted)} blobs")


def _whole(text: str, held: list[str], root: Path) -> str:
    digits = text.removeprefix("sha256:")
    found = [d for d in held if d.removeprefix("sha256:").startswith(digits)]
    if len(digits) < _LEAST_PREFIX or len(found) > 1:
        raise click.BadParameter(f"{text!r} is too short to mean one blob", param_hint="DIGEST")
    if not found:
        raise NotFound(f"no blob {text} in {root}", "see what is there with: tepi store list")
    return found[0]


@click.command(epilog=_UNPIN_EXAMPLES)
@click.argument("name")
@store_option
@_JSON
def unpin(name: str, root: Path, as_json: bool) -> None:
    """Let go of a pin; its blobs go when room is needed."""
    view = StoreView.look(root)
    if not view.unpin(name):
        known = ", ".join(sorted(view.pins())) or "none"
        raise NotFound(f"no pin {name!r} in {root}", f"it has: {known}")
    click.echo(json.dumps({"name": name}) if as_json else f"{name} keeps nothing any more")


@contextmanager
def _bar(what: str, total: int | None, *, quiet: bool) -> Iterator[Any]:
    """A progress bar on a terminal's standard error; gives what takes the bytes of each step."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
    with bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.advance(task, count)

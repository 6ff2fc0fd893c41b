# SPDX-License-Identifier: Apache-2.0
"""`tepi model delta`. What it needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from registry.delta.publish import Considered

_EXAMPLES = """\b
Examples:
  tepi model delta layout --new 2.0 --from 1.0
  tepi model delta layout --new 2.0 --json
  tepi model push layout:2.0 registry.example/vision/digits:2.0

\b
A node that has the old package then fetches the delta in place of the file, and checks what it
makes of it by the file's own digest. A delta of 70 % of its file or more is not kept. Run it after
`pack` and before `push`, which takes deltas along.
"""


@click.command(epilog=_EXAMPLES)
@click.argument(
    "layout", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="LAYOUT"
)
@click.option("--new", "new_tag", required=True, metavar="TAG", help="What nodes are to run.")
@click.option(
    "--from",
    "old_tags",
    multiple=True,
    metavar="TAG",
    help="What they run now; may be given again.  [default: every other tag of the model]",
)
@click.option(
    "--level",
    type=click.IntRange(1, 22),
    default=19,
    show_default=True,
    help="Of compression: time here for bytes at every node.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def delta(layout: Path, new_tag: str, old_tags: tuple[str, ...], level: int, as_json: bool) -> None:
    """Make deltas from the packages that nodes have to the one they are to run."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from registry.delta.publish import publish_deltas
    from registry.package.layout import Layout

    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} bytes"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=as_json or not sys.stderr.isatty(),
    )
    tasks = {}

    def tell(what: str, count: int) -> None:
        if what not in tasks:
            tasks[what] = progress.add_task(escape(what), total=None)
        progress.advance(tasks[what], count)

    with progress:
        found = publish_deltas(Layout(layout), new_tag, old_tags, tell, level)
    if as_json:
        click.echo(json.dumps([asdict(row) | {"ratio": row.ratio} for row in found]))
    else:
        _print(found, new_tag)


def _print(found: Sequence[Considered], new_tag: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from device.console import console

    if not found:
        click.echo(f"no file of {new_tag} has an older version that it differs from")
        return
    table = Table("from", "file", "bytes", "delta", "share", "")
    for column in table.columns[2:5]:
        column.justify = "right"
    for row in found:
        kept = "kept" if row.published else "not worth it"
        share = f"{100 * row.ratio:.1f} %"
        table.add_row(
            row.tag, escape(row.path), f"{row.size:,}", f"{row.delta_size:,}", share, kept
        )
    console().print(table)

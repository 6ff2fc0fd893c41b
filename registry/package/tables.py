# SPDX-License-Identifier: Apache-2.0
"""What the package commands show: tables on standard output, steps on a terminal's error output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from device.console import console
from registry.package.package import Package, Packed

if TYPE_CHECKING:
    from registry.package.packing import Made
    from registry.package.verifying import Check


class Steps:
    """One line that says what is being done and how many bytes of it are; nothing where standard
    error is no terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=None, done="")
        self._step, self._bytes = "", 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def tell(self, step: str, count: int) -> None:
        """`count` more bytes of a step are done."""
        if step != self._step:
            self._step, self._bytes = step, 0
        self._bytes += count
        done = size_text(self._bytes) if self._bytes else ""
        self._progress.update(self._task, description=escape(step), done=done)


def size_text(size: int) -> str:
    """Bytes for people: "25.9 KiB"."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def package_json(package: Package) -> dict[str, Any]:
    """What `inspect --json` prints."""
    about = asdict(package.about)
    return {
        "digest": package.descriptor.digest,
        "about": {key: value for key, value in about.items() if value},
        "variants": [
            {
                "variant": packed.variant,
                "abi": packed.abi,
                "digest": packed.descriptor.digest,
                "size": packed.size,
                "files": [asdict(file) for file in packed.files],
            }
            for packed in package.variants
        ],
    }


def print_package(package: Package) -> None:
    """The files of each variant, and the lineage."""
    out, about = console(), package.about
    out.print(_about_table(package))
    stored: set[str] = set()
    for packed in package.variants:
        out.print(_variant_table(packed, stored))
        stored |= {file.digest for file in packed.files}
    total = sum(file.size for file in package.files.values())
    out.print(f"{len(package.files)} files, {size_text(total)} in all", highlight=False)
    if about.no_card:
        _say(out, f"no card variant: {about.no_card}")


def _about_table(package: Package) -> Table:
    about = package.about
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    precision = " ".join(filter(None, (about.precision, about.quantization)))
    tools = ", ".join(f"{name} {version}" for name, version in about.tools.items())
    rows = (
        ("name", f"{about.name} {about.version}"),
        ("description", about.description),
        ("digest", package.descriptor.digest),
        ("precision", precision),
        ("parameters", about.parameters),
        ("created", about.created),
        ("source", about.source),
        ("calibration", about.calibration),
        ("tools", tools),
    )
    for title, value in rows:
        if value:
            table.add_row(title, escape(value))
    return table


def _variant_table(packed: Packed, stored: set[str]) -> Table:
    """`stored`: the files of the variants before, which are kept once."""
    abi = "" if packed.abi is None else f", ABI {packed.abi}"
    title = f"variant {packed.variant}{abi}: {size_text(packed.size)}"
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for column in ("file", "role"):
        table.add_column(column, overflow="fold")
    table.add_column("size", justify="right")
    for column in ("digest", ""):
        table.add_column(column)
    for file in packed.files:
        notes = [
            f"±{file.tolerance:.3g}" if file.tolerance is not None else "",
            "block index" if file.blocks else "",
            "shared" if file.digest in stored else "",
        ]
        table.add_row(
            escape(file.path),
            escape(file.role),
            size_text(file.size),
            file.digest[:19],
            ", ".join(filter(None, notes)),
        )
    return table


def print_made(made: Made, output: Path) -> None:
    """What was packed, and what comes next."""
    out = console()
    variants = ", ".join(made.variants)
    _say(out, f"{made.name}: {made.digest}")
    _say(out, f"in {output} as {made.tag}, for: {variants}; {made.golden} golden vectors")
    if made.no_card and "card" not in made.variants:
        _say(out, f"no card variant: {made.no_card}")


def print_checks(checks: Sequence[Check]) -> None:
    """A line for each."""
    out = console()
    for check in checks:
        if check.wrong:
            _say(out, f"wrong    {check.what}: {check.wrong}")
        elif check.skipped:
            _say(out, f"skipped  {check.what}: {check.skipped}")
        else:
            _say(out, f"right    {check.what}")


def _say(out: Any, text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)

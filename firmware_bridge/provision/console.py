# SPDX-License-Identifier: Apache-2.0
"""What the provisioning commands have in common: options, times, tables."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from firmware_bridge.provision.errors import BadToken

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
OUT = click.Path(path_type=Path, dir_okay=False)
LOGGER = logging.getLogger("tepi.provision")
DEFAULT_IDENTITY = Path("/var/lib/tepi/identity")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

authority = click.argument("directory", type=FOLDER, metavar="DIR")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
identity = click.option(
    "--identity",
    "folder",
    type=FOLDER,
    default=DEFAULT_IDENTITY,
    show_default=True,
    help="Folder of this node's key and certificates.",
)


class Duration(click.ParamType[float]):
    """An option that takes a time such as 30m, 12h or 7d."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """In seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhdw])", value)
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is not a time: write 30m, 12h or 7d, for example", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])


def listen(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, int]:
    """A callback for HOST:PORT."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/\s]+):(\d{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT")
    return match[1].strip("[]"), int(match[2])


def token_text(given: str) -> str:
    """`-`: from standard input; `@FILE`: from a file; else the token itself. A command line can be
    read by others on the machine. Raises BadToken."""
    if given == "-":
        return sys.stdin.readline().strip()
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_text().strip()
        except OSError as error:
            raise BadToken(f"{given[1:]} cannot be read: {error.strerror}") from None
    return given


def tell(fields: dict[str, Any], json_wanted: bool, lines: Iterable[str]) -> None:
    """Fields for scripts, or lines for people."""
    if json_wanted:
        click.echo(json.dumps(fields))
        return
    for line in lines:
        click.echo(line)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """On standard output, as wide as it needs where that is no terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = Table(*(name.upper() for name in columns), box=None, pad_edge=False)
    for row in rows:
        found.add_row(*(escape(cell) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False, soft_wrap=not sys.stdout.isatty()).print(found)


def configure_log(as_json: bool) -> None:
    """Lines, or JSON objects, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(as_json))
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


class _Lines(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"time": moment, "level": record.levelname, "event": record.getMessage()}
        return json.dumps(fields) if self._as_json else " ".join(fields.values())

# SPDX-License-Identifier: Apache-2.0
"""What the commands of trust have in common: arguments, durations, passphrases, outcomes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from registry.trust.errors import BadRequest
from registry.trust.folder import DAY
from registry.trust.publisher import Outcome

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
_TEN_YEARS = 3650 * DAY

directory = click.argument("directory", type=FOLDER, metavar="DIR")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
offline_keys = click.option(
    "--keys",
    "offline",
    type=FOLDER,
    multiple=True,
    help="Folder with offline keys (root, targets); may be given several times.",
)
online_keys = click.option(
    "--online-keys",
    "online",
    type=FOLDER,
    help="Folder with the online keys (snapshot, timestamp, desired).  [default: DIR/keys]",
)


def seconds(text: str) -> int:
    """A time such as 30m, 12h, 7d or 2w, in seconds; raises BadRequest."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found is None or not 0 < (value := int(found[1]) * _UNITS[found[2]]) <= _TEN_YEARS:
        raise BadRequest(
            f"{text!r} is not a time that metadata can live",
            "write 30m, 12h, 7d or 52w, for example",
        )
    return value


class Duration(click.ParamType[int]):
    """An option that takes a time."""

    name = "time"

    def convert(self, value: Any, _option: Any, _context: Any) -> int:
        """In seconds."""
        if isinstance(value, int):
            return value
        try:
            return seconds(value)
        except BadRequest as error:
            raise click.BadParameter(f"{error}; {error.remedy}") from None


def ask(path: Path) -> str:
    """The passphrase of a key file, from the terminal."""
    found: str = click.prompt(f"Passphrase of {path}", hide_input=True, err=True)
    return found


def new_passphrase(wanted: bool) -> str:
    """A passphrase for new keys, asked for twice; '' where none is wanted."""
    if not wanted:
        return ""
    found: str = click.prompt(
        "Passphrase for the new keys", hide_input=True, confirmation_prompt=True, err=True
    )
    return found


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The JSON object."""
    return {
        "role": outcome.role,
        "version": outcome.version,
        "published": outcome.published,
        "signatures": outcome.have,
        "threshold": outcome.need,
        "pending": str(outcome.pending) if outcome.pending else None,
    }


def tell_outcomes(outcomes: Iterable[Outcome], json_wanted: bool, **more: Any) -> None:
    """Say what is published and what waits for more signatures."""
    found = list(outcomes)
    if json_wanted:
        click.echo(json.dumps({**more, "changes": [outcome_json(o) for o in found]}))
        return
    for outcome in found:
        if outcome.published:
            click.echo(f"published version {outcome.version} of {outcome.role}")
            continue
        click.echo(
            f"version {outcome.version} of {outcome.role} waits: it has {outcome.have} of "
            f"{outcome.need} signatures, or waits for another role\n"
            f"  take {outcome.pending} to another key holder, who runs:\n"
            f"    tepi registry sign --pending {outcome.pending.name if outcome.pending else ''}"
            " --keys KEYS\n"
            f"  then bring it back: tepi registry sign DIR --pending FILE"
        )

# SPDX-License-Identifier: Apache-2.0
"""`tepi registry status`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from device.console import console
from registry.trust.console import as_json, directory, online_keys
from registry.trust.folder import DAY, RegistryFolder
from registry.trust.holders import offline_expiry
from registry.trust.report import look_at_mirror, online_key_problems, report

__all__ = ["status"]

_EXIT_BAD = 1


@click.command(
    epilog="""\b
Examples:
  tepi registry status /srv/registry
  tepi registry status /srv/registry --json
  tepi registry status /srv/registry --mirror https://cdn.example/tuf

\b
Exits 1 where nodes would refuse what is published or what a mirror shows, and where an online key
is missing.
"""
)
@directory
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Look at what this server shows, as a new node would; may be given several times.",
)
@online_keys
@as_json
def status(directory: Path, mirrors: tuple[str, ...], online: Path | None, as_json: bool) -> int:
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
    seen = {url: look_at_mirror(folder, current, url) for url in mirrors}
    problems += [f"mirror {url}: {state.error}" for url, state in seen.items() if state.error]
    if as_json:
        shown = {url: {"error": state.error, "behind": state.behind} for url, state in seen.items()}
        document = {**found, "mirrors": shown, "problems": problems, "warnings": warnings}
        click.echo(json.dumps(document))
    else:
        _print(found)
        for url, state in seen.items():
            if not state.error:
                behind = ", ".join(state.behind)
                click.echo(f"mirror {url}: " + (f"behind in {behind}" if behind else "up to date"))
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

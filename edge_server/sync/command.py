# SPDX-License-Identifier: Apache-2.0
"""`tepi sync`: follow the registry without a server in the process, and look at one that does."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edge_server import log
from edge_server.app import product_parts
from edge_server.cli import card_option, default_threads
from edge_server.settings import Settings
from edge_server.store.errors import StoreBusy
from edge_server.sync.alone import LoneModels
from edge_server.sync.deployed import Deployments
from edge_server.sync.holds import Holds
from edge_server.sync.node import IMPORT, Node, card_abi
from edge_server.sync.progress import Bars, print_status
from edge_server.sync.settings import SyncSettings, read_settings
from edge_server.sync.states import SyncState
from edge_server.sync.status import read_status

_LOOK_SECONDS = 0.2
_RUN_EXAMPLES = """\b
Examples:
  tepi sync run sync.toml --once
  tepi sync run sync.toml --server 127.0.0.1:8001
  tepi serve --sync sync.toml     # the same within a server: the usual way

\b
Golden vectors run on the card given here; what passes becomes current in STATE/models, a model
repository that a server of its own can serve. docs/sync.md has the settings file.
Exit code of --once: 0 when all that is wanted is current, else 1.
"""
_IMPORT_EXAMPLES = """\b
Examples:
  tepi registry export registry --to /media/usb --ring stable    # where the registry is
  tepi sync import /media/usb sync.toml                          # on the node

\b
A server or a sync that runs on this node does the work; where none does, this command.
"""
_STATUS_EXAMPLES = """\b
Examples:
  tepi sync status sync.toml
  tepi sync status sync.toml --json | jq '.models[] | {model, state}'
"""
_ROLLBACK_EXAMPLES = """\b
Example:
  tepi sync rollback digits sync.toml

\b
Nothing is fetched: the package before is still here. The one that is taken back does not come
again until the registry wants yet another one.
"""
_settings_argument = click.argument(
    "settings_file", metavar="SETTINGS", type=click.Path(path_type=Path, dir_okay=False)
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(epilog=_RUN_EXAMPLES)
@_settings_argument
@click.option("--once", is_flag=True, help="Look once, install what is wanted, and exit.")
@click.option(
    "--accept-clock",
    is_flag=True,
    help="Take this machine's clock for right: where it had run ahead, and was set back since.",
)
@card_option
@click.option(
    "--server",
    default="",
    metavar="ADDRESS",
    help="A server of STATE/models, to be told of each change: HOST:PORT or unix:PATH.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The log's lines on standard error.",
)
@_json_option
def run(
    settings_file: Path,
    once: bool,
    accept_clock: bool,
    card_bus: str,
    server: str,
    log_format: str,
    as_json: bool,
) -> int:
    """Follow the registry, once or for ever."""
    log.configure(log_format)
    settings = read_settings(settings_file)
    models = _lone(settings, card_bus, server)
    abi = card_abi(card_bus)
    told = threading.Event()
    with Bars() as bars:
        node = Node(settings, models, abi, on_change=bars.show)

        def end(*_signal: object) -> None:
            told.set()
            node.interrupt()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        try:
            if accept_clock:
                node.trust.accept_clock()
            node.start(follow=not once)
            if not once:
                _say_following(node, as_json)
                told.wait()
                return 0
            good = node.once()
        finally:
            node.stop()
    return _end(node.status.found, good, as_json)


@click.command("import", epilog=_IMPORT_EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@_settings_argument
@card_option
@click.option(
    "--timeout",
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a running server may take.",
)
@_json_option
def import_folder(
    folder: Path, settings_file: Path, card_bus: str, timeout: float, as_json: bool
) -> int:
    """Take packages and trust from a USB stick."""
    settings = read_settings(settings_file)
    settings.state.mkdir(parents=True, exist_ok=True)
    link = settings.state / IMPORT
    _point(link, folder)
    try:
        try:
            node = Node(settings, _lone(settings, card_bus, ""), card_abi(card_bus))
        except StoreBusy:
            began = time.time()
            name = str(link)
            return _watch(settings, timeout, as_json, lambda f: _is_imported(f, name, began))
        try:
            node.start(follow=False)
            good = node.once()
        finally:
            node.stop()
        return _end(node.status.found, good, as_json)
    finally:
        link.unlink(missing_ok=True)


@click.command(epilog=_STATUS_EXAMPLES)
@_settings_argument
@_json_option
def status(settings_file: Path, as_json: bool) -> int:
    """Show what is current, on its way, or refused."""
    settings = read_settings(settings_file)
    found = read_status(settings.state)
    if found is None:
        raise click.ClickException(
            f"no sync has run in {settings.state} yet: start `tepi serve --sync {settings_file}`"
        )
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        print_status(found)
    return 0


@click.command(epilog=_ROLLBACK_EXAMPLES)
@click.argument("model")
@_settings_argument
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a running server may take.",
)
@_json_option
def rollback(model: str, settings_file: Path, timeout: float, as_json: bool) -> int:
    """Go back to a model's package before this one."""
    settings = read_settings(settings_file)
    deployments = Deployments(settings.state, lambda _digest: None)
    current, before = deployments.current(model), deployments.previous(model)
    if current is None or before is None:
        what = "before the one that is current" if current else "at all"
        known = ", ".join(deployments.names()) or "none"
        raise click.ClickException(
            f"there is no package of '{model}' {what} here; models here: {known}"
        )
    Holds(settings.state).hold(model, current.digest)
    try:
        node = Node(settings, _lone(settings, "none", ""), None)
    except StoreBusy:
        return _watch(settings, timeout, as_json, lambda row: _is_back(row, model, before.digest))
    try:
        deployments.roll_back(model)
        node.start(follow=False)
    finally:
        node.stop()
    return _end(node.status.found, True, as_json)


# -- beneath ----------------------------------------------------------------------------------


def _lone(settings: SyncSettings, card_bus: str, server: str) -> LoneModels:
    parts = product_parts()
    threads = default_threads()
    serving = Settings(settings.models, card=card_bus, threads=threads)
    open_card = None if card_bus == "none" else lambda: parts.open_card(serving)
    return LoneModels(open_card, parts.open_session, threads, server)


def _say_following(node: Node, as_json: bool) -> None:
    ring = node.settings.ring
    if as_json:
        click.echo(json.dumps({"following": ring, "tier": node.tier_address, "pid": os.getpid()}))
    else:
        tier = f", serving nodes below on {node.tier_address}" if node.tier_address else ""
        click.echo(f"tepi: following ring {ring}{tier}")


def _end(found: dict[str, Any], good: bool, as_json: bool) -> int:
    """Show where it got; the exit code."""
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        print_status(found)
    return 0 if good else 1


def _point(link: Path, folder: Path) -> None:
    """The link to the stick, in place of one that an interrupted import left."""
    new = link.with_name(IMPORT + ".new")
    new.unlink(missing_ok=True)
    new.symlink_to(folder.resolve())
    new.replace(link)


def _watch(
    settings: SyncSettings, timeout: float, as_json: bool, reached: Callable[[dict[str, Any]], bool]
) -> int:
    """Wait until the process that owns the node has done it."""
    end = time.monotonic() + timeout
    while True:
        found = read_status(settings.state)
        if found is not None and reached(found):
            return _end(found, True, as_json)
        if time.monotonic() > end:
            trouble = found["trouble"] if found is not None else ""
            raise click.ClickException(
                f"the server of this node did not do it within {timeout:g} s"
                f"{': ' + trouble if trouble else ''}; see its log and `tepi sync status`"
            )
        time.sleep(_LOOK_SECONDS)


def _is_imported(found: dict[str, Any], source: str, began: float) -> bool:
    fresh = found["source"] == source and found["looked_at"] >= began
    return fresh and all(row["state"] == SyncState.CURRENT for row in found["models"])


def _is_back(found: dict[str, Any], model: str, digest: str) -> bool:
    return any(
        row["model"] == model and row["current"] and row["current"]["digest"] == digest
        for row in found["models"]
    )

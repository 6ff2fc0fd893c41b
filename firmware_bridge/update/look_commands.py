# SPDX-License-Identifier: Apache-2.0
"""`tepi card identify`, `versions`, `telemetry`, `dump` and `history`: they change nothing."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from firmware_bridge.client import Controller
from firmware_bridge.errors import BridgeError
from firmware_bridge.history import History, Record
from firmware_bridge.port import BAUD
from firmware_bridge.provision.attestation import (
    Attestation,
    check_attestation,
    read_vendors,
)
from firmware_bridge.smp.errors import SmpError
from firmware_bridge.smp.fs import ERR_NOT_FOUND
from firmware_bridge.update.checks import Package, read_package
from firmware_bridge.update.facts import Facts, read_facts, text_setting
from firmware_bridge.update.options import (
    CARD_CA,
    DEFAULT_KEYS,
    EXIT_CODES,
    baud_option,
    card_at,
    history_option,
    json_option,
    port_option,
)
from firmware_bridge.update.show import SITUATIONS, show, telemetry_rows, when
from firmware_bridge.update.steps import Event, Occupied, plan

LAST_DUMP = "/dump/last.bin"
DUMP_INDEX = "/dump/index"
_NO_NODE = bytes(32)  # no node's key has this SHA-256: the proof is of no use for enrolment


class WrongCard(BridgeError):
    """The card is not the one that it says it is."""


@click.command(
    epilog="""\b
Examples:
  tepi card identify --port /dev/ttyACM0
  tepi card identify --card-ca vendor/card-ca.crt --json

\b
The card signs a number that is made up for the occasion, with a key that never leaves it; its
certificate is from its vendor. Exits 1 where that does not hold.
"""
)
@port_option
@click.option(
    "--card-ca",
    "authorities",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The vendor's authority for cards (PEM, or a vendor's folder); may be given again.  "
    "[default: /etc/tepi/vendor]",
)
@click.option("--unproven", is_flag=True, help="Print what the card says without proof.")
@baud_option
@json_option
def identify(
    port: str | None, authorities: tuple[Path, ...], unproven: bool, baud: int, as_json: bool
) -> None:
    """Say which card is at a port, and have it prove that."""
    with card_at(port, baud) as card:
        facts = read_facts(card)
        proven = "" if unproven else _proof(card, authorities)
        revision = text_setting(card, "id/revision")
    if proven and facts.serial and proven != facts.serial:
        raise WrongCard(
            f"the card says that it is {facts.serial}, and its certificate that it is {proven}",
            "do not trust it: it may be another card's certificate",
        )
    running = facts.slots.running
    found = {
        "serial": facts.serial or proven,
        "board": facts.board,
        "revision": revision,
        "firmware": running.version if running else "",
        "security_counter": facts.counter,
        "proven": bool(proven),
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    proof = "its vendor's certificate, checked" if proven else "not asked for"
    show(
        ("", ""),
        [(name.replace("_", " "), str(v)) for name, v in found.items() if name != "proven"],
    )
    click.echo(f"proof: {proof}")


def look_at(port: str, baud: int = BAUD) -> Facts:
    """What the card at a port says of itself. Raises BridgeError."""
    with card_at(port, baud) as card:
        return read_facts(card)


def _proof(card: Controller, authorities: tuple[Path, ...]) -> str:
    """The serial number that the card proves to have. Raises BridgeError."""
    files = [path / CARD_CA if path.is_dir() else path for path in (authorities or (DEFAULT_KEYS,))]
    try:
        vendors = read_vendors(files)
    except OSError as error:
        raise BridgeError(
            f"no authority to check the card's certificate with: {error.filename}: "
            f"{error.strerror}",
            "name the vendor's with --card-ca FILE, or do without proof: --unproven",
        ) from None
    nonce = secrets.token_bytes(32)
    told = card.attest(nonce, _NO_NODE)
    return check_attestation(
        Attestation(nonce, told.sig, told.cert), _NO_NODE, vendors, time.time()
    )


@click.command(
    epilog="""\b
Examples:
  tepi card versions
  tepi card versions firmware-1.4.0.bin --port /dev/ttyACM0 --json
"""
)
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@port_option
@baud_option
@json_option
def versions(file: Path | None, port: str | None, baud: int, as_json: bool) -> None:
    """Show a card's firmware: running, slots, and whether it is up to date with FILE."""
    package = read_package(file) if file else None
    with card_at(port, baud) as card:
        facts = read_facts(card)
    verdict = _verdict(facts, package) if package else ""
    if as_json:
        slots = [asdict(slot) | {"sha": slot.sha.hex()} for slot in facts.slots.all]
        found: dict[str, Any] = {"card": facts.serial, "slots": slots}
        if package:
            image = package.image
            found["package"] = {"version": str(image.version), "sha": image.hash.hex()}
            found["up_to_date"] = verdict == _UP_TO_DATE
            found["verdict"] = verdict
        click.echo(json.dumps(found))
        return
    rows = [
        (str(slot.number), slot.version, slot.sha.hex()[:16], _state(slot.active, slot))
        for slot in facts.slots.all
    ]
    if package:
        image = package.image
        rows.append(("file", str(image.version), image.hash.hex()[:16], verdict))
    show(("slot", "version", "hash", "state"), rows)


def _state(active: bool, slot: Any) -> str:
    if active:
        return "runs" if slot.confirmed else "runs on trial: a reset goes back"
    if slot.pending:
        return "to be tried at the next reset"
    return "what a reset goes back to" if slot.confirmed else "kept"


_UP_TO_DATE = "the card is up to date"


def _verdict(facts: Facts, package: Package) -> str:
    try:
        event = plan(facts.slots, package.image.hash)
    except Occupied as error:
        return f"not on the card, which has {error} on trial"
    return _UP_TO_DATE if event is Event.CURRENT else SITUATIONS[event]


@click.command(
    epilog="""\b
Examples:
  tepi card telemetry
  tepi card telemetry --watch
  tepi card telemetry --port /dev/ttyACM0 --json
"""
)
@port_option
@click.option("--watch", is_flag=True, help="Again every --interval, until interrupted.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--count", type=click.IntRange(1), help="Stop after so many looks.")
@baud_option
@json_option
def telemetry(
    port: str | None, watch: bool, interval: float, count: int | None, baud: int, as_json: bool
) -> None:
    """Show temperatures, power, clocks, voltages and the fan of a card."""
    with card_at(port, baud) as card:
        looks = 0
        while True:
            stats = {group: card.stats(group) for group in card.stat_groups()}
            if watch and not as_json:
                click.clear()
            _print_telemetry(stats, as_json)
            looks += 1
            if looks == (count or (0 if watch else 1)):
                return
            time.sleep(interval)


def _print_telemetry(stats: dict[str, dict[str, int]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"at": time.time(), **stats}))
    else:
        show(("group", "sensor", "value", "unit"), telemetry_rows(stats))


@click.command(
    epilog="""\b
Examples:
  tepi card dump
  tepi card dump --output crash.bin --port /dev/ttyACM0

\b
Exits 1 where --output was given and the card has no dump.
"""
)
@port_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the last dump here.  [default: only list]",
)
@baud_option
@json_option
def dump(port: str | None, output: Path | None, baud: int, as_json: bool) -> None:
    """Fetch a card's crash dumps."""
    with card_at(port, baud) as card:
        index = json.loads(card.file_read(DUMP_INDEX))
        data = _last_dump(card) if output else b""
    if output:
        output.write_bytes(data)
    if as_json:
        written = {"file": str(output), "bytes": len(data), "sha256": sha256(data).hexdigest()}
        click.echo(json.dumps({"dumps": index, "written": written if output else None}))
        return
    rows = [(str(d["file"]), str(d["bytes"]), when(d["time"]), str(d["reason"])) for d in index]
    if rows:
        show(("file", "bytes", "time", "reason"), rows)
    else:
        click.echo("no crash dumps")
    if output:
        click.echo(f"wrote {len(data)} bytes to {output}")


def _last_dump(card: Controller) -> bytes:
    try:
        return card.file_read(LAST_DUMP)
    except SmpError as error:
        if error.rc == ERR_NOT_FOUND:
            raise BridgeError("the card has no crash dump", "there is nothing to fetch") from None
        raise


@click.command(
    "history",
    epilog=f"""\b
Examples:
  tepi card history
  tepi card history --card TC1-0042 --json

{EXIT_CODES}""",
)
@click.option("--card", default="", help="Only this card: its serial number or its port.")
@click.option(
    "--last", type=click.IntRange(1), default=50, show_default=True, help="So many lines."
)
@history_option
@json_option
def show_history(card: str, last: int, history_folder: Path, as_json: bool) -> None:
    """Show what was done to cards from this machine."""
    found = History(history_folder).read(card)[-last:]
    if as_json:
        click.echo(json.dumps([asdict(record) for record in found]))
    elif not found:
        click.echo("nothing yet")
    else:
        columns = ("time", "card", "action", "step", "outcome", "version", "detail")
        show(columns, map(_row, found))


def _row(record: Record) -> tuple[str, ...]:
    step = record.step
    return (
        when(record.at), record.card, record.action, step, record.outcome, record.version,
        record.detail,
    )  # fmt: skip

# SPDX-License-Identifier: Apache-2.0
"""The card of a running server, from the shell: `tepi card list`, `info`, `log`, `diag`, and, of a
server started with --card-control, `reset`, `detach` and `attach`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from device.console import console
from edge_server.client import CARD_CONTROL, CallError, Client
from wire import tepi_card_pb2 as pb

M = TypeVar("M", bound=Message)

SECONDS = 120.0  # attach and reset answer once every model is on the card again
_EXIT_BAD = 1  # a card that is not in order


def call(method: str, request: Message, address: str, answer: type[M]) -> M:
    """One call of CardControl; what goes wrong ends the command with its reason."""
    with Client(address, SECONDS) as client:
        try:
            return client.call(CARD_CONTROL, method, request, answer)
        except CallError as error:
            raise click.ClickException(str(error)) from None


def as_dict(message: Message) -> dict[str, Any]:
    """With every field, in the names of the .proto."""
    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def state_of(status: pb.CardStatus) -> str:
    """As docs/card-states.md calls it."""
    return pb.CardState.Name(status.state).removeprefix("CARD_STATE_").lower()


def table(*columns: str) -> Any:
    """A table without lines, as wide as it needs."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False)
    for column in columns:
        found.add_column(column, overflow="fold")
    return found


address_option = click.option(
    "--address",
    default="127.0.0.1:8001",
    show_default=True,
    help="The server: HOST:PORT, unix:PATH, or grpcs://HOST:PORT?identity=DIR.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def _print_status(status: pb.CardStatus, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(as_dict(status)))
        return
    click.echo(f"card {status.bus}: {state_of(status)}" + (status.reason and f" ({status.reason})"))
    registers = status.registers
    if status.isa:
        memory, free = registers["memory"] >> 20, registers["memory_free"] >> 20
        click.echo(f"{status.isa}, {registers['workers']} workers, {free} of {memory} MiB free")
    click.echo(f"lost {status.losses}, reset {status.resets}, back {status.returns} times")
    for code, count in sorted(status.faults.items()):
        click.echo(f"fault {code}: {count} times")
    for model in status.models:
        why = f" ({model.reason})" if model.reason else ""
        click.echo(f"{model.name}/{model.version}: {model.state}, {model.device or 'none'}{why}")


@click.command(
    "list",
    epilog="""\b
Examples:
  tepi card list
  tepi card list --probe
  tepi card list --port socket://10.0.0.7:7000 --json

\b
Cards are found by their USB descriptors and in /run/tepi/*.mcu; no port is opened without --probe
or --port. Exits 1 where there is neither a server nor a card.
""",
)
@address_option
@click.option("--probe", is_flag=True, help="Ask every card found who it is and what it runs.")
@click.option("--port", "ports", multiple=True, help="Ask the card at this port as well.")
@_JSON
def list_cards(address: str, probe: bool, ports: tuple[str, ...], as_json: bool) -> None:
    """List the cards of the server with their states, and the cards found at this machine's
    ports."""
    found = controllers(ports, probe)
    try:
        with Client(address, SECONDS) as client:
            status = client.call(CARD_CONTROL, "Status", pb.CardStatusRequest(), pb.CardStatus)
    except CallError as error:
        if not found:
            raise click.ClickException(str(error)) from None
        click.echo(str(error), err=True)
        status = None
    if as_json:
        rows: list[dict[str, Any]] = [] if status is None else [_server_row(status)]
        click.echo(json.dumps(rows + found))
        return
    if status is not None:
        cards = table("card", "state", "isa", "memory MiB", "models on it")
        models = [f"{m.name}/{m.version}" for m in status.models if m.device.startswith("card")]
        memory = str(status.registers["memory"] >> 20) if status.isa else ""
        cards.add_row(status.bus, state_of(status), status.isa, memory, " ".join(models))
        console().print(cards)
    if found:
        keys = ("port", "kind", "serial", "usb", "board", "firmware", "note")
        lines = table(*keys)
        for row in found:
            lines.add_row(*(str(row.get(key, "")) for key in keys))
        console().print(lines)


def _server_row(status: pb.CardStatus) -> dict[str, Any]:
    row = {"bus": status.bus, "state": state_of(status), "isa": status.isa}
    return row | dict(status.registers)


def controllers(ports: Sequence[str], probe: bool) -> list[dict[str, Any]]:
    """The cards at this machine's ports, and those at `ports`, which are asked like all with
    `probe`."""
    from firmware_bridge.update.command import list_ports

    found = [
        {
            "port": card.port,
            "kind": card.kind,
            "serial": card.serial,
            "usb": card.usb,
            "note": card.description,
        }
        for card in list_ports()
        if card.port not in ports
    ]
    if probe:
        found = [row | _asked(row["port"]) for row in found]
    return found + [{"port": port, "kind": "given"} | _asked(port) for port in ports]


def _asked(port: str) -> dict[str, Any]:
    """What the card at a port says of itself; where it does not, why."""
    from firmware_bridge.errors import BridgeError
    from firmware_bridge.update.command import look_at

    try:
        facts = look_at(port)
    except BridgeError as error:
        return {"note": str(error)}
    running = facts.slots.running
    return {
        "serial": facts.serial,
        "board": facts.board,
        "firmware": running.version if running else "none",
    }


@click.command(epilog="Exits 0 where the card is ready, and 1 where it is not.")
@address_option
@_JSON
def info(address: str, as_json: bool) -> None:
    """Show the card's state, its faults and where each model runs."""
    status = call("Status", pb.CardStatusRequest(), address, pb.CardStatus)
    _print_status(status, as_json)
    if status.state not in (pb.CARD_STATE_READY, pb.CARD_STATE_NONE):
        raise click.exceptions.Exit(_EXIT_BAD)


@click.command()
@address_option
@_JSON
def log(address: str, as_json: bool) -> None:
    """Show the card's own fault log, the newest last, with what to do about each fault."""
    found = call("Log", pb.CardLogRequest(), address, pb.CardLog)
    if as_json:
        click.echo(json.dumps(as_dict(found)["entries"]))
        return
    if not found.entries:
        click.echo("no faults")
        return
    rows = table("#", "seconds ago", "fault", "severity", "info", "meaning", "remedy")
    for entry in found.entries:
        ago = f"{entry.ago_ns / 1e9:.1f}"
        name = f"{entry.code} {entry.fault}"
        number, detail = str(entry.sequence), str(entry.info)
        rows.add_row(number, ago, name, entry.severity, detail, entry.meaning, entry.remedy)
    console().print(rows)


@click.command(
    epilog="""\b
Level 1 looks: state, registers, heartbeat, fault log, round trip of an empty command.
Level 2 also runs shadow requests of every model and compares the answers with onnxruntime's.
Level 3 also resets the card (the server needs --card-control).
Exits 0 where every check passes, and 1 where one does not.
"""
)
@address_option
@click.option("--level", type=click.IntRange(1, 3), default=1, show_default=True)
@_JSON
def diag(address: str, level: int, as_json: bool) -> None:
    """Check whether the card is in order; requests go on meanwhile."""
    found = call("Diagnose", pb.CardDiagnoseRequest(level=level), address, pb.CardDiagnosis)
    if as_json:
        click.echo(json.dumps(as_dict(found)["checks"]))
    else:
        rows = table("check", "", "found", "remedy")
        for check in found.checks:
            mark = "[green]ok[/]" if check.passed else "[red]FAILED[/]"
            rows.add_row(check.name, mark, check.detail, check.remedy)
        console().print(rows)
    if not all(check.passed for check in found.checks):
        raise click.exceptions.Exit(_EXIT_BAD)


def _change(method: str, request: Message, address: str, as_json: bool) -> None:
    _print_status(call(method, request, address, pb.CardStatus), as_json)


@click.command(
    epilog="""\b
Examples:
  tepi card reset
  tepi card reset --port /dev/ttyACM0

\b
With --port the card's management controller restarts, and nothing else: no server is needed. A
firmware on trial is gone after that. Exits 1, with the reason, where the card does not come back,
and 16 or 17 where its port is busy or silent.
"""
)
@address_option
@click.option("--port", help="Restart the controller at this port instead.")
@click.option(
    "--history",
    "history_folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/tepi/cards"),
    show_default=True,
    help="With --port: folder where that is written down.",
)
@_JSON
def reset(address: str, port: str | None, history_folder: Path, as_json: bool) -> None:
    """Reset the card, load every model again and put it through probation."""
    if port is None:
        _change("Reset", pb.CardResetRequest(), address, as_json)
        return
    from firmware_bridge.update.command import reset_controller

    version = reset_controller(port, history_folder)
    found = json.dumps({"port": port, "firmware": version})
    click.echo(found if as_json else f"controller at {port}: restarted, runs {version}")


@click.command()
@address_option
@_JSON
def detach(address: str, as_json: bool) -> None:
    """Take the card away at once; requests go on under each model's policy."""
    _change("Detach", pb.CardDetachRequest(), address, as_json)


@click.command()
@address_option
@_JSON
def attach(address: str, as_json: bool) -> None:
    """Bring the card back and every model onto it."""
    _change("Attach", pb.CardAttachRequest(), address, as_json)


@click.command()
@address_option
@click.option(
    "--reason", default="", metavar="TEXT", help="Shown wherever the card's state is shown."
)
@_JSON
def drain(address: str, reason: str, as_json: bool) -> None:
    """Let requests go without the card; those under way finish on it."""
    _change("Drain", pb.CardDrainRequest(reason=reason), address, as_json)


@click.command()
@address_option
@_JSON
def resume(address: str, as_json: bool) -> None:
    """End a drain: load every model again and prove the card."""
    _change("Resume", pb.CardResumeRequest(), address, as_json)

# SPDX-License-Identifier: Apache-2.0
"""The card of a running server, through its CardControl service: `tepi card status`, `detach` and
`attach`, of a server started with --card-control."""

from __future__ import annotations

import json

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from edge_server.client import CARD_CONTROL, CallError, Client
from wire import tepi_card_pb2 as pb

_SECONDS = 120.0  # attach answers once every model is on the card again


def _call(method: str, request: Message, address: str, as_json: bool) -> None:
    with Client(address, _SECONDS) as client:
        try:
            status = client.call(CARD_CONTROL, method, request, pb.CardStatus)
        except CallError as error:
            if "UNIMPLEMENTED" in str(error):
                raise click.ClickException(
                    f"the server at {address} was started without --card-control"
                ) from None
            raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(MessageToDict(status, preserving_proto_field_name=True)))
        return
    state = pb.CardState.Name(status.state).removeprefix("CARD_STATE_").lower()
    click.echo(f"card {status.bus}: {state}" + (f" ({status.reason})" if status.reason else ""))
    click.echo(f"lost {status.losses} times, back {status.returns} times")
    for code, count in sorted(status.faults.items()):
        click.echo(f"fault {code}: {count} times")
    for model in status.models:
        why = f" ({model.reason})" if model.reason else ""
        click.echo(f"{model.name}/{model.version}: {model.device or 'refused'}{why}")


_ADDRESS = click.option(
    "--address",
    default="127.0.0.1:8001",
    show_default=True,
    help="The server: HOST:PORT or unix:PATH.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")


@click.command()
@_ADDRESS
@_JSON
def status(address: str, as_json: bool) -> None:
    """Show the card's state, its faults and where each model runs."""
    _call("Status", pb.CardStatusRequest(), address, as_json)


@click.command()
@_ADDRESS
@_JSON
def detach(address: str, as_json: bool) -> None:
    """Take the card away at once; requests go on under each model's policy."""
    _call("Detach", pb.CardDetachRequest(), address, as_json)


@click.command()
@_ADDRESS
@_JSON
def attach(address: str, as_json: bool) -> None:
    """Bring the card back and every model onto it."""
    _call("Attach", pb.CardAttachRequest(), address, as_json)

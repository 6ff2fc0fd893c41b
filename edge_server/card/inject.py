# SPDX-License-Identifier: Apache-2.0
"""`tepi card inject`: faults for a software card, to see what a server makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edge_server.card.command import address_option, call
from wire import tepi_card_pb2 as pb

_REMOVAL = "REMOVAL"


@click.command(
    epilog="""\b
Examples:
  tepi card inject HANG
  tepi card inject SLOW --factor 50 --count 20 --control card.control
  tepi card inject CORRUPT_COMPLETION --on execute --after 100
  tepi card inject REMOVAL --seconds 2 --control card.control
  tepi card inject --plan faults.json
  tepi card inject --end

\b
The server is one with --card inproc and --card-control.
Kinds: HANG, SLOW, WRONG_GENERATION, CORRUPT_COMPLETION, DMA_ERROR,
THERMAL_THROTTLE, THERMAL_SHUTDOWN, RESET_FAILS, FIRMWARE_ASSERT, BIT_FLIP
(--count 1: corrected, 2: fatal), BIT_FLIP_UNDETECTED, REMOVAL. A plan
is a list of {"kind": …, "trigger": "command" | "execute" | "load", "after": n,
"count": n, "factor": n, "ns": n, "repeat": n}; it takes the place of the one
before. docs/card.md tells what each does.
"""
)
@click.argument("kind", required=False)
@click.option("--plan", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--end", is_flag=True, help="End the plan that is in force.")
@click.option(
    "--on",
    "trigger",
    type=click.Choice(["command", "execute", "load"]),
    default="command",
    show_default=True,
    help="What --after counts.",
)
@click.option("--after", type=click.IntRange(0), default=0, help="With that command; 0: at once.")
@click.option("--count", type=click.IntRange(0), default=1, show_default=True)
@click.option("--factor", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0, 3600), default=1.0, show_default=True, help="Of REMOVAL."
)
@address_option
@click.option(
    "--control",
    type=click.Path(path_type=Path),
    help="Instead: the control socket of a `tepi card serve`.",
)
def inject(
    kind: str | None,
    plan: Path | None,
    end: bool,
    trigger: str,
    after: int,
    count: int,
    factor: int,
    seconds: float,
    address: str,
    control: Path | None,
) -> None:
    """Let a software card suffer a fault, or a plan of them, to see what follows."""
    if (kind is not None) + (plan is not None) + end != 1:
        raise click.UsageError("name one of KIND, --plan and --end")
    if kind == _REMOVAL:
        if control is None:
            raise click.UsageError("REMOVAL needs --control; of a server use `tepi card detach`")
        _order(control, {"remove_s": seconds})
        return
    entries: Any = []
    if kind is not None:
        entry = {"kind": kind, "trigger": trigger, "after": after, "count": count}
        entries = [entry | ({"factor": factor} if kind in ("SLOW", "THERMAL_THROTTLE") else {})]
    elif plan is not None:
        try:
            entries = json.loads(plan.read_text(encoding="utf-8"))
        except ValueError as error:
            raise click.ClickException(f"{plan} is no JSON: {error}") from None
    if control is not None:
        _order(control, {"plan": entries})
    else:
        call("Inject", pb.CardInjectRequest(plan=json.dumps(entries)), address, pb.CardStatus)


def _order(control: Path, request: dict[str, Any]) -> None:
    from device.control import Unreachable, ask

    try:
        ask(control, request)
    except (ValueError, Unreachable) as error:
        raise click.ClickException(str(error)) from None

# SPDX-License-Identifier: Apache-2.0
"""`tepi card top`: the card and its models, live in the terminal."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from edge_server.card.command import address_option, as_dict, call, state_of, table
from wire import tepi_card_pb2 as pb


@click.command()
@address_option
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--count", type=click.IntRange(1), help="Looks, then stop.  [default: until Ctrl-C]")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON each time.")
def top(address: str, interval: float, count: int | None, as_json: bool) -> None:
    """Watch the card: use, requests, latency, temperature, power and faults."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    before = _look(address)
    shown = 0
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while count is None or shown < count:
            time.sleep(interval)
            now = _look(address)
            rates = Rates(before, now)
            if as_json:
                click.echo(json.dumps(rates.values()))
            else:
                live.update(rates.view(), refresh=True)
            before, shown = now, shown + 1


_READINGS = (
    ("temp.die_c", "°C", ".1f"),
    ("power.card_w", "W", ".1f"),
    ("clock.core_mhz", "MHz", ".0f"),
    ("volt.core_v", "V", ".3f"),
    ("fan.rpm", "rpm", ".0f"),
)
"""What of the controller's readings fits a line; --json has all."""


def _look(address: str) -> pb.CardStatus:
    return call("Status", pb.CardStatusRequest(), address, pb.CardStatus)


class Rates:
    """What happened between two looks."""

    def __init__(self, before: pb.CardStatus, now: pb.CardStatus) -> None:
        self._before = before
        self._now = now
        self._seconds = max((now.clock_ns - before.clock_ns) / 1e9, 1e-9)

    def use(self) -> float | None:
        """Share of the workers' time that the card computed, where it counts that."""
        registers = self._now.registers
        if "busy_ns" not in registers or "busy_ns" not in self._before.registers:
            return None
        busy = registers["busy_ns"] - self._before.registers["busy_ns"]
        share = busy / 1e9 / self._seconds / max(registers["workers"], 1)
        return min(max(share, 0.0), 1.0)

    def models(self) -> list[dict[str, Any]]:
        """A row each; `ms` is the mean of the requests answered meanwhile."""
        earlier = {(m.name, m.version): m for m in self._before.models}
        rows = []
        for model in self._now.models:
            then = earlier.get((model.name, model.version), pb.CardModel())
            requests = max(model.requests - then.requests, 0)
            taken = max(model.request_ns - then.request_ns, 0)
            rows.append(
                {
                    "model": f"{model.name}/{model.version}",
                    "state": model.state,
                    "device": model.device,
                    "per_second": requests / self._seconds,
                    "ms": taken / requests / 1e6 if requests else None,
                    "pending": model.pending,
                    "fallbacks": max(model.fallbacks - then.fallbacks, 0),
                    "failures": max(model.failures - then.failures, 0),
                }
            )
        return rows

    def values(self) -> dict[str, Any]:
        """For scripts."""
        status = as_dict(self._now)
        keep = ("bus", "reason", "isa", "losses", "returns", "resets", "faults", "registers")
        return (
            {"state": state_of(self._now), "use": self.use()}
            | {name: status[name] for name in keep}
            | {"models": self.models(), "controller": status.get("controller")}
        )

    def view(self) -> Any:
        """For people."""
        from rich.console import Group

        now = self._now
        reason = f"  {now.reason}" if now.reason else ""
        lines = [f"card {now.bus}  [bold]{state_of(now)}[/]  {now.isa}{reason}", self._gauges()]
        faults = "  ".join(f"{code} x{n}" for code, n in sorted(now.faults.items())) or "none"
        lines.append(f"faults {faults}   lost {now.losses}  reset {now.resets}  back {now.returns}")
        if now.HasField("controller"):
            lines.append(_controller(now.controller))
        rows = table("model", "state", "device", "req/s", "ms", "pending", "fallbacks", "failures")
        for row in self.models():
            ms = "" if row["ms"] is None else f"{row['ms']:.3f}"
            rows.add_row(
                *(row["model"], row["state"], row["device"], f"{row['per_second']:.1f}", ms),
                *(str(row[name]) for name in ("pending", "fallbacks", "failures")),
            )
        return Group(*lines, "", rows)

    def _gauges(self) -> str:
        registers, use = self._now.registers, self.use()
        parts = []
        if use is not None:
            filled = round(use * 20)
            parts.append(f"use [{'█' * filled}{'·' * (20 - filled)}] {use:4.0%}")
        if "memory" in registers:
            used = registers["memory"] - registers["memory_free"]
            parts.append(f"memory {used >> 20} of {registers['memory'] >> 20} MiB")
        if "temperature_mc" in registers:
            parts.append(f"{registers['temperature_mc'] / 1000:.1f} °C")
        if "power_mw" in registers:
            parts.append(f"{registers['power_mw'] / 1000:.2f} W")
        return "   ".join(parts) or "the card does not answer"


def _controller(said: pb.CardController) -> str:
    """One line of what the controller reads, or why it says nothing; its newest fault."""
    if said.error:
        return f"controller {said.port}: {said.error}"
    readings = "  ".join(
        f"{said.readings[name]:{form}} {text}"
        for name, text, form in _READINGS
        if name in said.readings
    )
    newest = said.faults[-1] if said.faults else None
    fault = f"   last {newest.fault}, {newest.ago_ns / 1e9:.0f} s ago" if newest else ""
    return f"controller {said.serial} {said.firmware}  {readings}{fault}"

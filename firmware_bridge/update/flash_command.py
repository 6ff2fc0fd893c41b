# SPDX-License-Identifier: Apache-2.0
"""`tepi card flash`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Flag
from typing import Any

import click

from firmware_bridge.discovery import find_cards
from firmware_bridge.errors import BridgeError
from firmware_bridge.history import History
from firmware_bridge.update.checks import Demands, Package, read_package
from firmware_bridge.update.errors import NoCards
from firmware_bridge.update.flow import Outcome, Plan, Told, Update
from firmware_bridge.update.hooks import Host, HostVersions, LoneHost
from firmware_bridge.update.options import (
    EXIT_CODES,
    F,
    back_option,
    baud_option,
    history_option,
    image_keys,
    json_option,
    line_of,
    options,
    the_port,
)
from firmware_bridge.update.several import Result, Stoppable, update_all
from firmware_bridge.update.show import SITUATIONS, Silent, show, terminal

_EXAMPLES = f"""\b
Examples:
  tepi card flash firmware-1.4.0.bin --dry-run
  tepi card flash firmware-1.4.0.bin --port /dev/ttyACM0 --image-key vendor.pub.pem
  tepi card flash firmware-1.4.0.bin --port /dev/ttyACM0 --server 127.0.0.1:8001
  tepi card flash firmware-1.4.0.bin --all --jobs 4

\b
It may be interrupted, and the card may lose its power, at any moment: run the same command again
and it goes on from there. Of several cards the first goes alone, until it is confirmed.
docs/flash-states.md shows the steps.

{EXIT_CODES}"""

ports_option = click.option(
    "--port",
    "ports",
    multiple=True,
    help="A controller's port; may be given again.  [default: the only card there is]",
)


def _choices() -> Callable[[F], F]:
    return options(
        ports_option,
        click.option("--all", "every", is_flag=True, help="Every card that `list` finds."),
        click.option(
            "--image-key",
            "keys",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Public key (PEM, or a vendor's folder) that may have signed the image; may be "
            "given again.  [default: /etc/tepi/vendor]",
        ),
        click.option(
            "--server",
            "servers",
            multiple=True,
            metavar="ADDRESS",
            help="The `tepi serve` that uses the card: it drains the card before, has it back "
            "after and diagnoses it. With several cards: one for each --port, in that order.",
        ),
        click.option(
            "--dry-run", is_flag=True, help="Check, say what would be done, write nothing."
        ),
        click.option(
            "--no-confirm",
            is_flag=True,
            help="Leave the image on trial: a reset goes back to the one before.",
        ),
        click.option(
            "--allow-downgrade",
            is_flag=True,
            help="Take an earlier version than what runs, where the security counter permits.",
        ),
        click.option(
            "--force",
            is_flag=True,
            help="Go on though the image is not for this driver or ABI. Nothing skips a signature.",
        ),
        click.option("--driver", metavar="VERSION", help="Driver's version to check against."),
        click.option("--abi", metavar="VERSION", help="ABI of card programs to check against."),
        click.option(
            "--jobs",
            type=click.IntRange(1, 64),
            default=4,
            show_default=True,
            help="Cards at a time, after the first.",
        ),
        back_option,
        baud_option,
        history_option,
        json_option,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """What is the same for every card of one command."""

    package: Package
    demands: Demands
    history: History
    host: Host
    servers: dict[str, str]  # by port
    baud: int
    back_seconds: float
    confirm: bool

    def update(self, port: str, told: Told, *, dry: bool) -> Outcome | Plan:
        """One card, from opening its port to closing it. Raises BridgeError."""
        server = self.host.server(self.servers.get(port, ""))
        with line_of(port, self.baud, self.back_seconds) as line:
            update = Update(
                line,
                self.package,
                self.demands,
                self.history,
                told,
                server=server,
                confirm=self.confirm,
            )
            return update.plan() if dry else update.run()

    def run(self, port: str, told: Told) -> Outcome:
        """All steps."""
        outcome = self.update(port, told, dry=False)
        assert isinstance(outcome, Outcome)
        return outcome

    def plan(self, port: str) -> Plan:
        """What `run` would do."""
        plan = self.update(port, Silent(), dry=True)
        assert isinstance(plan, Plan)
        return plan


def flash_command(host: Host) -> click.Command:
    """`tepi card flash` on a machine of which `host` knows the versions and the servers."""

    @click.command("flash", epilog=_EXAMPLES)
    @click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
    @_choices()
    def flash(
        file: Path,
        ports: tuple[str, ...],
        every: bool,
        keys: tuple[Path, ...],
        servers: tuple[str, ...],
        dry_run: bool,
        no_confirm: bool,
        allow_downgrade: bool,
        force: bool,
        driver: str | None,
        abi: str | None,
        jobs: int,
        back_seconds: float,
        baud: int,
        history_folder: Path,
        as_json: bool,
    ) -> None:
        """Put firmware into cards: check, upload, test, confirm, or go back."""
        known = host.versions()
        versions = HostVersions(driver or known.driver, abi or known.abi)
        job = _Job(
            read_package(file),
            Demands(image_keys(keys), versions, force, allow_downgrade),
            History(history_folder),
            host,
            {},
            baud,
            back_seconds,
            not no_confirm,
        )
        chosen = _ports(ports, every)
        job = replace(job, servers=_servers(servers, chosen))
        if dry_run:
            _print_plans([(port, job.plan(port)) for port in chosen], as_json)
            return
        _report(_run(job, chosen, jobs, as_json), as_json)

    return flash


def _ports(ports: Sequence[str], every: bool) -> list[str]:
    if ports and every:
        raise click.UsageError("give --port or --all, not both")
    if not every:
        chosen = list(ports) or [the_port(None)]
    else:
        chosen = [card.port for card in find_cards()]
        if not chosen:
            raise NoCards("no card was found", "say where one is with --port")
    if len(set(chosen)) != len(chosen):
        raise click.UsageError("the same --port twice")
    return chosen


def _servers(servers: Sequence[str], ports: Sequence[str]) -> dict[str, str]:
    if servers and len(servers) != len(ports):
        raise click.UsageError(
            f"{len(ports)} cards and {len(servers)} times --server: give one for each card"
        )
    return dict(zip(ports, servers, strict=False))


def _run(job: _Job, ports: Sequence[str], jobs: int, as_json: bool) -> list[Result]:
    stop = Flag()
    if as_json:
        told = Stoppable(Silent(), stop)
        return update_all(ports, lambda port: job.run(port, told), jobs, stop)
    with terminal() as shown:
        told = Stoppable(shown, stop)
        return update_all(ports, lambda port: job.run(port, told), jobs, stop)


def _as_dict(result: Result) -> dict[str, Any]:
    if result.error is not None:
        return {
            "port": result.port,
            "result": "failed",
            "error": str(result.error),
            "remedy": result.error.remedy,
            "exit_code": result.exit_code,
        }
    if result.outcome is None:
        return {"port": result.port, "result": "not tried"}
    outcome = result.outcome
    return {
        "port": result.port,
        "card": outcome.card,
        "result": str(outcome.end),
        "before": outcome.before,
        "version": outcome.version,
        "changed": outcome.changed,
    }


def _report(results: list[Result], as_json: bool) -> None:
    """Say what became of each card; raises the error of a single one, else exits with the code of
    the first that failed."""
    failed = [result for result in results if result.error is not None]
    if as_json:
        click.echo(json.dumps({"cards": [_as_dict(result) for result in results]}))
    elif len(results) == 1 and failed:
        assert isinstance(failed[0].error, BridgeError)
        raise failed[0].error
    else:
        for result in results:
            _say(result)
    if failed:
        raise click.exceptions.Exit(failed[0].exit_code)


def _say(result: Result) -> None:
    outcome, error = result.outcome, result.error
    if error is not None:
        click.echo(str(error) + (error.remedy and f"\n  {error.remedy}"), err=True)
    elif outcome is None:
        click.echo(f"card at {result.port}: not tried, since the first card failed", err=True)
    else:
        was = f", {outcome.before} before" if outcome.changed and outcome.before else ""
        state = {"done": "for good", "on trial": "on trial"}[str(outcome.end)]
        what = "runs" if outcome.changed else "already runs"
        click.echo(f"card {outcome.card}: {what} {outcome.version} {state}{was}")


def _print_plans(plans: list[tuple[str, Plan]], as_json: bool) -> None:
    if as_json:
        found = [
            {
                "port": port,
                "card": plan.facts.serial,
                "checks": {checked.name: checked.found for checked in plan.checked},
                "finds": str(plan.event),
                "steps": [str(step) for step in plan.steps],
            }
            for port, plan in plans
        ]
        click.echo(json.dumps({"cards": found}))
        return
    for port, plan in plans:
        where = SITUATIONS[plan.event]
        click.echo(f"card {plan.facts.serial or port} at {port}: {where}")
        show(("check", "found"), [(checked.name, checked.found) for checked in plan.checked])
        click.echo(f"would: {', '.join(plan.steps)}; nothing was written")


flash = flash_command(LoneHost())

# SPDX-License-Identifier: Apache-2.0
"""`tepi card confirm`, `revert`, `erase` and `limits`; and what `tepi card reset --port` does."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from firmware_bridge.client import Controller
from firmware_bridge.errors import BridgeError
from firmware_bridge.history import History
from firmware_bridge.port import BAUD
from firmware_bridge.smp.errors import SmpError
from firmware_bridge.update.errors import NothingToDo
from firmware_bridge.update.facts import number_setting, read_slots, text_setting
from firmware_bridge.update.line import BACK_SECONDS, Line
from firmware_bridge.update.options import (
    EXIT_CODES,
    back_option,
    baud_option,
    history_option,
    json_option,
    line_of,
    port_option,
    the_port,
)
from firmware_bridge.update.show import show
from firmware_bridge.update.steps import Slots

LIMITS: Final = {
    "limit/power_w": ("power", "W"),
    "limit/temp_c": ("temperature", "°C"),
    "fan/min_pct": ("fan at least", "%"),
}
_NUMBER_BYTES: Final = 4


class _Change:
    """One change to one card, written down before and after it is done."""

    def __init__(self, line: Line, history: History, action: str) -> None:
        self.line = line
        self.card = text_setting(line.controller(), "id/serial") or line.port
        self._history = history
        self._action = action
        self._run = secrets.token_hex(4)

    def note(self, outcome: str, detail: str = "", version: str = "") -> None:
        """A line of the history."""
        self._history.add(
            self.card,
            self.line.port,
            self._run,
            self._action,
            outcome=outcome,
            version=version,
            detail=detail,
        )

    def say(self, as_json: bool, text: str, **found: object) -> None:
        """What came of it."""
        click.echo(
            json.dumps({"card": self.card, **found}) if as_json else f"card {self.card}: {text}"
        )


@contextmanager
def _change(
    port: str | None, baud: int, folder: Path, action: str, back_seconds: float = BACK_SECONDS
) -> Iterator[_Change]:
    """The history has room, and the card answers. What goes wrong names the card."""
    url = the_port(port)
    name = url
    try:
        with line_of(url, baud, back_seconds) as line:
            history = History(folder)
            change = _Change(line, history, action)
            name = change.card
            history.reserve()
            yield change
    except BridgeError as error:
        error.args = (f"card {name}: {error}",)
        raise


def _running(slots: Slots) -> str:
    return slots.running.version if slots.running else "nothing"


@click.command(
    epilog=f"""\b
Examples:
  tepi card confirm
  tepi card confirm --port /dev/ttyACM0 --json

{EXIT_CODES}"""
)
@port_option
@baud_option
@history_option
@json_option
def confirm(port: str | None, baud: int, history_folder: Path, as_json: bool) -> None:
    """Keep the firmware that a card runs on trial."""
    with _change(port, baud, history_folder, "confirm") as change:
        slots = change.line.slots()
        if slots.running is None:
            raise NothingToDo("it runs no firmware", "give it some with `tepi card flash`")
        version, trial = slots.running.version, slots.running.on_trial
        if trial:
            change.note("began", version=version)
            change.line.controller().confirm()
            change.note("confirmed", version=version)
        text = f"keeps {version}" if trial else f"had kept {version} already"
        change.say(as_json, text, version=version, changed=trial)


@click.command(
    epilog=f"""\b
Examples:
  tepi card revert
  tepi card revert --port /dev/ttyACM0 --json

\b
A firmware on trial is left, and one that is to be tried is not tried. From a confirmed firmware it
goes back while the card still holds the one before: until its next reset. After that go to an
earlier one with `tepi card flash EARLIER --allow-downgrade`.

{EXIT_CODES}"""
)
@port_option
@back_option
@baud_option
@history_option
@json_option
def revert(
    port: str | None, back_seconds: float, baud: int, history_folder: Path, as_json: bool
) -> None:
    """Go back to a card's firmware before."""
    with _change(port, baud, history_folder, "revert", back_seconds) as change:
        slots = change.line.slots()
        before = _running(slots)
        change.note("began", f"from {before}", before)
        version = _running(_gone_back(change.line, slots))
        change.note("reverted", f"from {before}", version)
        change.say(as_json, f"runs {version}", version=version, before=before)


def _gone_back(line: Line, slots: Slots) -> Slots:
    """The slots once the firmware before runs for good, or what was to be tried is taken back."""
    running, second = slots.running, slots.second
    if not slots.settled:
        line.controller().erase(1)
        return line.slots()
    if running is not None and running.on_trial:
        line.reset()
        return line.wait_for(lambda now: now.running is not None and now.running.sha != running.sha)
    if second is None:
        raise NothingToDo(
            f"it runs {_running(slots)} for good, and holds no other firmware",
            "go to an earlier version with `tepi card flash FILE --allow-downgrade`",
        )
    line.controller().test(second.sha)
    line.reset()
    after = line.wait_for(lambda now: now.running is not None and now.settled)
    if after.running is None or after.running.sha != second.sha:
        raise NothingToDo(
            f"its bootloader refused {second.version}; it runs {_running(after)}",
            "an earlier version below the card's security counter does not run on it any more",
        )
    line.controller().confirm()
    return line.slots()


@click.command(
    epilog=f"""\b
Examples:
  tepi card erase --port /dev/ttyACM0

{EXIT_CODES}"""
)
@port_option
@baud_option
@history_option
@json_option
def erase(port: str | None, baud: int, history_folder: Path, as_json: bool) -> None:
    """Empty a card's second firmware slot.

    An image that is to be tried at the next reset goes too. While a firmware is on trial the card
    refuses: that slot holds what it would go back to.
    """
    with _change(port, baud, history_folder, "erase") as change:
        slots = change.line.slots()
        if slots.running is not None and slots.running.on_trial:
            raise NothingToDo(
                f"{slots.running.version} is on trial, and the slot holds what it would go back to",
                "first keep it with `tepi card confirm`, or go back with `tepi card revert`",
            )
        held = slots.second.version if slots.second else ""
        change.note("began", version=held)
        change.line.controller().erase(1)
        change.note("erased", version=held)
        change.say(as_json, f"its second slot is empty{held and f', {held} before'}", erased=held)


@click.command(
    epilog="""\b
Examples:
  tepi card limits
  tepi card limits --power 60 --temperature 85
  tepi card limits --default

\b
Without an option it shows them. The card refuses what it cannot keep, and then nothing is changed.
"""
)
@port_option
@click.option("--power", type=click.IntRange(0, 10000), metavar="W", help="Most power, in watts.")
@click.option(
    "--temperature", type=click.IntRange(0, 200), metavar="C", help="Most heat of the chip, in °C."
)
@click.option("--fan", type=click.IntRange(0, 100), metavar="PERCENT", help="Least fan duty.")
@click.option("--default", "defaults", is_flag=True, help="Back to what the card came with.")
@click.option("--until-reset", is_flag=True, help="Do not store them on the card.")
@baud_option
@history_option
@json_option
def limits(
    port: str | None,
    power: int | None,
    temperature: int | None,
    fan: int | None,
    defaults: bool,
    until_reset: bool,
    baud: int,
    history_folder: Path,
    as_json: bool,
) -> None:
    """Show or set a card's power and temperature limits."""
    values = zip(LIMITS, (power, temperature, fan), strict=True)
    asked = {name: value for name, value in values if value is not None}
    if defaults and (asked or until_reset):
        raise click.UsageError("--default goes alone")
    if not asked and not defaults:
        with line_of(the_port(port), baud) as line:
            _show_limits(line.controller(), as_json)
        return
    with _change(port, baud, history_folder, "limits") as change:
        card = change.line.controller()
        change.note("began", ", ".join(f"{n} {v}" for n, v in asked.items()) or "defaults")
        if defaults:
            for name in LIMITS:
                card.setting_delete(name)
        else:
            _set(card, asked)
            if not until_reset:
                card.settings_save()
        change.note("set", "until the next reset" if until_reset else "")
        _show_limits(card, as_json)


def _set(card: Controller, asked: dict[str, int]) -> None:
    """All of them, or none: a refusal puts back what was."""
    before = {name: card.setting_get(name) for name in asked}
    done: list[str] = []
    try:
        for name, value in asked.items():
            card.setting_set(name, value.to_bytes(_NUMBER_BYTES, "little"))
            done.append(name)
    except BridgeError as error:
        for name in done:
            card.setting_set(name, before[name])
        what, unit = LIMITS[list(asked)[len(done)]]
        error.args = (f"{what} {list(asked.values())[len(done)]} {unit}: {error}",)
        raise


def _show_limits(card: Controller, as_json: bool) -> None:
    found = {name: number_setting(card, name) for name in LIMITS}
    if as_json:
        click.echo(json.dumps(found))
        return
    rows = [
        (what, "—" if found[name] is None else str(found[name]), unit)
        for name, (what, unit) in LIMITS.items()
    ]
    show(("limit", "value", "unit"), rows)


def reset_controller(
    port: str, history_folder: Path, *, baud: int = BAUD, back_seconds: float = BACK_SECONDS
) -> str:
    """Restart the controller at a port and wait until it answers; the firmware that runs then.

    A firmware on trial is not there any more after that. Raises BridgeError, NotBack among them.
    """
    with _change(port, baud, history_folder, "reset", back_seconds) as change:
        before = change.line.slots()
        running = before.running
        change.note("began", version=_running(before))
        started = _Started(change.line)
        change.line.reset()
        trial = running is not None and running.on_trial
        change.line.wait_for(
            lambda now: started.again(now.settled and not (trial and _on_trial(now)))
        )
        version = _running(read_slots(change.line.controller()))
        change.note("reset", version=version)
        return version


def _on_trial(slots: Slots) -> bool:
    return slots.running is not None and slots.running.on_trial


_STALE_SECONDS = 0.01  # by which a controller's uptime may lag; a restart takes longer


class _Started:
    """When a card started, by this machine's clock, and whether it has started again since."""

    def __init__(self, line: Line, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock = clock
        uptime = self._uptime()
        self._latest = None if uptime is None else clock() - uptime

    def again(self, otherwise: bool) -> bool:
        """`otherwise` where the card does not tell for how long it has run."""
        asked = self._clock()  # before the question: it did not start before `asked - uptime`
        uptime = self._uptime()
        if self._latest is None or uptime is None:
            return otherwise
        return asked - uptime > self._latest + _STALE_SECONDS

    def _uptime(self) -> float | None:
        try:
            milliseconds = self._line.controller().stats("system").get("uptime_ms")
        except SmpError:
            return None
        return None if milliseconds is None else milliseconds / 1000

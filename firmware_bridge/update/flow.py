# SPDX-License-Identifier: Apache-2.0
"""One card through the steps of firmware_bridge.update.steps.

A run may be killed at any step: nothing is kept but what the card's slots say and the history, and
the next run goes on from there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from firmware_bridge.errors import BadReply, BridgeError, CardSilent, CardVanished
from firmware_bridge.history import DRAINING, History
from firmware_bridge.update.checks import Checked, Demands, Package, check
from firmware_bridge.update.errors import Reverted, TrialRuns
from firmware_bridge.update.facts import Facts, last_fault, read_facts
from firmware_bridge.update.health import look, why_rejected
from firmware_bridge.update.hooks import NoServer, Server
from firmware_bridge.update.line import Line
from firmware_bridge.update.steps import (
    ENDS,
    Event,
    Occupied,
    Slots,
    Step,
    follow,
    plan,
    steps_ahead,
)

_UNRECORDED: Final = frozenset({Step.INSPECT, Step.CHECK})  # nothing has been done to the card

_AGAIN: Final = "run the same command again: it goes on from here"


class Told(Protocol):
    """Who follows an update: a terminal, a log, a test."""

    def step(self, card: str, step: Step, text: str) -> None:
        """A step begins (text empty) or says something."""

    def progress(self, card: str, done: int, total: int) -> None:
        """Bytes of the image that the card has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, or does."""

    facts: Facts
    checked: tuple[Checked, ...]
    event: Event
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended that raised nothing."""

    card: str
    port: str
    end: Step
    before: str  # version that ran when the run began
    version: str  # that runs now
    changed: bool


@dataclass(slots=True)
class _Seen:
    """What a run knows so far."""

    card: str  # its serial number, once it has said that; its port until then
    facts: Facts | None = None
    before: str = ""
    uploaded: bool = False
    drained: bool = False
    restarts: int = 0  # of the image on trial, that nobody asked for
    reserved: bool = False
    faults: int = 0  # number of the last fault before this run
    why: str = ""  # the firmware did not pass
    after: str = ""  # version that runs instead of it
    took: list[Step] = field(default_factory=list)


class Update:
    """One run for one card. `server` drains the card and diagnoses it; `confirm` False leaves the
    image on trial. `line` is opened and closed by the caller."""

    def __init__(
        self,
        line: Line,
        package: Package,
        demands: Demands,
        history: History,
        told: Told,
        *,
        server: Server | None = None,
        confirm: bool = True,
    ) -> None:
        self._line = line
        self._package = package
        self._demands = demands
        self._history = history
        self._told = told
        self._server: Server = server or NoServer()
        self._confirm = confirm
        self._run = secrets.token_hex(4)
        self._seen = _Seen(line.port)
        self._sha = package.image.hash
        self._steps: Mapping[Step, Callable[[], Event]] = {
            Step.INSPECT: self._inspect,
            Step.CHECK: self._check,
            Step.CLEAR: self._clear,
            Step.UPLOAD: self._upload,
            Step.DRAIN: self._drain,
            Step.TEST: self._test,
            Step.RESET: self._reset,
            Step.WAIT: self._wait,
            Step.COMPARE: self._compare,
            Step.TAKE_BACK: self._take_back_on_trial,
            Step.HEALTH: self._health,
            Step.CONFIRM: self._keep,
            Step.WITHDRAW: self._drain,
            Step.REVERT: self._reset,
            Step.RETURN: self._return,
            Step.RESTORE: self._restore,
            Step.SETTLE: self._take_back,
        }

    def plan(self) -> Plan:
        """What `run` would do. Nothing is written, not even history. Raises as `run` does."""
        try:
            self._inspect()
            event, checked = self._examined()
        except BridgeError as error:
            raise self._named(error, Step.CHECK) from None
        return Plan(self._facts, tuple(checked), event, tuple(steps_ahead(event)))

    def run(self) -> Outcome:
        """All steps. Raises BridgeError whose message names the card and the step; Reverted where
        the firmware did not pass and the card runs the one before."""
        step = Step.INSPECT
        try:
            while step not in ENDS:
                self._told.step(self._seen.card, step, "")
                event = self._steps[step]()
                self._seen.took.append(step)
                if step not in _UNRECORDED:
                    self._record(step, event)
                step = follow(step, event)
        except BridgeError as error:
            raise self._failed(error, step) from error
        except KeyboardInterrupt:
            self._give_back()
            raise
        seen = self._seen
        if step is Step.REVERTED:
            raise self._reverted()
        changed = any(taken in (Step.UPLOAD, Step.RESET, Step.CONFIRM) for taken in seen.took)
        version = str(self._package.image.version)
        return Outcome(seen.card, self._line.port, step, seen.before, version, changed)

    @property
    def _facts(self) -> Facts:
        assert self._seen.facts is not None
        return self._seen.facts

    def _record(self, step: Step, outcome: str, detail: str = "") -> None:
        image = self._package.image
        server = {"server": self._server.address} if self._server.address else {}
        self._history.add(
            self._seen.card, self._line.port, self._run, "flash", str(step), str(outcome),
            version=str(image.version), sha=self._sha.hex(), detail=detail, more=server,
        )  # fmt: skip

    # -- the steps, each of which may be done again

    def _inspect(self) -> Event:
        seen = self._seen
        facts = read_facts(self._line.controller())
        seen.card = facts.serial or self._line.port
        seen.faults = facts.last_fault
        running = facts.slots.running
        seen.before = seen.before or (running.version if running else "")
        seen.facts = facts
        return Event.ANSWERED

    def _planned(self, slots: Slots) -> Event:
        try:
            return plan(slots, self._sha)
        except Occupied as error:
            raise TrialRuns(
                f"it runs {error} on trial, and what it would go back to is in the second slot",
                "keep that with `tepi card confirm`, or go back with `tepi card revert`, first",
            ) from None

    def _check(self) -> Event:
        seen = self._seen
        event, found = self._examined()
        for checked in found:
            self._told.step(seen.card, Step.CHECK, f"{checked.name}: {checked.found}")
        if not seen.reserved:
            self._history.reserve()
            self._record(Step.CHECK, "began", f"from {seen.before or 'nothing'}")
            seen.reserved = True
        return event

    def _examined(self) -> tuple[Event, list[Checked]]:
        """What the slots call for, and the questions that the image has passed."""
        return self._planned(self._facts.slots), check(self._package, self._facts, self._demands)

    def _clear(self) -> Event:
        slots = self._line.slots()
        pending = next((slot for slot in slots.all if slot.pending), None)
        target = pending or slots.waiting(self._sha)
        self._line.controller().erase(target.number if target else 1)
        return Event.CLEARED

    def _upload(self) -> Event:
        card = self._seen.card
        sent = self._line.controller().upload(
            self._package.data,
            self._package.sha256,
            lambda done, total: self._told.progress(card, done, total),
        )
        if sent.match is False:
            raise BadReply("what arrived in the slot is not what was sent", _AGAIN)
        self._seen.uploaded = True
        rate = (sent.size - sent.resumed_at) / 1024 / max(sent.seconds, 1e-3)
        self._told.step(card, Step.UPLOAD, f"{sent.size} bytes, {rate:.0f} KiB/s")
        return Event.UPLOADED

    def _drain(self) -> Event:
        self._record(Step.DRAIN, DRAINING)  # so that a run after this one knows, if killed here
        self._seen.drained = True
        self._server.drain()
        return Event.DRAINED

    def _test(self) -> Event:
        waiting = self._line.slots().waiting(self._sha)
        in_recovery = waiting is not None and waiting.number == 0  # it boots without a swap
        if not in_recovery:
            self._line.controller().test(self._sha)
        return Event.MARKED

    def _reset(self) -> Event:
        self._line.reset()
        return Event.RESTARTED

    def _wait(self) -> Event:
        self._line.wait_for(lambda slots: slots.running is not None and slots.settled)
        return Event.RETURNED

    def _compare(self) -> Event:
        running = self._line.slots().running
        assert running is not None
        if running.sha == self._sha:
            if self._facts.slots.running is None:  # in recovery it had no fault log to show
                self._seen.faults = last_fault(self._line.controller())
            return Event.SAME
        if not self._seen.uploaded:
            return Event.STALE
        self._seen.after = running.version
        why = why_rejected(self._line.controller(), self._seen.faults)
        self._seen.why = "its bootloader refused the image" + (why and f": {why}")
        return Event.REJECTED

    def _take_back(self) -> Event:
        history = self._history
        server = history.left_drained(self._seen.card) or history.left_drained(self._line.port)
        if self._seen.drained or server:
            if server and not self._server.address:
                text = f"a run before took it from the server at {server}: give --server {server}"
                self._told.step(self._seen.card, Step.TAKE_BACK, text)
            self._server.take_back()
        self._seen.drained = False
        return Event.TAKEN

    def _take_back_on_trial(self) -> Event:
        """A card that does not come back to its server may owe that to its new firmware."""
        try:
            return self._take_back()
        except BridgeError as error:
            self._seen.why = str(error)
            return Event.SICK

    def _restore(self) -> Event:
        """That it went back is what counts; a server that did not take it is told with that."""
        try:
            return self._take_back()
        except BridgeError as error:
            self._seen.why += f"; and the server has not taken the card back: {error}"
            return Event.TAKEN

    def _health(self) -> Event:
        try:
            why = look(self._line.controller(), self._seen.faults) or self._server.diagnose()
        except (CardSilent, CardVanished) as error:
            why = str(error)
        self._seen.why = why
        if why and not self._on_trial():
            raise BridgeError(
                f"it runs {self._package.image.version}, and is not well: {why}",
                "it had no firmware to go back to; see `tepi card telemetry`, or flash another",
            )
        return Event.SICK if why else Event.HEALTHY

    def _on_trial(self) -> bool:
        """Whether a reset would go back; assumed of a card that does not say."""
        try:
            running = self._line.slots().running
        except (CardSilent, CardVanished):
            return True
        return running is None or running.on_trial

    def _keep(self) -> Event:
        """Confirm what runs, and look at what that was: a card that restarted a moment ago runs the
        firmware before, and would have that confirmed."""
        if self._confirm:
            self._line.controller().confirm()
        running = self._line.slots().running
        if running is not None and running.sha == self._sha:
            return Event.LEFT if running.on_trial else Event.CONFIRMED
        seen = self._seen
        seen.after = running.version if running else "nothing"
        seen.why = "it restarted, twice, before it was confirmed"
        seen.restarts += 1
        return Event.GONE if seen.restarts == 1 else Event.REJECTED

    def _return(self) -> Event:
        slots = self._line.wait_for(
            lambda now: now.running is not None and now.settled and now.running.sha != self._sha
        )
        assert slots.running is not None
        self._seen.after = slots.running.version
        return Event.RETURNED

    # -- what ends a run

    def _reverted(self) -> Reverted:
        seen = self._seen
        return Reverted(
            f"card {seen.card}: {self._package.image.version} did not pass: {seen.why}; "
            f"the card runs {seen.after}",
            "nothing is to be mended on the card; see `tepi card telemetry` and `tepi card dump`, "
            "and report the image",
        )

    def _failed(self, error: BridgeError, step: Step) -> BridgeError:
        text = self._give_back()
        named = self._named(error, step, text)
        if self._seen.reserved:
            try:
                self._record(step, "failed", str(error))
            except BridgeError as also:
                named.add_note(str(also))
        return named

    def _give_back(self) -> str:
        """The server has the card again, whatever became of the update; what went wrong if not."""
        if not self._seen.drained:
            return ""
        self._seen.drained = False
        try:
            self._server.take_back()
            self._record(Step.RESTORE, Event.TAKEN)
        except BridgeError as error:
            return f"; and the server has not taken it back: {error}"
        return ""

    def _named(self, error: BridgeError, step: Step, text: str = "") -> BridgeError:
        seen = self._seen
        url = self._line.port
        port = "" if seen.card == url else f" at {url}"
        what = str(error)
        while what.startswith(f"{url}: "):  # it is named already
            what = what.removeprefix(f"{url}: ")
        error.args = (f"card {seen.card}{port}: {step}: {what}{text}",)
        if not error.remedy and step not in _UNRECORDED:
            error.remedy = _AGAIN
        return error

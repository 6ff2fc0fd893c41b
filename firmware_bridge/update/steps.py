# SPDX-License-Identifier: Apache-2.0
"""The steps of putting firmware into a card: one table, from which docs/flash-states.md is drawn.

python -m firmware_bridge.update.steps docs/flash-states.md

No I/O: `plan` says what the slots of a card call for, `follow` what comes after a step.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final


class Step(StrEnum):
    """See MEANINGS."""

    INSPECT = "inspect"
    CHECK = "check"
    CLEAR = "clear"
    UPLOAD = "upload"
    DRAIN = "drain"
    TEST = "test"
    RESET = "reset"
    WAIT = "wait"
    COMPARE = "compare"
    TAKE_BACK = "take back"
    HEALTH = "health"
    CONFIRM = "confirm"
    WITHDRAW = "withdraw"
    REVERT = "revert"
    RETURN = "return"
    RESTORE = "restore"
    SETTLE = "settle"
    DONE = "done"
    ON_TRIAL = "on trial"
    REVERTED = "reverted"


class Event(StrEnum):
    """What a step finds or does."""

    ANSWERED = "answered"  # the card said who it is and what its slots hold
    NEEDED = "needed"  # neither slot holds the image
    UPLOADED = "uploaded"  # the second slot holds all of it
    MARKED = "marked"  # and the bootloader is to try it
    ON_TRIAL = "on trial"  # it runs, until the next reset
    CURRENT = "current"  # it runs, for good
    STRAY = "stray"  # another image is to be tried at the next reset
    CLEARED = "cleared"
    DRAINED = "drained"  # no request is on the card
    RESTARTED = "restarted"  # told to
    RETURNED = "returned"  # and it answers, past its bootloader
    SAME = "same"  # the active hash is the image's
    STALE = "stale"  # it is not, and the image was found in the slot rather than uploaded
    REJECTED = "rejected"  # it is not: the bootloader refused it, or it restarts again and again
    TAKEN = "taken"  # requests may go to the card again
    HEALTHY = "healthy"
    SICK = "sick"
    CONFIRMED = "confirmed"
    LEFT = "left on trial"  # --no-confirm
    GONE = "gone"  # it restarted before it was confirmed, and so went back


MEANINGS: Final = MappingProxyType(
    {
        Step.INSPECT: "The controller says who it is and what its two slots hold.",
        Step.CHECK: "Nothing has been written yet. Hash, signature, board, security counter, size "
        "and compatibility of the image are checked here, on the host; the history is opened and "
        "keeps room for what follows.",
        Step.CLEAR: "The second slot is emptied, because what it holds cannot be trusted or is to "
        "be tried by mistake.",
        Step.UPLOAD: "The image goes into the second slot; the card works on meanwhile. An upload "
        "that broke off goes on where it was.",
        Step.DRAIN: "`tepi serve` takes its requests off the card (with `--server`).",
        Step.TEST: "The bootloader is told to try the image once, at the next reset.",
        Step.RESET: "The controller restarts; its bootloader swaps the slots.",
        Step.WAIT: "The port may vanish and come back; the controller answers again once its "
        "bootloader is done.",
        Step.COMPARE: "The hash of what runs is compared with the image's: a bootloader that "
        "refuses an image does so without a word.",
        Step.TAKE_BACK: "`tepi serve` has the card again, and puts it through probation before "
        "requests go to it. A card that does not come back to it is sick.",
        Step.HEALTH: "Sensors within their ranges, no new fault, and what the server's own "
        "diagnosis says.",
        Step.CONFIRM: "The image is kept for good. Until then a reset, or a power cut, goes back; "
        "if that has happened, which the slots tell, all is done once more.",
        Step.WITHDRAW: "`tepi serve` takes its requests off the card again.",
        Step.REVERT: "The controller restarts without having been confirmed: its bootloader puts "
        "the firmware before back.",
        Step.RETURN: "The controller answers again.",
        Step.RESTORE: "`tepi serve` has the card again, with its firmware before.",
        Step.SETTLE: "The card runs the image for good already. If a run before was killed while "
        "the card was drained, it is taken back now.",
        Step.DONE: "The card runs the image, confirmed.",
        Step.ON_TRIAL: "The card runs the image until its next reset, or `tepi card confirm`.",
        Step.REVERTED: "The card runs its firmware before.",
    }
)

_S, _E = Step, Event
TABLE: Final = MappingProxyType(
    {
        _S.INSPECT: {_E.ANSWERED: _S.CHECK},
        _S.CHECK: {
            _E.NEEDED: _S.UPLOAD,
            _E.UPLOADED: _S.DRAIN,
            _E.MARKED: _S.DRAIN,
            _E.ON_TRIAL: _S.TAKE_BACK,
            _E.CURRENT: _S.SETTLE,
            _E.STRAY: _S.CLEAR,
        },
        _S.CLEAR: {_E.CLEARED: _S.INSPECT},
        _S.UPLOAD: {_E.UPLOADED: _S.DRAIN},
        _S.DRAIN: {_E.DRAINED: _S.TEST},
        _S.TEST: {_E.MARKED: _S.RESET},
        _S.RESET: {_E.RESTARTED: _S.WAIT},
        _S.WAIT: {_E.RETURNED: _S.COMPARE},
        _S.COMPARE: {_E.SAME: _S.TAKE_BACK, _E.STALE: _S.CLEAR, _E.REJECTED: _S.RESTORE},
        _S.TAKE_BACK: {_E.TAKEN: _S.HEALTH, _E.SICK: _S.WITHDRAW},
        _S.HEALTH: {_E.HEALTHY: _S.CONFIRM, _E.SICK: _S.WITHDRAW},
        _S.CONFIRM: {
            _E.CONFIRMED: _S.DONE,
            _E.LEFT: _S.ON_TRIAL,
            _E.GONE: _S.INSPECT,
            _E.REJECTED: _S.RESTORE,
        },
        _S.WITHDRAW: {_E.DRAINED: _S.REVERT},
        _S.REVERT: {_E.RESTARTED: _S.RETURN},
        _S.RETURN: {_E.RETURNED: _S.RESTORE},
        _S.RESTORE: {_E.TAKEN: _S.REVERTED},
        _S.SETTLE: {_E.TAKEN: _S.DONE},
    }
)
"""The step that follows a step and an event; an event that a step does not know is a defect."""

ENDS: Final = frozenset({Step.DONE, Step.ON_TRIAL, Step.REVERTED})
WRITES: Final = frozenset({Step.CLEAR, Step.UPLOAD, Step.TEST, Step.RESET, Step.CONFIRM})
"""Steps after which the card is not what it was."""


def follow(step: Step, event: Event) -> Step:
    """The next step."""
    return TABLE[step][event]


@dataclass(frozen=True, slots=True)
class Slot:
    """One image slot of a card, as the IMG group's state reports it."""

    number: int  # 0 runs, 1 is the second
    version: str
    sha: bytes  # of header, body and protected TLVs: the image's name everywhere
    active: bool = False
    confirmed: bool = False
    pending: bool = False

    @property
    def on_trial(self) -> bool:
        """It runs, and a reset goes back to the one before."""
        return self.active and not self.confirmed


@dataclass(frozen=True, slots=True)
class Slots:
    """What a card's slots hold."""

    all: tuple[Slot, ...]

    @property
    def running(self) -> Slot | None:
        """The active slot; None where the card reports none."""
        return next((slot for slot in self.all if slot.active), None)

    @property
    def second(self) -> Slot | None:
        """The slot that an upload goes to, if it holds an image."""
        return next((slot for slot in self.all if not slot.active), None)

    def waiting(self, sha: bytes) -> Slot | None:
        """The slot that holds an image without running it. That is the second one, except on a card
        in serial recovery, where none runs."""
        return next((slot for slot in self.all if slot.sha == sha and not slot.active), None)

    @property
    def settled(self) -> bool:
        """No image waits for the bootloader: past a reset this is so whatever it decided."""
        return not any(slot.pending for slot in self.all)


class Occupied(ValueError):
    """Another image is on trial: the second slot holds what the card would go back to."""


def plan(slots: Slots, sha: bytes) -> Event:
    """What the slots call for, so that the image `sha` runs for good. This makes a run go on where
    the one before it, killed at any step, left off.

    Raises Occupied.
    """
    running = slots.running
    if running is not None and running.sha == sha:
        if running.on_trial:
            return Event.ON_TRIAL
        return Event.CURRENT if slots.settled else Event.STRAY
    if running is not None and running.on_trial:
        raise Occupied(running.version)
    waiting = slots.waiting(sha)
    if waiting is not None:
        return Event.MARKED if waiting.pending else Event.UPLOADED
    return Event.NEEDED if slots.settled else Event.STRAY


def steps_ahead(event: Event) -> Sequence[Step]:
    """The steps of a run in which all goes well, from what `plan` says: for --dry-run."""
    found = []
    step = follow(Step.CHECK, event)
    while step not in ENDS and step is not Step.INSPECT:
        found.append(step)
        step = next(iter(TABLE[step].values()))
    return found


def document() -> str:
    """docs/flash-states.md."""
    ids = {step: step.replace(" ", "_") for step in Step}
    edges = [(f, e, t) for f, moves in TABLE.items() for e, t in moves.items()]
    drawn = "\n".join(f"    {ids[f]} --> {ids[t]}: {e}" for f, e, t in edges)
    ends = "\n".join(f"    {ids[end]} --> [*]" for end in Step if end in ENDS)
    follows = {s: ", ".join(f"{e} → {t}" for e, t in moves.items()) for s, moves in TABLE.items()}
    rows = "\n".join(f"| {s} | {text} | {follows.get(s, '—')} |" for s, text in MEANINGS.items())
    return f"""# Putting firmware into a card, step by step

<!-- Drawn by `make gen` from the table in firmware_bridge/update/steps.py; do not edit. -->

`tepi card flash` goes through these steps. It may be killed, and the card may lose its power, at
any of them: the card always boots an image that its bootloader accepts, and the same command run
again looks at the slots and goes on.

```mermaid
stateDiagram-v2
    [*] --> inspect
{drawn}
{ends}
```

Not drawn: a step that fails ends the run with an error that names the card, the step and what to
do. Where the server had been told to let go of the card, it is given the card back first.

| step | what it means | what follows |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")

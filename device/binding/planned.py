# SPDX-License-Identifier: Apache-2.0
"""Faults that a software card is to suffer by plan, in Python and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Final

from device.binding._card import ffi

if TYPE_CHECKING:
    from device.binding._card import CData

_MOST = 64
_FACTOR_MOST = 1000
_NO_LESS: Final = {"after": 0, "count": 0, "factor": 1, "ns": 0, "repeat": 0}
_NO_MORE: Final = {
    "after": 2**63,
    "count": 2**32 - 1,
    "factor": _FACTOR_MOST,
    "ns": 2**63,
    "repeat": 2**32 - 1,
}


_BITS_MOST: Final = {"BIT_FLIP": 2, "BIT_FLIP_UNDETECTED": 1000}


def _names(enum: str, prefix: str) -> dict[str, int]:
    found = ffi.typeof(f"enum {enum}").relements
    return {name.removeprefix(prefix): value for name, value in found.items()}


KINDS: Final = _names("tepi_planned_kind", "TEPI_PLANNED_")
"""Value of each kind by its name: HANG, SLOW, WRONG_GENERATION, … (device/card/faults.h)."""

TRIGGERS: Final = {
    name.lower(): value
    for name, value in _names("tepi_planned_trigger", "TEPI_PLANNED_ON_").items()
}
"""What is counted: command (any), execute, load."""


@dataclass(frozen=True)
class PlannedFault:
    """A fault of `kind`, with the `after`-th command of `trigger` from 1 on; `after` 0: at once.

    `count` is how many commands, completions, transfers or resets it concerns (RESET_FAILS: 0 for
    all; FIRMWARE_ASSERT: the fault's info; BIT_FLIP: bits, 1 or 2), `factor` and `ns` by how much
    it slows down (REMOVAL: how long it is away, 0 until attached). It happens `repeat` times more,
    each `after` commands later. Raises ValueError for what is not possible.
    """

    kind: str
    trigger: str = "command"
    after: int = 0
    count: int = 1
    factor: int = 1
    ns: int = 0
    repeat: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of fault {self.kind!r}; one of {', '.join(KINDS)}")
        if self.trigger not in TRIGGERS:
            raise ValueError(f"unknown trigger {self.trigger!r}; one of {', '.join(TRIGGERS)}")
        for name, least in _NO_LESS.items():
            value, most = getattr(self, name), _NO_MORE[name]
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be a number from {least} to {most}, got {value!r}")
        bits = _BITS_MOST.get(self.kind)
        if bits and not 1 <= self.count <= bits:
            raise ValueError(f"count of {self.kind} must be from 1 to {bits}, got {self.count}")
        if self.repeat and not self.after:
            raise ValueError("repeat needs after: a fault that happens at once happens once")


def read_plan(text: str) -> list[PlannedFault]:
    """A plan from JSON: a list of objects with the fields of PlannedFault.

    Raises ValueError that names the entry that is wrong.
    """
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise ValueError("a plan of faults is a list of objects")
    known = {field.name for field in fields(PlannedFault)}
    plan = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or "kind" not in entry:
            raise ValueError(f"fault {number} of the plan is not an object with a kind")
        if unknown := sorted(entry.keys() - known):
            raise ValueError(
                f"fault {number} of the plan has the unknown field {unknown[0]!r}; "
                f"the fields are: {', '.join(sorted(known))}"
            )
        try:
            plan.append(PlannedFault(**entry))
        except ValueError as error:
            raise ValueError(f"fault {number} of the plan: {error}") from None
    return plan


def planned_array(plan: Sequence[PlannedFault]) -> CData:
    """The plan as the card takes it. Raises ValueError where it is too long."""
    if len(plan) > _MOST:
        raise ValueError(f"a plan holds at most {_MOST} faults, this one has {len(plan)}")
    array = ffi.new("struct tepi_planned_fault[]", len(plan))
    for place, fault in enumerate(plan):
        values = asdict(fault) | {"kind": KINDS[fault.kind], "trigger": TRIGGERS[fault.trigger]}
        for name, value in values.items():
            setattr(array[place], name, value)
    return array

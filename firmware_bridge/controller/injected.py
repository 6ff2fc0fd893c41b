# SPDX-License-Identifier: Apache-2.0
"""Faults that a controller is to suffer, as JSON, and what a bad line does to bytes.

    {"seed": 1, "bit_errors": 1e-4, "drop_lines": 0.01, "delay_lines": 0.1, "delay_s": 0.5,
     "wedge_after": 20, "reset_after": 20, "assert_after": 20,
     "vanish_after": 20, "vanish_s": 1.0,
     "cut_at": 117, "cut_done": 512, "fan_stuck": true}

bit_errors is a chance for each bit, drop_lines and delay_lines one for each line, both ways.
`…_after` counts requests from the process's start; `cut_at` counts flash operations and kills the
process in the middle of that one, after `cut_done` bytes of it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random

from firmware_bridge.controller.flash import Cut, Operation
from firmware_bridge.errors import BridgeError


class BadFaults(BridgeError):
    """The file of faults says what cannot be done."""


@dataclass(frozen=True)
class Injected:
    """See the module; what is not named does not happen."""

    seed: int = 1
    bit_errors: float = 0.0
    drop_lines: float = 0.0
    delay_lines: float = 0.0
    delay_s: float = 0.1
    wedge_after: int | None = None
    reset_after: int | None = None
    assert_after: int | None = None
    vanish_after: int | None = None
    vanish_s: float = 1.0
    cut_at: int | None = None
    cut_done: int = 0
    fan_stuck: bool = False

    @classmethod
    def read(cls, path: Path) -> Injected:
        """Of a JSON file. Raises BadFaults."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadFaults(f"{path} holds no faults: {error}", _REMEDY) from None
        known = {field.name: field.default for field in fields(cls)}
        for name, value in found.items() if isinstance(found, dict) else ():
            wanted = int if known.get(name) is None else type(known[name])
            numeric = wanted is float and type(value) is int
            if name not in known or not (type(value) is wanted or numeric) or value < 0:
                raise BadFaults(f"{path}: {name!r} cannot be {value!r}", _REMEDY)
        if not isinstance(found, dict):
            raise BadFaults(f"{path} holds no object", _REMEDY)
        return cls(**found)

    def before(self, count: int) -> Cut | None:
        """What happens to the flash operation with this number."""
        return Cut(self.cut_done, self.seed) if count == self.cut_at else None


_REMEDY = "docs/mcu.md shows what the file may hold"


class PowerSupply:
    """A Flash.before that cuts the power once, at the operation that the faults name."""

    def __init__(self, injected: Injected) -> None:
        self._injected = injected
        self._count = 0

    def __call__(self, _: Operation) -> Cut | None:
        self._count += 1
        return self._injected.before(self._count)


class BadLine:
    """One direction of a line."""

    def __init__(self, injected: Injected, salt: str) -> None:
        self._injected = injected
        self._random = Random(f"{injected.seed} {salt}")
        self._rest = b""
        self._until = self._gap()
        self.any = bool(injected.bit_errors or injected.drop_lines or injected.delay_lines)

    def _gap(self) -> int:
        """Good bits before the next bad one: geometric, so that good bits cost nothing."""
        chance = self._injected.bit_errors
        if chance <= 0:
            return 1 << 62
        if chance >= 1:
            return 0
        return int(math.log(1 - self._random.random()) / math.log(1 - chance))

    def flipped(self, data: bytes) -> bytes:
        """With bit errors."""
        bits = len(data) * 8
        if self._until >= bits:
            self._until -= bits
            return data
        damaged = bytearray(data)
        while self._until < bits:
            damaged[self._until // 8] ^= 1 << self._until % 8
            self._until += 1 + self._gap()
        self._until -= bits
        return bytes(damaged)

    def carry(self, data: bytes) -> list[tuple[float, bytes]]:
        """What comes out, each with its delay in seconds. Lines are kept until they are whole."""
        if not self._injected.drop_lines and not self._injected.delay_lines:
            return [(0.0, self.flipped(data))]
        *lines, self._rest = (self._rest + data).split(b"\n")
        carried = []
        for line in lines:
            if self._random.random() < self._injected.drop_lines:
                continue
            late = self._random.random() < self._injected.delay_lines
            carried.append((self._injected.delay_s if late else 0.0, self.flipped(line + b"\n")))
        return carried

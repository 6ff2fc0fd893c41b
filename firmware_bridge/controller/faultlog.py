# SPDX-License-Identifier: Apache-2.0
"""The controller's fault log: what happened to the card, kept over resets and power cuts."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import cbor2

from firmware_bridge.controller.flash import Flash
from firmware_bridge.controller.records import Records

_KEPT = 64
_INFO_MOST = 120


class Code(IntEnum):
    """What an entry is about; docs/mcu.md lists them."""

    IMAGE_REJECTED = 1
    REVERTED = 2
    OVER_TEMPERATURE = 3
    POWER_LIMITED = 4
    FAN_FAILED = 5
    ASSERTED = 6
    RECOVERY = 7


class FaultLog:
    """Entries of number, seconds since 1970, code, text. Numbers rise for ever."""

    def __init__(self, flash: Flash, clock: Callable[[], float]) -> None:
        self._records = Records(flash, flash.layout.log, lambda all_: all_[-_KEPT:])
        self._clock = clock
        self.entries: list[dict[str, Any]] = [
            dict(zip(("n", "t", "code", "info"), cbor2.loads(record), strict=True))
            for record in self._records.all
        ]

    @property
    def last(self) -> int:
        """Number of the newest entry; 0: there is none."""
        return self.entries[-1]["n"] if self.entries else 0

    def add(self, code: Code, info: str) -> None:
        """Write an entry; a long text is cut."""
        entry = [self.last + 1, int(self._clock()), int(code), info[:_INFO_MOST]]
        self._records.add(cbor2.dumps(entry))
        self.entries.append(dict(zip(("n", "t", "code", "info"), entry, strict=True)))

    def since(self, number: int) -> list[dict[str, Any]]:
        """Entries after a number, oldest first."""
        return [entry for entry in self.entries if entry["n"] > number]

    def counts(self) -> dict[Code, int]:
        """How many entries of each kind are kept."""
        return {code: sum(entry["code"] == code for entry in self.entries) for code in Code}

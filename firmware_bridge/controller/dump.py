# SPDX-License-Identifier: Apache-2.0
"""The last crash dump, kept in flash: what the firmware writes when it asserts.

"TEPIDUMP" | CBOR: version of this format, reason, time, uptime, firmware, registers, stack,
             telemetry
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from random import Random

import cbor2

from firmware_bridge.controller.flash import ERASED, WORD, Flash

MAGIC = b"TEPIDUMP"
_HEAD = struct.Struct("<II")
_STACK_BYTES = 4096
_REGISTERS = ("r0", "r1", "r2", "r3", "r12", "lr", "pc", "xpsr")


@dataclass(frozen=True)
class Crash:
    """What a dump tells. time: seconds since 1970; uptime: seconds since the last start."""

    reason: str
    time: int
    uptime: int
    firmware: str
    telemetry: dict[str, dict[str, int]]

    def packed(self) -> bytes:
        """The dump's bytes. Registers and stack are made up, the same for the same crash."""
        noise = Random(f"{self.reason} {self.time}")
        body = {
            "format": 1,
            "reason": self.reason,
            "time": self.time,
            "uptime": self.uptime,
            "firmware": self.firmware,
            "registers": {name: noise.getrandbits(32) for name in _REGISTERS},
            "stack": noise.randbytes(_STACK_BYTES),
            "telemetry": self.telemetry,
        }
        return MAGIC + cbor2.dumps(body)


def store(flash: Flash, data: bytes) -> None:
    """Put a dump where the last one was; its head comes last."""
    area = flash.layout.dump
    data = data[: area.size - _HEAD.size]
    flash.erase_used(area.start, area.size)
    padded = data.ljust(-(-len(data) // WORD) * WORD, ERASED)
    flash.program(area.start + _HEAD.size, padded)
    flash.program(area.start, _HEAD.pack(len(data), zlib.crc32(data)))


def stored(flash: Flash) -> bytes | None:
    """The last dump; None: there is none that is whole."""
    area = flash.layout.dump
    size, crc = _HEAD.unpack(flash.read(area.start, _HEAD.size))
    if not 0 < size <= area.size - _HEAD.size:
        return None
    data = flash.read(area.start + _HEAD.size, size)
    return data if zlib.crc32(data) == crc else None

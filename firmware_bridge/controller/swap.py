# SPDX-License-Identifier: Apache-2.0
"""Swaps the two slots page by page, so that power may go at any moment.

A page takes three steps through one scratch page:

    0  scratch <- other slot     1  other slot <- running slot     2  running slot <- scratch

No step destroys what it copies, so that a step which was cut is done again. Each step done leaves
a mark. A swap exists from the moment its header in the status area is whole, and to the moment that
header is overwritten with zeros: erasing it could be cut so that it stands without its marks.
"""

from __future__ import annotations

import struct
import zlib

from firmware_bridge.controller.flash import ERASED, PAGE, WORD
from firmware_bridge.controller.slots import Slots, SwapType

_HEADER = struct.Struct("<8sIII4x")
"""Magic, swap type, pages, CRC-32 of these; filled to whole words."""
_MAGIC = b"TEPISWAP"
_MARK = bytes.fromhex("a55a01feb44b02fd")
_STEPS = 3


class Swap:
    """The one swap that may be on its way."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._flash = slots.flash
        self._status = self._flash.layout.status
        self._scratch = self._flash.layout.scratch.start

    def _header(self) -> tuple[SwapType, int] | None:
        raw = self._flash.read(self._status.start, _HEADER.size)
        magic, kind, pages, crc = _HEADER.unpack(raw)
        if magic != _MAGIC or zlib.crc32(raw[:16]) != crc:
            return None
        return SwapType(kind), pages

    def start(self, kind: SwapType) -> None:
        """Swap as far as the larger image goes; all, where one cannot be read."""
        ends = [
            image.end if image else self._slots.largest for image in map(self._slots.image, (0, 1))
        ]
        pages = -(-max(ends) // PAGE)
        body = struct.pack("<8sII", _MAGIC, kind.value, pages)
        header = _HEADER.pack(_MAGIC, kind.value, pages, zlib.crc32(body))
        self._flash.erase_used(self._status.start, self._status.size)
        self._flash.program(self._status.start, header)
        self.resume()

    def resume(self) -> SwapType | None:
        """Finish what a power cut interrupted; None where there is nothing."""
        found = self._header()
        if found is None:
            return None
        kind, pages = found
        marks = self._status.start + _HEADER.size
        for step in range(pages * _STEPS):
            at = marks + step * WORD
            if self._flash.read(at, WORD) != _MARK:
                self._step(*divmod(step, _STEPS))
                self._flash.program(at, _MARK)
        self._finish(kind)
        return kind

    def _step(self, page: int, step: int) -> None:
        running, other = (area.start + page * PAGE for area in self._slots.areas)
        source, target = (
            (other, self._scratch),
            (running, other),
            (self._scratch, running),
        )[step]
        data = self._flash.read(source, PAGE)
        self._flash.erase_used(target)
        if data != ERASED * PAGE:
            self._flash.program(target, data)

    def _finish(self, kind: SwapType) -> None:
        """Trailers as MCUboot leaves them, then the end of the swap."""
        slots = self._slots
        slots.erase_trailer(0)
        slots.set_flag(0, "copy_done")
        if kind is not SwapType.TEST:
            slots.set_flag(0, "image_ok")
        slots.set_magic(0)
        slots.erase_trailer(1)
        if kind is not SwapType.REVERT:
            slots.set_flag(1, "fallback")
        self._flash.program(self._status.start, bytes(_HEADER.size))
        self._flash.erase_used(self._status.start, self._status.size)

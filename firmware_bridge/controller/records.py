# SPDX-License-Identifier: Apache-2.0
"""Records that survive power cuts: two banks of flash, one of them written to from its start.

A record is a word of length and CRC, then its bytes padded to whole words. A full bank makes room
by writing what is still wanted to the other one, whose first record, the generation, is written
last: until then the old bank counts. A record that a power cut tore is skipped, and what follows
goes behind it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable

from firmware_bridge.controller.flash import ERASED, WORD, Area, Flash, FlashMisused

_HEAD = struct.Struct("<HHI")
"""Bytes of data; the same inverted; CRC-32 of the data."""
_BANKS = 2


def _packed(data: bytes) -> bytes:
    size = len(data)
    padded = data.ljust(-(-size // WORD) * WORD, ERASED)
    return _HEAD.pack(size, size ^ 0xFFFF, zlib.crc32(data)) + padded


class Records:
    """The records of an area, oldest first.

    kept: what of them moves to the other bank when one is full; it must fit in a bank.
    """

    def __init__(
        self,
        flash: Flash,
        area: Area,
        kept: Callable[[list[bytes]], Iterable[bytes]],
    ) -> None:
        self._flash = flash
        self._bank_size = area.size // _BANKS
        self._starts = (area.start, area.start + self._bank_size)
        self._kept = kept
        found = [self._scan(bank) for bank in range(_BANKS)]
        self._bank = 1 if found[1][0] > found[0][0] else 0
        self.generation, self.all, self._at = found[self._bank]
        if self.generation < 0:
            self.generation, self.all = -1, []
            self._switch([])

    def add(self, data: bytes) -> None:
        """Write one more."""
        packed = _packed(data)
        if self._at + len(packed) > self._bank_size:
            self.all = list(self._kept(self.all))
            self._switch([*self.all, data])
        else:
            self._flash.program(self._starts[self._bank] + self._at, packed)
            self._at += len(packed)
        self.all.append(data)

    def _switch(self, records: list[bytes]) -> None:
        """Make the other bank the one that counts, with these records."""
        bank = 1 - self._bank
        start = self._starts[bank]
        head = _packed((self.generation + 1).to_bytes(8, "little"))
        body = b"".join(map(_packed, records))
        if len(head) + len(body) > self._bank_size:
            raise FlashMisused(f"{len(body)} bytes of records are more than a bank")
        self._flash.erase(start, self._bank_size)
        if body:
            self._flash.program(start + len(head), body)
        self._flash.program(start, head)
        self.generation += 1
        self._bank, self._at = bank, len(head) + len(body)

    def _scan(self, bank: int) -> tuple[int, list[bytes], int]:
        """Generation (-1: none), records, and where the next one goes."""
        data = self._flash.read(self._starts[bank], self._bank_size)
        head = _packed(b"\0" * 8)
        size, _, crc = _HEAD.unpack_from(data)
        value = data[_HEAD.size : len(head)]
        if size != 8 or zlib.crc32(value) != crc:
            return -1, [], 0
        records: list[bytes] = []
        at = len(head)
        end = len(data.rstrip(ERASED))
        while at < end:
            size, inverted, crc = _HEAD.unpack_from(data, at)
            value = data[at + _HEAD.size : at + _HEAD.size + size]
            if size ^ 0xFFFF == inverted and len(value) == size and zlib.crc32(value) == crc:
                records.append(value)
                at += _HEAD.size + -(-size // WORD) * WORD
            else:
                at += WORD  # torn: its words are passed one by one
        return int.from_bytes(data[_HEAD.size : len(head)], "little"), records, at

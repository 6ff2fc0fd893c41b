# SPDX-License-Identifier: Apache-2.0
"""Content-defined chunking: where a blob is cut depends on the bytes around the cut alone, so that
what was inserted or removed elsewhere moves no other cut.

FastCDC (Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
Deduplication", USENIX ATC 2016, section 3: gear hash, cut-point skipping, normalized chunking; the
same in IEEE TPDS 31(9), 2020) with two differences that let numpy do the work: the hash covers
exactly the last 32 bytes wherever a block begins, not what followed the last cut; and it is
computed for all positions at once, by doubling:

    H1[i] = gear[b[i]]        H2k[i] = Hk[i] + (Hk[i-k] << k)  (mod 2**32)

which after five passes is the paper's `h = (h << 1) + gear[b]` over 32 bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_BYTES = 16 << 10
TARGET_BYTES = 64 << 10
MAX_BYTES = 256 << 10

_WINDOW = 32  # bytes that a hash covers: as many as it has bits
_PIECE = 64 << 10  # bytes hashed at once: four bytes each, twice, stay in a core's L2
_SEED = b"dev.tepi.gear.v1"


def _gear() -> NDArray[np.uint32]:
    """256 fixed random words: the first four bytes of SHA-256(seed, byte)."""
    words = [hashlib.sha256(_SEED + bytes([byte])).digest()[:4] for byte in range(256)]
    return np.frombuffer(b"".join(words), "<u4").astype(np.uint32)


_GEAR = _gear()


@dataclass(frozen=True, slots=True)
class Rule:
    """How blocks are cut: bounds in bytes, and how far the two masks of normalized chunking lie
    from the target (the paper's level 2: four times rarer before the target, four times more
    common after it)."""

    minimum: int = MIN_BYTES
    target: int = TARGET_BYTES
    maximum: int = MAX_BYTES
    level: int = 2

    def __post_init__(self) -> None:
        assert _WINDOW <= self.minimum <= self.target <= self.maximum

    @property
    def strict(self) -> int:
        """A hash below this cuts before the target. The high bits decide: they have seen most."""
        return (1 << 32) // (self.target << self.level)

    @property
    def loose(self) -> int:
        """A hash below this cuts after the target."""
        return (1 << 32) // (self.target >> self.level)


DEFAULT = Rule()


class Cutter:
    """Takes a blob's bytes in order, in pieces of any size; tells where blocks end."""

    def __init__(self, rule: Rule = DEFAULT) -> None:
        self._rule = rule
        self._start = 0  # of the block that is open
        self._seen = 0
        self._carry = np.zeros(_WINDOW - 1, np.uint32)  # gear words before the next byte
        self._ends = np.empty(0, np.int64)  # where a loose hash would end a block
        self._rare = np.empty(0, bool)  # which of them are strict as well

    def feed(self, data: bytes | bytearray | memoryview) -> list[int]:
        """The ends of blocks that are certain now, as offsets into the blob."""
        octets = np.frombuffer(data, np.uint8)
        cuts: list[int] = []
        for first in range(0, len(octets), _PIECE):
            piece = octets[first : first + _PIECE]
            hashes = self._hash(piece)
            at = np.flatnonzero(hashes < self._rule.loose)
            if len(at):
                self._ends = np.concatenate([self._ends, at + (self._seen + 1)])
                self._rare = np.concatenate([self._rare, hashes[at] < self._rule.strict])
            self._seen += len(piece)
            while (cut := self._cut()) is not None:
                cuts.append(cut)
        return cuts

    def finish(self) -> list[int]:
        """The end of the last block, or nothing where the blob is empty or ended with a cut."""
        rest = [self._seen] if self._seen > self._start else []
        self._start = self._seen
        return rest

    def _hash(self, piece: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The hash at each byte of the piece."""
        words = np.concatenate([self._carry, _GEAR[piece]])
        self._carry = words[len(words) - (_WINDOW - 1) :].copy()
        reach = 1
        while reach < _WINDOW:
            moved = words[:-reach] << np.uint32(reach)
            moved += words[reach:]
            words = moved  # one entry shorter at the front for each byte of reach
            reach *= 2
        return words

    def _cut(self) -> int | None:
        """The end of the open block, once it is certain."""
        rule, start = self._rule, self._start
        normal = min(start + rule.target, self._seen)
        low, middle = np.searchsorted(self._ends, [start + rule.minimum, normal + 1])
        found = np.flatnonzero(self._rare[low:middle])
        last = start + rule.maximum
        if len(found):
            cut = int(self._ends[low + found[0]])
        elif middle < len(self._ends) and self._ends[middle] <= last:
            cut = int(self._ends[middle])
        elif self._seen >= last:
            cut = last
        else:
            return None
        self._start = cut
        kept = int(np.searchsorted(self._ends, cut, side="right"))
        self._ends, self._rare = self._ends[kept:], self._rare[kept:]
        return cut


def cuts(data: bytes | bytearray | memoryview, rule: Rule = DEFAULT) -> list[int]:
    """The ends of all blocks of these bytes; the last is their length. Empty for no bytes."""
    cutter = Cutter(rule)
    return cutter.feed(data) + cutter.finish()

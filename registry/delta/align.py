# SPDX-License-Identifier: Apache-2.0
"""Which bytes of an old blob the bytes of a new one came from, where no names tell it.

A fine-tune leaves runs of a few bytes as they were nearly everywhere. Eight bytes in a row that
occur once in the old blob and again in the new say by how much the bytes around them moved; every
64 KiB of the new blob takes the move that most such runs in it vote for. Bsdiff (Percival, "Naive
Differences of Executable Code", 2003) aligns by approximate matches as well; sampling by content
makes it a few passes of numpy instead of a suffix array.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_RUN = 8  # bytes of a run that is looked for
_CELL = 64 << 10  # bytes that take one move together
_PIECE = 1 << 20  # positions hashed at once
_SAMPLES = 2 << 20  # runs remembered at most
_VOTES = 3  # fewer are chance
_UNKNOWN = 0.75  # share of its bytes that a wrong source surpasses, and a fine-tune does not
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio (Knuth, TAOCP 3, 6.4)


class Region(NamedTuple):
    """Bytes of the new blob that came from the old blob's at `source`; None: from nowhere. Their
    numbers have `width` bytes each, and their rows `columns` bytes, if they have rows."""

    offset: int
    size: int
    source: int | None
    width: int = 1
    columns: int = 0

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.offset + self.size

    def shortened(self, count: int) -> Region:
        """Without its first bytes; longer by as many where `count` is below zero."""
        source = None if self.source is None else self.source + count
        return self._replace(offset=self.offset + count, size=self.size - count, source=source)


class Aligner:
    """Finds in one old blob where bytes came from."""

    def __init__(self, old: Bytes) -> None:
        self.old = old
        self._every = 1 << max(4, (len(old) // _SAMPLES).bit_length())  # one run in so many

    @cached_property
    def _known(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        return _unique(*_sampled(self.old, self._every))

    def align(self, new: Bytes) -> list[Region]:
        """Regions that cover `new` from its start to its end."""
        moves = _moves(*_sampled(new, self._every), *self._known, len(new))
        cells: list[Region] = []
        near = 0
        for number, move in enumerate(moves):
            offset = number * _CELL
            size = min(_CELL, len(new) - offset)
            if move is None:
                move = self._guessed(new[offset : offset + size], offset, near)
            near = near if move is None else move
            cells += _cell(offset, size, move, len(self.old))
        return _sharpened(joined(cells), new, self.old)

    def _guessed(self, part: Bytes, offset: int, near: int) -> int | None:
        """The move of a cell in which no run voted, as where all runs occur twice or few are left:
        that of the cell before it or none, if most bytes agree."""
        for move in dict.fromkeys((near, 0)):
            source = offset - move
            if 0 <= source <= len(self.old) - len(part):
                same = np.count_nonzero(self.old[source : source + len(part)] == part)
                if same > (1 - _UNKNOWN) * len(part):
                    return move
        return None


def joined(regions: Sequence[Region]) -> list[Region]:
    """The regions, neighbours that came from neighbours made one."""
    found: list[Region] = []
    for region in regions:
        if not region.size:
            continue
        last = found[-1] if found else None
        if last is not None and _continues(last, region):
            found[-1] = last._replace(size=last.size + region.size)
        else:
            found.append(region)
    return found


def _continues(last: Region, region: Region) -> bool:
    if last.source is None or region.source is None:
        return last.source is region.source
    alike = (last.width, last.columns) == (region.width, region.columns)
    return alike and last.source + last.size == region.source


def _sampled(data: Bytes, every: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Runs chosen by what they are, wherever they are, with their places."""
    runs: list[NDArray[np.uint64]] = []
    places: list[NDArray[np.int64]] = []
    bound = np.uint64((1 << 64) // every)
    for first in range(0, max(0, len(data) - _RUN + 1), _PIECE):
        piece = np.ascontiguousarray(data[first : first + _PIECE + _RUN - 1])
        words = np.lib.stride_tricks.sliding_window_view(piece, _RUN)
        found = np.ascontiguousarray(words).view("<u8").reshape(-1)
        found = found * _MULTIPLIER  # a bijection of runs, so equal runs and no others agree
        at = np.flatnonzero(found < bound)
        runs.append(found[at])
        places.append(at + first)
    if not runs:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(runs), np.concatenate(places)


def _unique(
    runs: NDArray[np.uint64], places: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Those that occur once, in order."""
    found, first, counts = np.unique(runs, return_index=True, return_counts=True)
    once = counts == 1
    return found[once], places[first[once]]


def _moves(
    runs: NDArray[np.uint64],
    at: NDArray[np.int64],
    known: NDArray[np.uint64],
    places: NDArray[np.int64],
    size: int,
) -> list[int | None]:
    """For each cell of the new blob, how far before its bytes its origin lies; None: unknown."""
    moves: list[int | None] = [None] * -(-size // _CELL)
    if not len(known) or not len(runs):
        return moves
    index = np.minimum(np.searchsorted(known, runs), len(known) - 1)
    same = known[index] == runs
    moved = at[same] - places[index[same]]
    cells = at[same] // _CELL
    for number in np.unique(cells):
        low, high = np.searchsorted(cells, [number, number + 1])
        values, votes = np.unique(moved[low:high], return_counts=True)
        best = int(votes.argmax())
        if votes[best] >= _VOTES:
            moves[number] = int(values[best])
    return moves


def _cell(offset: int, size: int, move: int | None, old_size: int) -> list[Region]:
    """A cell as regions: what its move would take from outside the old blob has no source."""
    if move is None:
        return [Region(offset, size, None)]
    low = min(max(offset, move), offset + size)
    high = max(min(offset + size, old_size + move), low)
    parts = [
        Region(offset, low - offset, None),
        Region(low, high - low, low - move),
        Region(high, offset + size - high, None),
    ]
    return [part for part in parts if part.size]


def _sharpened(regions: list[Region], new: Bytes, old: Bytes) -> list[Region]:
    """Bounds between regions, which fell on cells, put where the least bytes differ."""
    for number in range(len(regions) - 1):
        left, right = regions[number], regions[number + 1]
        back = min(_CELL, left.size - 1)
        ahead = min(_CELL, right.size - 1)
        if right.source is not None:
            back = min(back, right.source)
        if left.source is not None:
            ahead = min(ahead, len(old) - left.source - left.size)
        if back + ahead <= 0:
            continue
        part = new[left.end - back : left.end + ahead]
        dear_left = _differs(
            part, old, None if left.source is None else left.source + left.size - back
        )
        dear_right = _differs(part, old, None if right.source is None else right.source - back)
        # cost[i]: of a bound that lies i bytes behind the part's first
        cost = np.concatenate([[0.0], np.cumsum(dear_left)])
        cost += dear_right.sum() - np.concatenate([[0.0], np.cumsum(dear_right)])
        shift = int(cost.argmin()) - back
        regions[number] = left._replace(size=left.size + shift)
        regions[number + 1] = right.shortened(shift)
    return regions


def _differs(part: Bytes, old: Bytes, source: int | None) -> NDArray[np.float64]:
    """1 for each byte that is another at the source."""
    if source is None:
        return np.full(len(part), _UNKNOWN)
    return np.not_equal(old[source : source + len(part)], part).astype(np.float64)

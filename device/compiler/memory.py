# SPDX-License-Identifier: Apache-2.0
"""Packs the arena: buffers that are never alive together may share bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device.compiler.images import ALIGNMENT


@dataclass(frozen=True)
class Life:
    """Bytes needed from instruction `first` to `last`, both included."""

    bytes: int
    first: int
    last: int


def plan(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Offset of each buffer and the bytes of the whole arena.

    Greedy, largest first, each in the smallest gap that fits among those alive with it, which for
    chains of layers comes close to the largest sum of what is alive at once.
    """
    offsets = [0] * len(lives)
    placed: list[int] = []
    total = 0
    order = sorted(range(len(lives)), key=lambda i: (-lives[i].bytes, lives[i].first))
    for index in order:
        life = lives[index]
        size = aligned(life.bytes)
        taken = sorted(
            (offsets[other], offsets[other] + aligned(lives[other].bytes))
            for other in placed
            if lives[other].first <= life.last and life.first <= lives[other].last
        )
        offsets[index] = _gap(taken, size)
        placed.append(index)
        total = max(total, offsets[index] + size)
    return offsets, total


def _gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    """Start of the smallest gap of at least `size` between sorted, perhaps overlapping spans."""
    best, room = -1, 0
    end = 0
    for start, stop in taken:
        if start - end >= size and (best < 0 or start - end < room):
            best, room = end, start - end
        end = max(end, stop)
    return end if best < 0 else best


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def lives(uses: Mapping[int, Sequence[int]], sizes: Mapping[int, int]) -> dict[int, Life]:
    """From the instructions that touch each buffer."""
    return {key: Life(sizes[key], min(at), max(at)) for key, at in uses.items()}

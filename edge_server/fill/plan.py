# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a blob are here already, in other blobs, and which have to come."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.delta.block_index import Block, BlockIndex, common

JOIN = 32 << 10  # bytes; so few between two that have to come are asked for along with them
LONGEST = 32 << 20  # bytes that are asked for at once


@dataclass(frozen=True, slots=True)
class Here:
    """A block that the blob `holder` holds at offset `at`."""

    block: Block
    holder: str
    at: int


@dataclass(frozen=True, slots=True)
class Away:
    """Neighbouring blocks that have to come, as one range."""

    blocks: Sequence[Block]

    @property
    def first(self) -> int:
        """Offset of the first byte."""
        return self.blocks[0].offset

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.blocks[-1].offset + self.blocks[-1].size


class BlockPlan:
    """For a blob of this index, given the indexes of blobs that are here."""

    def __init__(self, index: BlockIndex, holders: Iterable[BlockIndex]) -> None:
        self.index = index
        self._offsets = [block.offset for block in index.blocks]
        self._here: dict[int, list[Here]] = {}  # by the block's offset, best holder first
        for holder in holders:
            for shared in common(index, holder):
                found = Here(shared.block, holder.digest, shared.source)
                self._here.setdefault(shared.block.offset, []).append(found)

    def missing(self, offset: int = 0) -> int:
        """Bytes from `offset` on that have to come."""
        blocks = self.index.blocks[self._position(offset) :]
        return sum(block.size for block in blocks if block.offset not in self._here)

    def at(self, offset: int) -> Here | Away:
        """What to do next for a blob that has arrived up to `offset`: the step holds the block
        that this byte is in. `offset` is less than the blob's size."""
        position = self._position(offset)
        here = self._here.get(self._offsets[position])
        return here[0] if here else Away(self._away(position))

    def drop(self, holder: str, block: Block) -> None:
        """This blob does not hold that block as it should."""
        found = [here for here in self._here.pop(block.offset, []) if here.holder != holder]
        if found:
            self._here[block.offset] = found

    def _position(self, offset: int) -> int:
        return max(0, bisect_right(self._offsets, offset) - 1)

    def _away(self, position: int) -> list[Block]:
        """The blocks from this one on that are best asked for in one range."""
        blocks: list[Block] = []
        between: list[Block] = []
        begin = self._offsets[position]
        for block in self.index.blocks[position:]:
            if block.offset + block.size - begin > LONGEST and blocks:
                break
            if block.offset not in self._here:
                blocks += [*between, block]
                between = []
                continue
            between.append(block)
            if sum(one.size for one in between) > JOIN:
                break
        return blocks

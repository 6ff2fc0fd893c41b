# SPDX-License-Identifier: Apache-2.0
"""Blocks of a blob checked one by one before the store sees them, whoever gave them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edge_server.fill.errors import Lied
from edge_server.fill.plan import Here
from edge_server.store.partial import Partial
from registry.delta.block_index import Block


class CheckedBlocks:
    """A sink for neighbouring blocks; of a block that was begun before, what lacks is written."""

    def __init__(self, partial: Partial, blocks: Sequence[Block]) -> None:
        self._partial = partial
        self._blocks = blocks
        self._at = 0  # the block that arrives
        self._count = 0  # bytes of it that are here
        self._data = memoryview(bytearray(max(block.size for block in blocks)))

    @property
    def offset(self) -> int:
        """Where in the blob the next byte belongs."""
        if self._at == len(self._blocks):
            return self._blocks[-1].offset + self._blocks[-1].size
        return self._blocks[self._at].offset + self._count

    def buffer(self) -> memoryview:
        """Room up to the end of the block that arrives."""
        return self._data[self._count : self._blocks[self._at].size]

    def advance(self, count: int) -> None:
        """So many bytes were put there. Raises Lied where they make a block that is none of the
        blob's, and what the store raises."""
        block = self._blocks[self._at]
        self._count += count
        if self._count < block.size:
            return
        data = self._data[: block.size]
        if not block.holds(data):
            raise Lied(f"the block at {block.offset} that it sends is not the blob's")
        write_tail(self._partial, block, data)
        self._at += 1
        self._count = 0

    def to_edge(self) -> int:
        """Bytes up to the end of the block that arrives; 0 between two."""
        return self._blocks[self._at].size - self._count if self._count else 0


def copy_block(here: Here, holder: Path, partial: Partial) -> bool:
    """Copy a block from another blob of the store; whether it is what it should be there."""
    try:
        with holder.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), here.block.size, here.at)
    except OSError:  # evicted meanwhile, or a bad sector: it comes from elsewhere
        return False
    if not here.block.holds(data):
        return False
    write_tail(partial, here.block, memoryview(data))
    return True


def write_tail(partial: Partial, block: Block, data: memoryview) -> None:
    """What of a block is not in the partial yet; its offset lies within the block."""
    partial.write(data[partial.offset - block.offset :])

# SPDX-License-Identifier: Apache-2.0
"""The block index of a blob: the size and SHA-256 of each of its blocks, in order.

A node that has the index takes the blocks it already holds, in an older version of the blob or at a
peer, and fetches the rest by Range from the one full blob. Each block proves itself, so whoever
gives it need not be trusted; the index proves itself by the digest that a signed manifest gives it.

Format, all numbers little-endian:

    bytes  8        magic "tepiblk" and the version, 1
    u32             count of blocks
    u32             0
    u64             size of the blob in bytes
    bytes 32        SHA-256 of the blob
    u32   * count   sizes of the blocks, 1 to 16 MiB each, together the size of the blob
    bytes 32*count  SHA-256 of the blocks
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from registry.delta.chunking import Cutter
from registry.digest import hex_of
from registry.errors import RegistryError

OF = "dev.tepi.of"  # of an index in a referrer: the digest of the blob it is of
MEDIA_TYPE = "application/vnd.tepi.block-index.v1"
INDEX_LIMIT = 64 << 20  # bytes; enough for a blob of 100 GB
BLOCK_LIMIT = 16 << 20  # bytes of one block

_MAGIC = b"tepiblk\x01"
_HEADER = struct.Struct("<8sIIQ32s")
_HASH = 32
_READ = 4 << 20


class BadBlockIndex(RegistryError):
    """Bytes that are no block index, or contradict themselves or what was asked for."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a blob: offset and size in bytes, and the 32 bytes of its SHA-256."""

    offset: int
    size: int
    sha256: bytes

    @property
    def digest(self) -> str:
        """Its digest as a registry writes it."""
        return f"sha256:{self.sha256.hex()}"

    def holds(self, data: bytes | bytearray | memoryview) -> bool:
        """Whether these bytes are the block's."""
        return len(data) == self.size and hashlib.sha256(data).digest() == self.sha256


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """A blob's digest, size in bytes and blocks, which cover it from its start to its end."""

    digest: str
    size: int
    blocks: Sequence[Block]

    def encode(self) -> bytes:
        """Its bytes; parse gives the same value again."""
        head = _HEADER.pack(
            _MAGIC, len(self.blocks), 0, self.size, bytes.fromhex(hex_of(self.digest))
        )
        sizes = np.array([block.size for block in self.blocks], "<u4").tobytes()
        return head + sizes + b"".join(block.sha256 for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Shared:
    """A block of the new blob that the old blob holds too, at offset `source`."""

    block: Block
    source: int


def index_file(path: Path, tell: Callable[[int], None] = lambda _bytes: None) -> bytes:
    """The encoded block index of a file; `tell` gets the bytes of each step. The same bytes give
    the same index. Raises OSError."""
    whole = hashlib.sha256()
    cutter = Cutter()
    blocks: list[Block] = []
    open_block = bytearray()
    offset = 0

    def close(ends: list[int]) -> None:
        nonlocal offset
        used = 0
        with memoryview(open_block) as view:
            for end in ends:
                size = end - offset
                digest = hashlib.sha256(view[used : used + size]).digest()
                blocks.append(Block(offset, size, digest))
                used += size
                offset = end
        del open_block[:used]

    with path.open("rb", buffering=0) as file:
        while data := file.read(_READ):
            whole.update(data)
            open_block += data
            close(cutter.feed(data))
            tell(len(data))
    close(cutter.finish())
    return BlockIndex(f"sha256:{whole.hexdigest()}", offset, blocks).encode()


def parse(data: bytes, *, digest: str = "", size: int | None = None) -> BlockIndex:
    """The block index in these bytes of a stranger. Raises BadBlockIndex, also where it is of
    another blob than `digest` and `size`, if they are given, say."""
    if len(data) > INDEX_LIMIT or len(data) < _HEADER.size:
        raise _bad(f"it has {len(data)} bytes, not {_HEADER.size} to {INDEX_LIMIT}")
    magic, count, zero, total, sha256 = _HEADER.unpack_from(data)
    if magic != _MAGIC or zero:
        raise _bad("it does not begin as one of version 1 does")
    expected = _HEADER.size + count * (4 + _HASH)
    if len(data) != expected:
        raise _bad(f"it has {len(data)} bytes; {count} blocks take {expected}")
    sizes = np.frombuffer(data, "<u4", count, _HEADER.size).astype(np.int64)
    if count and (sizes.min() < 1 or sizes.max() > BLOCK_LIMIT):
        raise _bad(f"a block is empty or larger than {BLOCK_LIMIT} bytes")
    if int(sizes.sum()) != total:
        raise _bad(f"its blocks have {int(sizes.sum())} bytes together; the blob has {total}")
    found = f"sha256:{sha256.hex()}"
    if digest and digest != found:
        raise _bad(f"it is of {found}, not of {digest}")
    if size is not None and size != total:
        raise _bad(f"it is of {total} bytes, not of {size}")
    offsets = (np.cumsum(sizes) - sizes).tolist()
    first = _HEADER.size + 4 * count
    hashes = (data[at : at + _HASH] for at in range(first, expected, _HASH))
    blocks = map(Block, offsets, sizes.tolist(), hashes)
    return BlockIndex(found, total, tuple(blocks))


def common(new: BlockIndex, old: BlockIndex) -> list[Shared]:
    """The blocks of `new` whose bytes `old` holds, in the order of `new`."""
    held = {(block.sha256, block.size): block.offset for block in reversed(old.blocks)}
    keyed = ((block, held.get((block.sha256, block.size))) for block in new.blocks)
    return [Shared(block, source) for block, source in keyed if source is not None]


def missing(new: BlockIndex, shared: Sequence[Shared]) -> list[tuple[int, int]]:
    """What of `new` is not `shared` (in order, as `common` gives it): (first byte, byte after the
    last), neighbours joined."""
    bounds = [(at.block.offset, at.block.offset + at.block.size) for at in shared]
    edges = [0, *itertools.chain.from_iterable(bounds), new.size]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return [(first, last) for first, last in gaps if first < last]


def _bad(why: str) -> BadBlockIndex:
    return BadBlockIndex(f"not a usable block index: {why}", "fetch the whole blob instead")

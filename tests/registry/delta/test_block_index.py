# SPDX-License-Identifier: Apache-2.0
"""Block indexes: what is the same in two versions of a blob, and bytes of strangers."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.delta.block_index import (
    BLOCK_LIMIT,
    BadBlockIndex,
    Block,
    BlockIndex,
    common,
    index_file,
    missing,
    parse,
)
from registry.digest import digest_of


def noise(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


def indexed(folder: Path, data: bytes) -> BlockIndex:
    path = folder / "blob"
    path.write_bytes(data)
    return parse(index_file(path), digest=digest_of(data), size=len(data))


def test_blocks_cover_the_blob_and_prove_themselves(tmp_path: Path) -> None:
    data = noise(3 << 20)
    index = indexed(tmp_path, data)
    assert len(index.blocks) > 10
    end = 0
    for block in index.blocks:
        part = data[block.offset : block.offset + block.size]
        assert block.offset == end and block.holds(part) and block.digest == digest_of(part)
        assert not block.holds(part[:-1]) and not block.holds(bytes(block.size))
        end += block.size
    assert end == len(data)


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 300_000])
def test_encoding_is_undone_by_parsing(tmp_path: Path, size: int) -> None:
    index = indexed(tmp_path, noise(size))
    assert parse(index.encode()) == index
    assert bool(index.blocks) == (size > 0)


def test_progress_tells_every_byte(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(noise(5 << 20))
    steps: list[int] = []
    index_file(tmp_path / "blob", steps.append)
    assert sum(steps) == 5 << 20 and len(steps) > 1


def test_an_index_is_a_thousandth_of_its_blob(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(noise(8 << 20))
    assert len(index_file(tmp_path / "blob")) < (8 << 20) / 1000


def test_a_moved_header_costs_the_blocks_it_touches(tmp_path: Path) -> None:
    old = noise(8 << 20)
    new = b"a longer header" + old[4:]
    before, after = indexed(tmp_path, old), indexed(tmp_path, new)
    shared = common(after, before)
    gaps = missing(after, shared)
    assert sum(last - first for first, last in gaps) < 300_000
    built = bytearray(len(new))
    for at in shared:
        part = old[at.source : at.source + at.block.size]
        assert at.block.holds(part)
        built[at.block.offset : at.block.offset + at.block.size] = part
    for first, last in gaps:
        built[first:last] = new[first:last]
    assert built == new


def test_repeated_blocks_are_found_and_gaps_are_joined() -> None:
    same, other = bytes(32), bytes([1]) * 32
    old = BlockIndex(digest_of(b"old"), 20, (Block(0, 10, same), Block(10, 10, same)))
    new = BlockIndex(
        digest_of(b"new"),
        50,
        (
            Block(0, 10, other),
            Block(10, 5, same),
            Block(15, 10, same),
            Block(25, 10, same),
            Block(35, 15, other),
        ),
    )
    shared = common(new, old)
    assert [(at.block.offset, at.source) for at in shared] == [(15, 0), (25, 0)]
    assert missing(new, shared) == [(0, 15), (35, 50)]
    assert missing(new, []) == [(0, 50)]
    assert missing(old, common(old, old)) == []


def forged(sizes: list[int], total: int | None = None, count: int | None = None) -> bytes:
    head = struct.pack(
        "<8sIIQ32s",
        b"tepiblk\x01",
        len(sizes) if count is None else count,
        0,
        sum(sizes) if total is None else total,
        bytes(32),
    )
    return head + struct.pack(f"<{len(sizes)}I", *sizes) + bytes(32 * len(sizes))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "bytes"),
        (b"tepiblk\x01", "bytes"),
        (forged([5, 6])[:-1], "2 blocks take"),
        (forged([5, 6]) + b"x", "2 blocks take"),
        (forged([5, 6], total=12), "11 bytes together; the blob has 12"),
        (forged([5, 0]), "empty"),
        (forged([BLOCK_LIMIT + 1]), "larger"),
        (forged([5], count=0xFFFFFFFF), "4294967295 blocks take"),
        (b"tepiblk\x02" + forged([5])[8:], "version 1"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadBlockIndex, match=why) as caught:
        parse(data)
    assert caught.value.remedy


def test_an_index_of_another_blob_is_refused(tmp_path: Path) -> None:
    data = index_file_of(tmp_path, b"one")
    with pytest.raises(BadBlockIndex, match="not of"):
        parse(data, digest=digest_of(b"two"))
    with pytest.raises(BadBlockIndex, match="not of 4"):
        parse(data, size=4)


def index_file_of(folder: Path, data: bytes) -> bytes:
    (folder / "blob").write_bytes(data)
    return index_file(folder / "blob")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_hostile_bytes_parse_or_are_refused(data: st.DataObject) -> None:
    base = bytearray(forged(data.draw(st.lists(st.integers(1, 1 << 20), max_size=6))))
    for _ in range(data.draw(st.integers(0, 4))):
        base[data.draw(st.integers(0, len(base) - 1))] = data.draw(st.integers(0, 255))
    del base[data.draw(st.integers(0, len(base))) :]
    try:
        index = parse(bytes(base))
    except BadBlockIndex:
        return
    assert sum(block.size for block in index.blocks) == index.size
    assert index.encode() == bytes(base)
    assert hashlib.sha256(index.encode()).digest()

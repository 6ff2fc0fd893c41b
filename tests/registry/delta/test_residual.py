# SPDX-License-Identifier: Apache-2.0
"""Residuals: undone exactly, small where little changed, bounded where a stranger wrote them."""

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.delta.form import BadDelta, Coding
from registry.delta.residual import Bytes, Packed, add, pack, subtract, unpack


def octets(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def sparse(share: float, size: int = 100_000) -> Bytes:
    rng = np.random.default_rng(3)
    moved = rng.choice(np.array([1, 255], np.uint8), size)
    return np.where(rng.random(size) < share, moved, 0).astype(np.uint8)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=400))
def test_adding_undoes_subtracting(width: int, data: bytes) -> None:
    half = len(data) // 2 // width * width
    new, old = octets(data[:half]), octets(data[half : 2 * half])
    assert np.array_equal(add(subtract(new, old, width), old, width), new)


@pytest.mark.parametrize(
    ("share", "coding"), [(0.0005, Coding.GAPS), (0.02, Coding.GAPS), (0.3, Coding.MASK)]
)
def test_the_coding_follows_the_share_that_changed(share: float, coding: Coding) -> None:
    assert pack(sparse(share), 19).coding == coding


def test_a_full_residual_is_written_whole() -> None:
    assert pack(np.arange(1, 256, dtype=np.uint8), 3).coding == Coding.WHOLE


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.3, 0.49, 0.9])
def test_unpacking_undoes_packing(share: float) -> None:
    residual = sparse(share, 70_001)
    assert np.array_equal(unpack(pack(residual, 3), len(residual)), residual)


def uneven(rows: int, columns: int) -> Bytes:
    """A matrix some of whose rows and columns change often."""
    rng = np.random.default_rng(4)
    rates = 2.0 ** -rng.integers(1, 7, (rows, 1)) * 2.0 ** -rng.integers(0, 5, (1, columns))
    return (rng.random((rows, columns)) < rates).astype(np.uint8).reshape(-1)


def test_rows_and_columns_that_change_often_are_written_apart() -> None:
    residual = uneven(1500, 1000)
    way = pack(residual, 19, 1000)
    assert way.columns == 1000
    assert way.size < 0.92 * pack(residual, 19).size
    assert np.array_equal(unpack(way, len(residual)), residual)


def test_where_all_change_alike_nothing_is_sorted() -> None:
    assert pack(sparse(0.05, 200 * 300), 19, 300).columns == 0


def test_rates_of_other_than_all_rows_and_columns_are_refused() -> None:
    way = pack(uneven(300, 500), 3, 500)
    assert way.columns
    for size, columns in ((150_500, 500), (150_000, 250), (150_000, 150_000)):
        with pytest.raises(BadDelta, match="other than"):
            unpack(way._replace(columns=columns), size)


def test_any_rates_give_an_order() -> None:
    """Those of a stranger too: the bytes are then others, and the digest tells."""
    way = pack(uneven(300, 500), 3, 500)
    rates = squeezed(bytes(range(256)) * 3 + bytes(32))
    assert len(unpack(way._replace(rates=rates), 150_000)) == 150_000


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_sparse_changes_cost_little_more_than_their_entropy(share: float) -> None:
    residual = sparse(share, 1 << 20)
    packed = pack(residual, 19)
    entropy = share - share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert 8 * packed.size / len(residual) < 1.1 * entropy


def test_a_small_move_of_floats_costs_their_low_bytes() -> None:
    rng = np.random.default_rng(3)
    old = rng.normal(size=20_000).astype("<f4")
    new = (old * (1 + 1e-5 * rng.normal(size=20_000))).astype("<f4")
    wide = pack(subtract(new.view(np.uint8), old.view(np.uint8), 4), 19)
    narrow = pack(subtract(new.view(np.uint8), old.view(np.uint8), 1), 19)
    assert wide.size < 0.9 * narrow.size


def squeezed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("coding", "first", "second", "why"),
    [
        (Coding.WHOLE, squeezed(bytes(11)), b"", "other than 10"),
        (Coding.WHOLE, b"", b"", "no zstd frame"),
        (Coding.WHOLE, squeezed(bytes(10))[:-1], b"", "does not expand"),
        (Coding.WHOLE, squeezed(bytes(10)) + b"x", b"", "does not expand"),
        (Coding.GAPS, squeezed(bytes(1 << 30)), b"", "gaps in a window"),
        (Coding.GAPS, squeezed(b"\x09\x00"), squeezed(b"ab"), "behind its window"),
        (Coding.GAPS, squeezed(b"\x09"), squeezed(b"ab"), "other than 1 bytes"),
        (Coding.MASK, squeezed(b"\xff\xff"), squeezed(bytes(16)), "behind its window"),
        (Coding.MASK, squeezed(b"\xff"), squeezed(bytes(8)), "other than 2"),
        (Coding.MASK, squeezed(b"\xff\x00"), squeezed(bytes(1 << 30)), "other than 8"),
    ],
)
def test_hostile_payloads_are_refused(
    coding: Coding, first: bytes, second: bytes, why: str
) -> None:
    with pytest.raises(BadDelta, match=why):
        unpack(Packed(coding, first, second), 10)


def test_a_frame_that_hides_its_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10))
    with pytest.raises(BadDelta, match="does not say"):
        unpack(Packed(Coding.WHOLE, frame), 10)


WRITTEN = {
    "sorted": (pack(uneven(300, 500), 3, 500), 150_000),
    "gaps": (pack(sparse(0.02, 5_000), 3), 5_000),
    "mask": (pack(sparse(0.4, 5_000), 3), 5_000),
}


@pytest.mark.parametrize("kind", WRITTEN)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_payloads_give_as_many_bytes_or_are_refused(kind: str, data: st.DataObject) -> None:
    way, size = WRITTEN[kind]
    assert kind != "sorted" or way.columns
    part = data.draw(st.sampled_from(["rates", "first", "second"]))
    payload = bytearray(getattr(way, part))
    for _ in range(data.draw(st.integers(1, 3))):
        if payload:
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        payloads = {**way._asdict(), part: bytes(payload)}
        found = unpack(Packed(**payloads), size)
    except BadDelta:
        return
    assert found.shape == (size,) and found.dtype == np.uint8

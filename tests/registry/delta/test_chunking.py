# SPDX-License-Identifier: Apache-2.0
"""Content-defined chunking: bounds, locality, and the paper's own loop as the reference."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.delta import chunking
from registry.delta.chunking import Cutter, Rule, cuts

SMALL = Rule(minimum=64, target=256, maximum=1024)


def noise(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


def reference(data: bytes, rule: Rule) -> list[int]:
    """One byte at a time: `h = (h << 1) + gear[b]` in 32 bits, then the paper's order of masks."""
    ends: list[int] = []
    start = h = 0
    for end, byte in enumerate(data, 1):
        h = ((h << 1) + int(chunking._GEAR[byte])) & 0xFFFFFFFF
        size = end - start
        bound = rule.strict if size <= rule.target else rule.loose
        if (size >= rule.minimum and h < bound) or size == rule.maximum:
            ends.append(end)
            start = end
    return ends + ([len(data)] if start < len(data) else [])


@pytest.mark.parametrize("kind", ["noise", "zeros", "few values", "repeats"])
def test_equals_the_byte_by_byte_reference(kind: str) -> None:
    data = {
        "noise": noise(40_000),
        "zeros": bytes(5_000),
        "few values": (np.frombuffer(noise(40_000), np.uint8) & 3).tobytes(),
        "repeats": noise(700) * 40,
    }[kind]
    assert cuts(data, SMALL) == reference(data, SMALL)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=6_000), st.lists(st.integers(1, 700), min_size=1, max_size=20))
def test_the_size_of_reads_changes_nothing(data: bytes, reads: list[int]) -> None:
    cutter = Cutter(SMALL)
    found: list[int] = []
    at = 0
    for size in itertools.cycle(reads):
        if at >= len(data):
            break
        found += cutter.feed(data[at : at + size])
        at += size
    assert found + cutter.finish() == cuts(data, SMALL) == reference(data, SMALL)


def test_blocks_keep_their_bounds_and_meet_their_target() -> None:
    data = noise(16 << 20)
    sizes = np.diff([0, *cuts(data)])
    assert sizes[:-1].min() >= chunking.MIN_BYTES
    assert sizes.max() <= chunking.MAX_BYTES
    assert 0.8 < sizes.mean() / chunking.TARGET_BYTES < 1.4


def test_an_insertion_moves_no_cut_far_behind_it() -> None:
    data = noise(4 << 20)
    moved = data[:100_000] + b"inserted" + data[100_000:]
    before = {len(data) - cut for cut in cuts(data)}
    after = {len(moved) - cut for cut in cuts(moved)}
    assert len(before - after) <= 4


def test_nothing_and_one_byte() -> None:
    assert cuts(b"") == []
    assert cuts(b"x") == [1]


def test_the_gear_never_changes() -> None:
    """Indexes made by one release are compared with those of another."""
    assert chunking._GEAR[[0, 1, 255]].tolist() == [1934211634, 1288846855, 798039407]

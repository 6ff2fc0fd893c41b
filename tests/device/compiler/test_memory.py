# SPDX-License-Identifier: Apache-2.0
"""The memory plan: nothing that lives at once overlaps, nothing wasted where it is simple."""

from hypothesis import given
from hypothesis import strategies as st

from device.compiler.images import ALIGNMENT
from device.compiler.memory import Life, plan

LIFE = st.builds(
    lambda size, first, length: Life(size, first, first + length),
    st.integers(1, 5000),
    st.integers(0, 40),
    st.integers(0, 12),
)


@given(st.lists(LIFE, max_size=60))
def test_no_two_live_buffers_overlap(lives: list[Life]) -> None:
    offsets, total = plan(lives)
    spans = [(at, at + life.bytes) for at, life in zip(offsets, lives, strict=True)]
    assert all(at % ALIGNMENT == 0 and end <= total for at, end in spans)
    for i, (life, span) in enumerate(zip(lives, spans, strict=True)):
        for other, taken in zip(lives[:i], spans[:i], strict=True):
            if life.first <= other.last and other.first <= life.last:
                assert span[1] <= taken[0] or taken[1] <= span[0]


@given(st.lists(LIFE, min_size=1, max_size=60))
def test_between_what_lives_at_once_and_the_sum(lives: list[Life]) -> None:
    def rounded(life: Life) -> int:
        return -(-life.bytes // ALIGNMENT) * ALIGNMENT

    _, total = plan(lives)
    moments = {life.first for life in lives}
    floor = max(
        sum(rounded(life) for life in lives if life.first <= at <= life.last) for at in moments
    )
    assert floor <= total <= sum(map(rounded, lives))


def test_chain_needs_its_two_largest_neighbours() -> None:
    sizes = [1000, 4000, 2000, 8000, 500]
    lives = [Life(size, at, at + 1) for at, size in enumerate(sizes)]
    _, total = plan(lives)
    assert total == -(-2000 // 64) * 64 + -(-8000 // 64) * 64


def test_nothing() -> None:
    assert plan([]) == ([], 0)

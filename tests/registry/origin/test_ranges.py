# SPDX-License-Identifier: Apache-2.0
"""Range and Content-Range: what is asked, what is refused, and that no text breaks the parsers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.origin.ranges import (
    NotSatisfiable,
    Span,
    chunk_of,
    not_modified,
    span_of,
    still_same,
)


@pytest.mark.parametrize(
    ("header", "first", "count"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 100),
        ("bytes=10-19", 10, 10),
        ("bytes=90-1000", 90, 10),
        ("bytes=-10", 90, 10),
        ("bytes=-1000", 0, 100),
        ("BYTES= 5-6 ", 5, 2),
    ],
)
def test_a_single_range(header: str, first: int, count: int) -> None:
    assert span_of(header, 100) == Span(first, count, 100)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=1-2,4-5",
        "lines=1-2",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=" + "9" * 30 + "-",
        "bytes=٣-٤",
    ],
)
def test_what_is_not_understood_is_not_there(header: str) -> None:
    assert span_of(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=-0", 9), ("bytes=0-", 0)]
)
def test_a_range_behind_the_end(header: str, size: int) -> None:
    with pytest.raises(NotSatisfiable):
        span_of(header, size)


@given(st.text() | st.from_regex(r"bytes=\d*-\d*", fullmatch=True), st.integers(0, 1 << 50))
def test_a_span_lies_inside(header: str, size: int) -> None:
    try:
        span = span_of(header, size)
    except NotSatisfiable:
        return
    if span is not None:
        assert span.count > 0 and span.first >= 0 and span.first + span.count <= size


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_a_chunk_comes_back(first: int, more: int) -> None:
    assert chunk_of(f"{first}-{first + more}") == (first, first + more)
    assert chunk_of(f"bytes {first}-{first + more}/*") == (first, first + more)


@given(st.text())
def test_no_text_breaks_the_chunk_parser(text: str) -> None:
    found = chunk_of(text)
    assert found is None or 0 <= found[0] <= found[1]


def test_conditions() -> None:
    assert still_same("", '"x"') and still_same('"x"', '"x"')
    assert not still_same('W/"x"', '"x"') and not still_same("Thu, 01 Jan 1970", '"x"')
    assert not_modified("*", '"x"') and not_modified('"a", W/"x"', '"x"')
    assert not not_modified("", '"x"') and not not_modified('"y"', '"x"')

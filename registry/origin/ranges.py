# SPDX-License-Identifier: Apache-2.0
"""Which bytes of a blob are asked for, and which were sent: Range, If-Range, If-None-Match (RFC
9110, 13 and 14) and the Content-Range of an upload (OCI Distribution 1.1, Pushing a blob in
chunks). No I/O here."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
_CHUNK = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?", re.ASCII)
_TAGS = re.compile(r'(?:W/)?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Span:
    """`count` bytes from `first` on, of `size` in all."""

    first: int
    count: int
    size: int

    @property
    def content_range(self) -> str:
        """The Content-Range of a 206 answer."""
        return f"bytes {self.first}-{self.first + self.count - 1}/{self.size}"


class NotSatisfiable(ValueError):
    """The range lies behind the end: the answer is 416 (RFC 9110, 15.5.17)."""


def span_of(header: str, size: int) -> Span | None:
    """What a Range header asks of `size` bytes; None where the whole is to be sent: no header, one
    that is not understood, or several ranges (RFC 9110, 14.2 lets a server ignore those). Raises
    NotSatisfiable."""
    match = _RANGE.fullmatch(header.strip(" \t"))
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many bytes
        count = min(int(match[2]), size)
        if not count:
            raise NotSatisfiable(header)
        return Span(size - count, count, size)
    first = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None  # not a valid range: as if it were not there
    if first >= size:
        raise NotSatisfiable(header)
    return Span(first, min(last, size - 1) - first + 1, size)


def chunk_of(header: str) -> tuple[int, int] | None:
    """First and last byte of an upload's Content-Range `FIRST-LAST`; None where it is neither that
    nor `bytes FIRST-LAST/SIZE`."""
    match = _CHUNK.fullmatch(header)
    if match is None or int(match[2]) < int(match[1]):
        return None
    return int(match[1]), int(match[2])


def still_same(if_range: str, etag: str) -> bool:
    """Whether a range may be sent: If-Range is absent or names this very ETag (RFC 9110, 13.1.5: a
    date or a weak tag never matches here)."""
    return not if_range or if_range.strip(" \t") == etag


def not_modified(if_none_match: str, etag: str) -> bool:
    """Whether the client has it already (RFC 9110, 13.1.2; compared weakly)."""
    if if_none_match.strip(" \t") == "*":
        return True
    return etag.strip('"') in _TAGS.findall(if_none_match)

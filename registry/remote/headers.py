# SPDX-License-Identifier: Apache-2.0
"""Header fields of answers, read without I/O. A server is a stranger: what does not parse is None
or nothing, never an exception."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:[ \t]+|$|(?=,))")
_PARAMETER = re.compile(rf"[\s,]*({_TOKEN})\s*=\s*(?:{_QUOTED}|({_TOKEN}))\s*(?=,|$)")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*\s*(?=,|$)")
_LINK = re.compile(rf"[\s,]*<([^>]*)>((?:\s*;\s*{_TOKEN}\s*=\s*(?:{_QUOTED}|{_TOKEN}))*)")
_RELATION = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"\s*bytes\s+(?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)\s*")
_SECONDS = re.compile(r"\s*[0-9]{1,9}\s*")
_UPLOADED = re.compile(r"\s*(?:bytes=)?0-([0-9]{1,18})\s*")
_LENGTH_LIMIT = 16 << 10  # of a header field


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a server wants to be shown who asks (RFC 9110 section 11.6.1). `scheme` and the names
    of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(text: str) -> list[Challenge]:
    """The challenges of WWW-Authenticate, in order, up to the first place that does not parse."""
    found: list[Challenge] = []
    text, at = text[:_LENGTH_LIMIT], 0
    while scheme := _SCHEME.match(text, at):
        at = scheme.end()
        if token := _TOKEN68.match(text, at):
            at = token.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, at):
            at = parameter.end()
            name, quoted, bare = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if bare is None else bare
            parameters.setdefault(name.lower(), value)
        found.append(Challenge(scheme.group(1).lower(), parameters))
    return found


def next_link(text: str) -> str:
    """The target of `rel="next"` in a Link field (RFC 8288), or '' where there is none."""
    text, at = text[:_LENGTH_LIMIT], 0
    while link := _LINK.match(text, at):
        at = link.end()
        relation = _RELATION.search(link.group(2))
        if relation and "next" in (relation.group(1) or relation.group(2) or "").lower().split():
            return link.group(1).strip()
    return ""


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Content-Range in bytes: `first` and `last` are None where the range was refused, `total` is
    None where the server does not know it."""

    first: int | None
    last: int | None
    total: int | None


def parse_content_range(text: str) -> ContentRange | None:
    """RFC 9110 section 14.4, or None where it is malformed or contradicts itself."""
    found = _CONTENT_RANGE.fullmatch(text)
    if not found:
        return None
    first, last, total = (None if v in (None, "*") else int(v) for v in found.groups())
    if first is not None and last is not None:
        if last < first or (total is not None and last >= total):
            return None
    elif total is None:
        return None
    return ContentRange(first, last, total)


def parse_length(text: str) -> int | None:
    """Content-Length, or None."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def parse_retry_after(text: str, now: float) -> float | None:
    """Seconds from `now` (seconds since the epoch), not below 0; None where it says nothing."""
    if _SECONDS.fullmatch(text):
        return float(int(text))
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError, OSError, IndexError):
        return None


def parse_uploaded(text: str) -> int | None:
    """Bytes that an upload session holds, from its Range field `0-LAST` (OCI Distribution 1.1,
    Pushing a blob in chunks). An empty field is None. Registries write `0-0` for nothing and for
    one byte alike: that is taken as nothing, and the byte is refused or sent again."""
    found = _UPLOADED.fullmatch(text)
    if not found:
        return None
    last = int(found.group(1))
    return last + 1 if last else 0

# SPDX-License-Identifier: Apache-2.0
"""Lists that come in pages: OCI Distribution Specification 1.1, Listing Tags, and RFC 8288."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from registry.remote.errors import BadAnswer
from registry.remote.headers import next_link
from registry.remote.transport import Transport, joined, origin, shown

_PAGE = 1000  # entries asked for at a time
_PAGES = 1000
_PAGE_LIMIT = 4 << 20  # bytes


def pages(transport: Transport, path: str, scope: str) -> Iterator[bytes]:
    """The bytes of each page. Raises BadAnswer where the pages go round in a circle, on without
    end, or to another server."""
    seen: set[str] = set()
    url = transport.base + path
    while url:
        if url in seen or len(seen) >= _PAGES:
            raise BadAnswer(f"{shown(url)}: the pages of this list have no end")
        seen.add(url)
        response = transport.request("GET", url, scope)
        link = next_link(", ".join(response.headers.getlist("Link")))
        yield transport.read(response, _PAGE_LIMIT, f"GET {shown(url)}")
        following = joined(url, link) if link else ""
        if following and origin(following) != origin(transport.base):
            raise BadAnswer(f"{shown(url)}: the next page is on another server: {following[:200]}")
        url = following


def texts(transport: Transport, path: str, key: str, scope: str) -> list[str]:
    """All pages' list of texts under `key`; raises BadAnswer where there is none."""
    found: list[str] = []
    for page in pages(transport, f"{path}?n={_PAGE}", scope):
        try:
            entries: Any = json.loads(page)[key]
        except (ValueError, RecursionError, LookupError, TypeError):
            entries = ()
        entries = [] if entries is None else entries  # what Go writes for an empty list
        if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
            raise BadAnswer(f"{transport.base}{path}: no list of {key}")
        found += entries
    return found

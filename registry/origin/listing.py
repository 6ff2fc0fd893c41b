# SPDX-License-Identifier: Apache-2.0
"""Lists of tags and of repositories, a page at a time (OCI Distribution 1.1, Content Discovery)."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlencode

from aiohttp import web

from registry.origin.problems import NameUnknown, Problem
from registry.origin.pull import VERSION, name_in
from registry.origin.storage import Storage

_PAGE = 1000  # entries, unless the client asks for fewer


class PageInvalid(Problem):
    """`n` is not a number of entries."""

    code, status = "PAGINATION_NUMBER_INVALID", 400


class Listing:
    """The handlers over a registry's own storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def routes(self) -> list[web.RouteDef]:
        """What to add to an application."""
        return [
            web.get("/v2/_catalog", self._catalog),
            web.get(r"/v2/{name:.+}/tags/list", self._tags),
        ]

    async def _catalog(self, request: web.Request) -> web.StreamResponse:
        found = await asyncio.to_thread(self._storage.names)
        page, link = _page(request, found)
        return _answer({"repositories": page}, link)

    async def _tags(self, request: web.Request) -> web.StreamResponse:
        name = name_in(request)
        found = await asyncio.to_thread(self._storage.tags, name)
        if found is None:
            raise NameUnknown(f"there is no repository {name}")
        page, link = _page(request, found)
        return _answer({"name": name, "tags": page}, link)


def _page(request: web.Request, entries: list[str]) -> tuple[list[str], str]:
    """The page after `last` of `n` entries, and the Link to the next one (RFC 8288)."""
    text = request.query.get("n", str(_PAGE))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PageInvalid(f"n={text[:40]!r} is not a number of entries")
    count = min(int(text), _PAGE)
    last = request.query.get("last", "")
    rest = [entry for entry in entries if entry > last]
    page = rest[:count]
    if not page or len(rest) <= count:
        return page, ""
    return page, f'<{request.path}?{urlencode({"n": count, "last": page[-1]})}>; rel="next"'


def _answer(found: dict[str, object], link: str) -> web.Response:
    headers = {**VERSION, "Content-Type": "application/json", "Cache-Control": "no-cache"}
    if link:
        headers["Link"] = link
    return web.Response(body=json.dumps(found).encode(), headers=headers)

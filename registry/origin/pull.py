# SPDX-License-Identifier: Apache-2.0
"""The pull side over a Source: manifests, blobs and referrers (OCI Distribution 1.1, Pull and
Listing Referrers), and the trust's files. The origin and a node's tier serve by the same code."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from registry.digest import check_digest
from registry.errors import BadDigest, BadReference
from registry.oci import INDEX, Index
from registry.origin.problems import (
    BlobUnknown,
    DigestInvalid,
    Handler,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    NotHeld,
    Problem,
    RangeInvalid,
    Unavailable,
)
from registry.origin.ranges import NotSatisfiable, Span, not_modified, span_of, still_same
from registry.origin.sending import send
from registry.origin.source import Source, SourceFailed, Stored
from registry.reference import check_name, check_tag

VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
_FOREVER = "public, max-age=31536000, immutable"  # what a digest names does not change


def name_in(request: web.Request) -> str:
    """The repository's name in the path; raises NameInvalid."""
    try:
        return check_name(request.match_info["name"])
    except BadReference as error:
        raise NameInvalid(str(error), error.remedy) from None


def digest_in(text: str) -> str:
    """A digest in the path or the query; raises DigestInvalid."""
    try:
        return check_digest(text)
    except BadDigest as error:
        raise DigestInvalid(str(error)) from None


def target_in(request: web.Request, refused: type[Problem] = ManifestUnknown) -> str:
    """A tag or a digest in the path; raises DigestInvalid, or `refused` for what is neither."""
    text = request.match_info["target"]
    if ":" in text:
        return digest_in(text)
    try:
        return check_tag(text)
    except BadReference as error:
        raise refused(str(error), error.remedy) from None


class Pull:
    """The handlers. HEAD is answered wherever GET is."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def routes(self) -> list[web.RouteDef]:
        """What to add to an application."""
        return [
            web.get("/v2", _base),
            web.get("/v2/", _base),
            web.get(r"/v2/{name:.+}/manifests/{target}", _promised(self._manifest)),
            web.get(r"/v2/{name:.+}/blobs/{digest}", _promised(self._blob)),
            web.get(r"/v2/{name:.+}/referrers/{digest}", _promised(self._referrers)),
            web.get(r"/tuf/{path:.+}", _promised(self._trust)),
        ]

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        name, target = name_in(request), target_in(request)
        found = await self._source.manifest(name, target)
        if found is None:
            raise ManifestUnknown(f"{name} holds no manifest {target}")
        return whole(
            request,
            found.data,
            {
                **VERSION,
                "Content-Type": found.media_type,
                "Docker-Content-Digest": found.digest,
                "ETag": f'"{found.digest}"',
                "Cache-Control": _FOREVER if target == found.digest else "no-cache",
            },
        )

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        name, digest = name_in(request), digest_in(request.match_info["digest"])
        held = "only-if-cached" in request.headers.get("Cache-Control", "").lower()
        content = await self._source.content(name, digest, held)
        if content is None:
            kind = NotHeld if held else BlobUnknown
            raise kind(f"{name} holds no blob {digest}")
        etag = f'"{digest}"'
        headers = {
            **VERSION,
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": _FOREVER,
        }
        try:
            if not_modified(request.headers.get("If-None-Match", ""), etag):
                return web.Response(status=304, headers=headers)
            size = content.size if isinstance(content, Stored) else await content.size()
            span = None
            ranged = request.method == "GET"  # RFC 9110, 14.2: for GET alone
            if ranged and still_same(request.headers.get("If-Range", ""), etag):
                span = _asked(request, size)
            if span is not None:
                headers["Content-Range"] = span.content_range
            return await send(request, content, span or Span(0, size, size), headers)
        finally:
            content.close()

    async def _referrers(self, request: web.Request) -> web.StreamResponse:
        name, digest = name_in(request), digest_in(request.match_info["digest"])
        found = await self._source.referrers(name, digest)
        headers = {**VERSION, "Content-Type": INDEX, "Cache-Control": "no-cache"}
        if wanted := request.query.get("artifactType"):
            found = [entry for entry in found if entry.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        return whole(request, Index(tuple(found)).encode(), headers)

    async def _trust(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        found = await self._source.trust_file(path)
        if found is None:
            raise NameUnknown(f"there is no trust file {path[:200]!r}")
        kind = "application/json" if path.endswith(".json") else "application/octet-stream"
        headers = {"Content-Type": kind, "Cache-Control": "no-cache", "ETag": found.etag}
        return whole(request, found.data, headers)


async def _base(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"{}", headers={**VERSION, "Content-Type": "application/json"})


def _promised(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler, for which a source that fails is 503 with what to do."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except SourceFailed as failure:
            raise Unavailable(str(failure), failure.remedy, {"Retry-After": "5"}) from None

    return handle


def whole(request: web.Request, data: bytes, headers: dict[str, str]) -> web.Response:
    """A small document, or 304 where the client has it. Without an ETag of its own it gets the
    digest of its bytes."""
    etag = headers.setdefault("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
    if not_modified(request.headers.get("If-None-Match", ""), etag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, headers=headers)


def _asked(request: web.Request, size: int) -> Span | None:
    try:
        return span_of(request.headers.get("Range", ""), size)
    except NotSatisfiable as range_header:
        raise RangeInvalid(
            f"the blob has {size} bytes; {range_header} lies behind them",
            headers={"Content-Range": f"bytes */{size}"},
        ) from None

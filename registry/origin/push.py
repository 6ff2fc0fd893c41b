# SPDX-License-Identifier: Apache-2.0
"""The push side (OCI Distribution 1.1, Push and Content Management): upload sessions, in one piece
or in chunks, manifests, mounts and deletion."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import ClientPayloadError, web

from registry.oci import MANIFEST_LIMIT
from registry.origin.problems import (
    DigestInvalid,
    ManifestInvalid,
    ManifestUnknown,
    RangeInvalid,
    SizeInvalid,
    Unsupported,
    UploadInvalid,
)
from registry.origin.pull import VERSION, digest_in, name_in, target_in
from registry.origin.ranges import chunk_of
from registry.origin.storage import Storage
from registry.origin.uploads import Upload, Uploads

_BATCH = 1 << 20  # bytes gathered before a thread hashes and writes them
_IDLE = 60.0  # seconds in which a client must send something


class Push:
    """The handlers over a registry's own storage."""

    def __init__(self, storage: Storage, uploads: Uploads) -> None:
        self._storage = storage
        self._uploads = uploads

    def routes(self) -> list[web.RouteDef]:
        """What to add to an application."""
        session = r"/v2/{name:.+}/blobs/uploads/{session}"
        return [
            web.post(r"/v2/{name:.+}/blobs/uploads/", self._start),
            web.post(r"/v2/{name:.+}/blobs/uploads", self._start),
            web.get(session, self._status, allow_head=False),
            web.patch(session, self._append),
            web.put(session, self._finish),
            web.delete(session, self._cancel),
            web.put(r"/v2/{name:.+}/manifests/{target}", self._manifest),
            web.delete(r"/v2/{name:.+}/manifests/{target}", self._delete_manifest),
            web.delete(r"/v2/{name:.+}/blobs/{digest}", _keep_blob),
        ]

    async def _start(self, request: web.Request) -> web.StreamResponse:
        """POST: a new session; at once a mount, or a whole blob, where the query says so."""
        name = name_in(request)
        if mount := request.query.get("mount"):
            digest = digest_in(mount)
            if await asyncio.to_thread(self._storage.keep_blob, digest) is not None:
                return _created(name, digest)
        session = self._uploads.start()
        if "digest" in request.query:
            digest = digest_in(request.query["digest"])
            try:
                await self._receive(request, session)
                await asyncio.to_thread(self._uploads.finish, session, digest)
            except BaseException:  # nobody was told its name
                with contextlib.suppress(Exception):
                    self._uploads.discard(session)
                raise
            return _created(name, digest)
        return _session(202, name, session, 0)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        name, session = name_in(request), request.match_info["session"]
        upload = await asyncio.to_thread(self._uploads.find, session)
        return _session(204, name, session, upload.offset)

    async def _append(self, request: web.Request) -> web.StreamResponse:
        name, session = name_in(request), request.match_info["session"]
        upload = await self._receive(request, session)
        return _session(202, name, session, upload.offset)

    async def _finish(self, request: web.Request) -> web.StreamResponse:
        name, session = name_in(request), request.match_info["session"]
        if "digest" not in request.query:
            raise DigestInvalid("the upload is to be finished without ?digest=")
        digest = digest_in(request.query["digest"])
        await self._receive(request, session)
        await asyncio.to_thread(self._uploads.finish, session, digest)
        return _created(name, digest)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        name_in(request)
        async with self._held(request.match_info["session"]):
            self._uploads.discard(request.match_info["session"])
        return web.Response(status=204, headers=VERSION)

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        name, target = name_in(request), target_in(request, ManifestInvalid)
        data = await _read_small(request)
        digest, document = await asyncio.to_thread(
            self._storage.put_manifest, name, target, data, request.content_type
        )
        headers = {
            **VERSION,
            "Location": f"/v2/{name}/manifests/{digest}",
            "Docker-Content-Digest": digest,
        }
        if document.body.subject is not None:
            headers["OCI-Subject"] = document.body.subject.digest
        return web.Response(status=201, headers=headers)

    async def _delete_manifest(self, request: web.Request) -> web.StreamResponse:
        name, target = name_in(request), target_in(request)
        if not await asyncio.to_thread(self._storage.delete_manifest, name, target):
            raise ManifestUnknown(f"{name} holds no manifest {target}")
        return web.Response(status=202, headers=VERSION)

    @contextlib.asynccontextmanager
    async def _held(self, session: str) -> AsyncIterator[Upload]:
        upload = await asyncio.to_thread(self._uploads.find, session)
        upload.acquire()
        try:
            yield upload
        finally:
            upload.release()

    async def _receive(self, request: web.Request, session: str) -> Upload:
        """Append the request's body. What came of a body that breaks off stays: the client asks
        how much that is and goes on from there."""
        async with self._held(session) as upload:
            expected = _check_chunk(request, session, upload.offset)
            begin, gathered, held = upload.offset, list[bytes](), 0
            try:
                while True:
                    async with asyncio.timeout(_IDLE):
                        piece = await request.content.readany()
                    gathered.append(piece)
                    held += len(piece)
                    if held >= _BATCH or not piece:
                        data, gathered, held = b"".join(gathered), [], 0
                        await asyncio.to_thread(upload.append, data)
                    if not piece:
                        break
            except (ClientPayloadError, ConnectionError, TimeoutError):
                await asyncio.to_thread(upload.append, b"".join(gathered))
                raise UploadInvalid(f"the body broke off at byte {upload.offset}") from None
            if expected is not None and upload.offset - begin != expected:
                raise SizeInvalid(
                    f"Content-Range announces {expected} bytes; {upload.offset - begin} came"
                )
            return upload


def _check_chunk(request: web.Request, session: str, offset: int) -> int | None:
    """The bytes that Content-Range announces, None without one. Raises RangeInvalid where the
    chunk does not begin at `offset` (the specification's 416)."""
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    chunk = chunk_of(header)
    if chunk is None:
        raise UploadInvalid(f"Content-Range {header[:80]!r} is not of the form FIRST-LAST")
    if chunk[0] != offset:
        where = {"Range": _range(offset), "Location": request.path}
        raise RangeInvalid(
            f"upload {session} goes on at {offset}, not at {chunk[0]}", headers=where
        )
    count = chunk[1] - chunk[0] + 1
    if request.content_length is not None and request.content_length != count:
        raise SizeInvalid(f"Content-Range has {count} bytes, the body {request.content_length}")
    return count


async def _keep_blob(_request: web.Request) -> web.StreamResponse:
    raise Unsupported("blobs are not deleted one by one", "delete manifests and serve with --gc")


async def _read_small(request: web.Request) -> bytes:
    """A manifest's bytes; raises SizeInvalid above MANIFEST_LIMIT, however they are sent."""
    parts, count = list[bytes](), 0
    try:
        while True:
            async with asyncio.timeout(_IDLE):
                piece = await request.content.readany()
            if not piece:
                return b"".join(parts)
            parts.append(piece)
            count += len(piece)
            if count > MANIFEST_LIMIT:
                raise SizeInvalid(f"a manifest has at most {MANIFEST_LIMIT} bytes")
    except (ClientPayloadError, TimeoutError):
        raise ManifestInvalid("the manifest broke off") from None


def _range(offset: int) -> str:
    return f"0-{max(offset - 1, 0)}"


def _session(status: int, name: str, session: str, offset: int) -> web.Response:
    headers = {
        **VERSION,
        "Location": f"/v2/{name}/blobs/uploads/{session}",
        "Range": _range(offset),
        "Docker-Upload-UUID": session,
    }
    return web.Response(status=status, headers=headers)


def _created(name: str, digest: str) -> web.Response:
    headers = {
        **VERSION,
        "Location": f"/v2/{name}/blobs/{digest}",
        "Docker-Content-Digest": digest,
    }
    return web.Response(status=201, headers=headers)

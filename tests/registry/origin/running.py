# SPDX-License-Identifier: Apache-2.0
"""An origin on the test's own loop, and a client that speaks to it in few words."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from registry.digest import digest_of
from registry.oci import EMPTY, EMPTY_DIGEST, EMPTY_JSON, Descriptor, Manifest
from registry.origin.app import HttpServer, origin_app
from registry.origin.storage import Storage
from registry.origin.uploads import MAX_BLOB, Uploads
from registry.origin.users import Access

OPEN = Access(open_push=True)


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: CIMultiDictProxy[str]
    data: bytes

    @property
    def code(self) -> str:
        """The error code of the specification."""
        return str(json.loads(self.data)["errors"][0]["code"])


@dataclass(frozen=True)
class Running:
    """The origin under test."""

    storage: Storage
    port: int
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **rest: Any) -> Answer:
        """One request; the path goes out as it is written here."""
        if isinstance(rest.get("data"), bytes):
            rest["data"] = io.BytesIO(rest["data"])
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        async with self.session.request(method, url, **rest) as response:
            return Answer(response.status, response.headers, await response.read())

    async def raw(self, head: str, body: bytes = b"") -> bytes:
        """Bytes out, what comes until the end back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head.replace("\n", "\r\n").encode() + body)
        found = await reader.read()
        writer.close()
        await writer.wait_closed()
        return found

    async def push_blob(self, data: bytes, name: str = "a") -> Descriptor:
        """In one piece."""
        digest = digest_of(data)
        answer = await self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data=data)
        assert answer.status == 201, answer.data
        return Descriptor("application/octet-stream", digest, len(data))

    async def push_manifest(self, manifest: Manifest, target: str, name: str = "a") -> Answer:
        """Under a tag or a digest."""
        headers = {"Content-Type": manifest.media_type}
        path = f"/v2/{name}/manifests/{target}"
        return await self.ask("PUT", path, data=manifest.encode(), headers=headers)

    async def push(
        self, *layers: bytes, tag: str = "v1", name: str = "a", **rest: Any
    ) -> tuple[Manifest, str]:
        """A package of these layers; the manifest and its digest."""
        config = Descriptor(EMPTY, EMPTY_DIGEST, 2)
        await self.push_blob(EMPTY_JSON, name)
        pushed = tuple([await self.push_blob(layer, name) for layer in layers])
        manifest = Manifest(config, pushed, **rest)
        answer = await self.push_manifest(manifest, tag, name)
        assert answer.status == 201, answer.data
        return manifest, digest_of(manifest.encode())


@asynccontextmanager
async def running(
    folder: Path, access: Access = OPEN, max_blob: int = MAX_BLOB
) -> AsyncIterator[Running]:
    """Serve a folder."""
    storage = Storage(folder)
    server = HttpServer(origin_app(storage, Uploads(storage, max_blob), access), "127.0.0.1", 0)
    await server.start()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Running(storage, server.port, session)
    finally:
        await server.stop()

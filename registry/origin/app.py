# SPDX-License-Identifier: Apache-2.0
"""The registry's HTTP application, and the server around any application of this room."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from registry.oci import Descriptor
from registry.origin.listing import Listing
from registry.origin.problems import LOGGER, Handler, answer_problems
from registry.origin.pull import Pull
from registry.origin.push import Push
from registry.origin.sending import Body
from registry.origin.source import Arriving, ManifestFound, Stored, TrustFile
from registry.origin.storage import Storage
from registry.origin.uploads import Uploads
from registry.origin.users import Access

FIELDS = "tepi_fields"  # what a log record carries beside its message, as the node's log has it
TRUST_LIMIT = 16 << 20  # bytes of a trust file
_PART = re.compile(r"[A-Za-z0-9_%@+=-][A-Za-z0-9._%@+=-]*")
_BUFFER = 1 << 20  # bytes of a body that wait for the handler
_IDLE = 75.0  # seconds that a connection is kept open between two requests
_GOODBYE = 5.0  # seconds that answers under way have once the server stops


def trust_path(path: str) -> str | None:
    """The path, if it names a trust file: `metadata/…` or `targets/…` of plain words, none of which
    begins with a dot, so that it never leaves the folder."""
    parts = path.split("/")
    inside = 2 <= len(parts) <= 32 and parts[0] in ("metadata", "targets") and len(path) <= 1024
    return path if inside and all(_PART.fullmatch(part) for part in parts) else None


class OriginSource:
    """A Source over a registry's own storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def manifest(self, name: str, target: str) -> ManifestFound | None:
        """See Source."""
        return await asyncio.to_thread(self._storage.manifest, name, target)

    async def content(self, name: str, digest: str, held: bool) -> Stored | Arriving | None:
        """See Source. Rights are for the whole registry, so any repository's name gives a blob."""
        file = self._storage.open_blob(digest)
        return None if file is None else Stored(file, os.fstat(file.fileno()).st_size)

    async def referrers(self, name: str, digest: str) -> list[Descriptor]:
        """See Source."""
        return await asyncio.to_thread(self._storage.referrers, name, digest)

    async def trust_file(self, path: str) -> TrustFile | None:
        """See Source."""
        checked = trust_path(path)
        return None if checked is None else await asyncio.to_thread(self._read_trust, checked)

    def _read_trust(self, path: str) -> TrustFile | None:
        try:
            with (self._storage.trust / path).open("rb") as file:
                data = file.read(TRUST_LIMIT + 1)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        if len(data) > TRUST_LIMIT:
            LOGGER.error("tuf/%s has more than %d bytes and is not served", path, TRUST_LIMIT)
            return None
        return TrustFile(data, f'"{hashlib.sha256(data).hexdigest()}"')


def origin_app(storage: Storage, uploads: Uploads, access: Access) -> web.Application:
    """Pull, push, lists and trust files over a storage."""
    push, listing = Push(storage, uploads), Listing(storage)
    routes = [*listing.routes(), *push.routes(), *Pull(OriginSource(storage)).routes()]
    return make_app(routes, access)


def make_app(
    routes: Iterable[web.AbstractRouteDef],
    access: Access,
    clock: Callable[[], float] = time.monotonic,
    sent: Callable[[int], None] = lambda _bytes: None,
) -> web.Application:
    """An application of these routes with errors, access and a log of requests; `sent` gets the
    bytes of each body."""
    app = web.Application(
        middlewares=[_log_requests(clock, sent), answer_problems, access.middleware]
    )
    app.add_routes(routes)
    return app


class HttpServer:
    """One application on one address, on the running loop."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(
            app,
            access_log=None,
            read_bufsize=_BUFFER,
            shutdown_timeout=_GOODBYE,
            keepalive_timeout=_IDLE,
        )
        self._host = host
        self._wanted = port
        self.port = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen. Raises OSError."""
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._host, self._wanted, ssl_context=tls)
            await site.start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self.port = int(self._runner.addresses[0][1])

    def address(self, secure: bool) -> str:
        """Its URL, with the port that was taken."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http{'s' if secure else ''}://{host}:{self.port}"

    async def stop(self) -> None:
        """Stop listening, then end what is under way, at once where it takes too long."""
        await self._runner.cleanup()


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """What a server presents. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def _log_requests(clock: Callable[[], float], tell: Callable[[int], None]) -> Middleware:
    @web.middleware
    async def log(request: web.Request, handler: Handler) -> web.StreamResponse:
        begin = clock()
        status, sent = 0, 0
        try:
            response = await handler(request)
            status = response.status
            if isinstance(response, Body):
                sent = response.sent
            elif isinstance(response, web.Response) and request.method != "HEAD":
                sent = response.content_length or 0
            return response
        finally:
            tell(sent)
            fields = {
                "peer": request.remote or "",
                "method": request.method,
                "path": request.path,
                "status": status,  # 0: the connection broke
                "bytes": sent,
                "ms": round(1000 * (clock() - begin), 1),
            }
            if asked := request.headers.get("Range"):
                fields["range"] = asked[:80]
            LOGGER.log(
                logging.ERROR if status >= 500 and status != 504 else logging.INFO,
                "request",
                extra={FIELDS: fields},
            )

    return log

# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: /metrics for Prometheus, /livez and /readyz for probes that do not speak gRPC."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from edge_server import log

_NV_SUFFIX = re.compile(rb"^# (HELP|TYPE) (nv_\w+)_total ", re.MULTILINE)
_PATIENCE = 10.0  # seconds that a client may take to send its request


class WebServer:
    """Answers GET and HEAD, one request a connection."""

    def __init__(self, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._ready = ready

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, as asyncio.start_server calls it."""
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that went away or sends no HTTP has nobody to tell
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        words = head.decode("latin-1").split("\r\n", 1)[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST, b"not an HTTP/1 request\n")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
        status, body, kind = self._page(target.partition("?")[0])
        return _response(status, body, kind, with_body=method == "GET")

    def _page(self, path: str) -> tuple[HTTPStatus, bytes, str]:
        plain = "text/plain; charset=utf-8"
        if path == "/metrics":
            try:
                # Triton's counters do without the suffix that the library puts into these lines.
                text = _NV_SUFFIX.sub(rb"# \1 \2 ", generate_latest(self._registry))
                return HTTPStatus.OK, text, CONTENT_TYPE_PLAIN_0_0_4
            except Exception:
                log.failure("defect while making /metrics")
                return HTTPStatus.INTERNAL_SERVER_ERROR, b"see the server's log\n", plain
        if path == "/livez":
            return HTTPStatus.OK, b"live\n", plain
        if path == "/readyz":
            if self._ready():
                return HTTPStatus.OK, b"ready\n", plain
            return HTTPStatus.SERVICE_UNAVAILABLE, b"not ready\n", plain
        if path == "/":
            return HTTPStatus.OK, b"tepi: /metrics /livez /readyz\n", plain
        return HTTPStatus.NOT_FOUND, b"there are /metrics, /livez and /readyz\n", plain


def _response(
    status: HTTPStatus, body: bytes, kind: str = "text/plain", with_body: bool = True
) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")

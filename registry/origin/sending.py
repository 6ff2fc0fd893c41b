# SPDX-License-Identifier: Apache-2.0
"""The body of a blob onto a connection: by sendfile from a file, by pieces while it arrives."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

from aiohttp import web

from registry.origin.problems import LOGGER
from registry.origin.ranges import Span
from registry.origin.source import Arriving, SourceFailed, Stored

_STEP = 4 << 20  # bytes of one sendfile: others get their turn in between
_AHEAD = 16 << 20  # bytes that the disk is asked for in advance
_PIECE = 1 << 20  # bytes in the hands of one client, and the least where there are many
_LEAST = 64 << 10
_ALL = 32 << 20  # bytes in the hands of all clients together
_SILENCE = 120_000  # ms without any progress after which the kernel gives a client up

_TCP = socket.IPPROTO_TCP


class Body(web.StreamResponse):
    """A response that knows how much of its body went out."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self.sent = 0


async def send(
    request: web.Request, content: Stored | Arriving, span: Span, headers: Mapping[str, str]
) -> Body:
    """Send these bytes of `content`, as status 206 where `headers` have a Content-Range. A body
    that cannot be finished ends with its connection: nobody takes the part for the whole."""
    body = Body(206 if "Content-Range" in headers else 200, headers)
    body.content_length = span.count
    _expect_progress(request)
    try:
        await body.prepare(request)
        if request.method != "HEAD" and span.count:
            if isinstance(content, Stored):
                await _send_stored(request, body, content, span)
            else:
                await _send_arriving(body, content, span)
        await body.write_eof()
    except (ConnectionError, TimeoutError):
        _abort(request)  # the client went away, or takes nothing
    except SourceFailed as failure:
        LOGGER.warning("%s: cut off after %d bytes: %s", request.path, body.sent, failure)
        _abort(request)
    return body


def _expect_progress(request: web.Request) -> None:
    """Drop a client that is gone or takes nothing, however slow it may be otherwise (RFC 5482;
    Linux counts a window that stays shut too)."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(_TCP, socket.TCP_USER_TIMEOUT, _SILENCE)


class _Pieces:
    """How much one client may be given at once: bodies that go by pieces are in memory."""

    def __init__(self) -> None:
        self._clients = 0

    def __enter__(self) -> None:
        self._clients += 1

    def __exit__(self, *_error: object) -> None:
        self._clients -= 1

    @property
    def size(self) -> int:
        return max(_LEAST, min(_PIECE, _ALL // max(1, self._clients)))


_PIECES = _Pieces()


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _send_stored(request: web.Request, body: Body, content: Stored, span: Span) -> None:
    loop = asyncio.get_running_loop()
    descriptor = content.file.fileno()
    plain = request.transport is not None and request.transport.get_extra_info("sslcontext") is None
    while body.sent < span.count:
        offset, count = span.first + body.sent, min(_STEP, span.count - body.sent)
        os.posix_fadvise(descriptor, offset, _AHEAD, os.POSIX_FADV_WILLNEED)
        if request.transport is None:
            raise ConnectionResetError
        if plain:
            try:
                sent = await loop.sendfile(
                    request.transport, content.file, offset, count, fallback=False
                )
            except (NotImplementedError, RuntimeError):  # not this loop's (uvloop, TLS)
                plain = False
                continue
        else:
            with _PIECES:
                some = min(count, _PIECES.size)
                piece = await loop.run_in_executor(None, os.pread, descriptor, some, offset)
                await body.write(piece)
            sent = len(piece)
        if not sent:
            raise SourceFailed(f"the file ends at {offset}, before its {content.size} bytes")
        body.sent += sent


async def _send_arriving(body: Body, content: Arriving, span: Span) -> None:
    with _PIECES:
        while body.sent < span.count:
            offset, count = span.first + body.sent, min(_PIECES.size, span.count - body.sent)
            piece = await content.read(offset, count)
            if not piece:
                raise SourceFailed(f"nothing came at {offset}")
            await body.write(piece)
            body.sent += len(piece)

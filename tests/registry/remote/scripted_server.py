# SPDX-License-Identifier: Apache-2.0
"""An HTTP server on port 0 that answers as a test says, breaks off where it says, and remembers
what it was asked."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    port: int = 0  # of the client's end of the connection

    @property
    def authorization(self) -> str:
        """The field Authorization, or ''."""
        return self.headers.get("Authorization", "")


@dataclass(frozen=True)
class Answer:
    """One answer. `body` may be an iterator; Content-Length is that of bytes unless `headers` say
    another, and is left out for an iterator."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False  # close the connection without an answer


Script = Callable[[Asked], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what many tests are about."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Scripted:
    """The running server. `take` says how much of a request's body is read; None is all of it."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.take: Callable[[Asked], int | None] = lambda _asked: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Tests look at `asked` instead."""

            def _answer(self) -> None:
                outer.serve(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

        self.server = _Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Read a request, answer it."""
        head = Asked(handler.command, handler.path, dict(handler.headers))
        length = int(handler.headers.get("Content-Length") or 0)
        most = self.take(head)
        body = handler.rfile.read(length if most is None else min(most, length))
        asked = Asked(head.method, head.path, head.headers, body, handler.client_address[1])
        self.asked.append(asked)
        answer = self.script(asked)
        if answer.cut:
            handler.close_connection = True
            return
        headers = dict(answer.headers)
        if isinstance(answer.body, bytes):
            headers.setdefault("Content-Length", str(len(answer.body)))
        elif "Content-Length" not in headers:
            handler.close_connection = True
        handler.send_response(answer.status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if handler.close_connection:
            handler.send_header("Connection", "close")
        handler.end_headers()
        if handler.command == "HEAD":
            return
        pieces = iter([answer.body]) if isinstance(answer.body, bytes) else answer.body
        written = 0
        try:
            for piece in pieces:
                handler.wfile.write(piece)
                written += len(piece)
        except OSError:
            handler.close_connection = True
        if written != int(headers.get("Content-Length", written)):
            handler.close_connection = True

    def lines(self) -> list[str]:
        """`METHOD path` of each request."""
        return [f"{asked.method} {asked.path}" for asked in self.asked]


@contextmanager
def scripted(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """A server for the block."""
    found = Scripted(script, tls)
    thread = threading.Thread(target=found.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        thread.join()
        found.server.server_close()

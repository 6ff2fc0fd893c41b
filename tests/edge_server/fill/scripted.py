# SPDX-License-Identifier: Apache-2.0
"""A registry that does as it is told: good by default, and for each request what the test put into
its script. And a node with a store that fetches from it."""

from __future__ import annotations

import random
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge_server.fill.source import PEER_HEADERS, Origin, Peer
from registry.digest import digest_of
from registry.remote.client import Remote

NAME = "vision/digits"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PIECE = 64 << 10


def some_bytes(size: int, seed: int = 0) -> bytes:
    """The same for the same seed, and like nothing else."""
    return random.Random(seed).randbytes(size)


@dataclass
class Asked:
    """One request of a client."""

    path: str
    range: str
    headers: dict[str, str]


@dataclass
class Registry:
    """Blobs by digest, and what to do instead of giving them."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)  # by path
    script: deque[Callable[[Handler, bytes], None]] = field(default_factory=deque)
    always: Callable[[Handler, bytes], None] | None = None  # once the script is used up
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    sent: int = 0  # bytes of bodies
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: bytes) -> str:
        """Hold a blob; its digest."""
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    def put_under(self, digest: str, data: bytes) -> None:
        """Hold other bytes than those of the digest."""
        self.blobs[digest] = data

    def ranges(self) -> list[str]:
        """The Range header of each request for a blob."""
        return [asked.range for asked in self.asked if "/blobs/" in asked.path]


class Handler(BaseHTTPRequestHandler):
    """Of a Registry."""

    protocol_version = "HTTP/1.1"
    registry: Registry

    def do_GET(self) -> None:
        """A blob or a document, or what the script says."""
        registry = self.registry
        with registry.lock:
            asked = self.headers.get("Range", "")
            registry.asked.append(Asked(self.path, asked, dict(self.headers.items())))
            act = registry.script.popleft() if registry.script else registry.always
        digest = self.path.rpartition("/")[2]
        data = registry.blobs.get(digest, registry.documents.get(self.path))
        if act is not None:
            act(self, data or b"")
        elif data is None:
            self.status(404)
        else:
            self.good(data)

    def good(self, data: bytes, *, ranges: bool = True) -> None:
        """Answer as a good registry does."""
        first, end = self.span(data) if ranges else (0, len(data))
        self.head(data, first, end)
        self.body(data[first:end])

    def span(self, data: bytes) -> tuple[int, int]:
        """What is asked for."""
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not found:
            return 0, len(data)
        return int(found[1]), min(len(data), int(found[2] or len(data)) + bool(found[2]))

    def head(self, data: bytes, first: int, end: int) -> None:
        """Status and headers of a good answer."""
        part = (first, end) != (0, len(data))
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - first))
        self.send_header("ETag", f'"{digest_of(data)}"')
        self.end_headers()

    def body(self, data: bytes) -> None:
        """Bytes of a blob."""
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            try:
                self.wfile.write(piece)
            except OSError:  # the client has enough
                self.close_connection = True
                return
            with self.registry.lock:
                self.registry.sent += len(piece)

    def status(self, code: int, **headers: str) -> None:
        """An answer without a body."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


Act = Callable[[Handler, bytes], None]


def refuse(code: int, **headers: str) -> Act:
    """Answer with this status."""
    return lambda handler, _data: handler.status(code, **headers)


def ignore_range(handler: Handler, data: bytes) -> None:
    """Send the whole, whatever was asked for."""
    handler.good(data, ranges=False)


def truncate(after: int) -> Act:
    """Promise all, and end after so many bytes."""

    def act(handler: Handler, data: bytes) -> None:
        first, end = handler.span(data)
        handler.head(data, first, end)
        handler.body(data[first : min(end, first + after)])
        handler.close_connection = True

    return act


def lie(handler: Handler, data: bytes) -> None:
    """Send as many bytes, with one of them flipped."""
    wrong = bytearray(data)
    wrong[len(wrong) // 2] ^= 1
    handler.good(bytes(wrong))


def endless(handler: Handler, data: bytes) -> None:
    """Say no length, and send for as long as somebody listens."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    handler.body(data)
    while handler.wfile.closed is False:
        before = handler.registry.sent
        handler.body(b"x" * _PIECE)
        if handler.registry.sent == before:
            return


def redirect(to: str) -> Act:
    """Send the client elsewhere."""
    return lambda handler, _data: handler.status(307, Location=to)


def hold(after: int, until: threading.Event, reached: threading.Event | None = None) -> Act:
    """Send so many bytes, and the rest once the event is set."""

    def act(handler: Handler, data: bytes) -> None:
        first, end = handler.span(data)
        handler.head(data, first, end)
        handler.body(data[first : min(end, first + after)])
        handler.wfile.flush()
        if reached is not None:
            reached.set()
        until.wait(30)
        handler.body(data[min(end, first + after) : end])

    return act


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # each is waited for
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error of ours."""


@contextmanager
def running(registry: Registry | None = None) -> Iterator[Registry]:
    """Serve it on a port of its own."""
    registry = registry or Registry()
    handler = type("Bound", (Handler,), {"registry": registry, "timeout": 10})
    server = _Server(("127.0.0.1", 0), handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def origins_of(*registries: Registry, timeout: float = 5.0) -> Iterator[list[Origin]]:
    """An origin for each, in order."""
    remotes = [Remote(registry.url, timeout=timeout) for registry in registries]
    try:
        yield [
            Origin(f"o{number}", remote.registry, remote) for number, remote in enumerate(remotes)
        ]
    finally:
        for remote in remotes:
            remote.close()


@contextmanager
def peers_of(*registries: Registry, timeout: float = 5.0) -> Iterator[list[Peer]]:
    """A peer for each."""
    remotes = [
        Remote(registry.url, timeout=timeout, headers=PEER_HEADERS) for registry in registries
    ]
    try:
        yield [Peer(f"p{number}", remote.registry, remote) for number, remote in enumerate(remotes)]
    finally:
        for remote in remotes:
            remote.close()

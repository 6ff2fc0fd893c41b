# SPDX-License-Identifier: Apache-2.0
"""An origin whose answers the test holds back, cuts off and counts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from registry.digest import digest_of
from registry.oci import MANIFEST
from registry.origin.ranges import span_of


@dataclass
class HeldOrigin:
    """What it has by path, and how it behaves. `gate` holds the second half of a blob back."""

    port: int = 0
    bodies: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # path: bytes and type
    gets: Counter[str] = field(default_factory=Counter)
    gate: threading.Event = field(default_factory=threading.Event)
    down: bool = False  # every answer is 503
    cut: bool = False  # a blob's answer ends after its first half

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold_blob(self, data: bytes, name: str = "a") -> str:
        """Have a blob; its path, which ends with its digest."""
        path = f"/v2/{name}/blobs/{digest_of(data)}"
        self.bodies[path] = (data, "application/octet-stream")
        return path

    def hold_manifest(self, data: bytes, tag: str, name: str = "a") -> str:
        """Have a manifest by tag and by digest; its digest."""
        for target in (tag, digest_of(data)):
            self.bodies[f"/v2/{name}/manifests/{target}"] = (data, MANIFEST)
        return digest_of(data)


@contextmanager
def held_origin() -> Iterator[HeldOrigin]:
    """One on a free port, gate open; ended when the block ends."""
    origin = HeldOrigin()
    origin.gate.set()

    class Handler(_Handler):
        held = origin

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        origin.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield origin
        finally:
            origin.gate.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: HeldOrigin

    def do_GET(self) -> None:
        origin = self.held
        path = self.path.partition("?")[0]
        origin.gets[path] += 1
        if origin.down or path not in origin.bodies:
            self._send(503 if origin.down else 404, b"", {})
            return
        data, kind = origin.bodies[path]
        etag = f'"{digest_of(data)}"'
        headers = {"Content-Type": kind, "ETag": etag}
        if self.headers.get("If-None-Match") == etag:
            self._send(304, b"", headers)
            return
        span = span_of(self.headers.get("Range", ""), len(data))
        if span is not None:
            headers["Content-Range"] = span.content_range
            data = data[span.first : span.first + span.count]
        self._send(206 if span else 200, data, headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        half = len(data) // 2
        self.wfile.write(data[:half])
        self.wfile.flush()
        self.held.gate.wait()
        if self.held.cut and "/blobs/" in self.path and data:
            self.close_connection = True
            return
        self.wfile.write(data[half:])

    def log_message(self, *_words: Any) -> None:
        """The tests count instead."""

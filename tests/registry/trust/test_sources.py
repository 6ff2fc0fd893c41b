# SPDX-License-Identifier: Apache-2.0
"""Servers and folders that never end, never come, lead in circles or are not there."""

from __future__ import annotations

import http.server
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.trust.errors import NoSource, Oversize, SlowDrip, SourceDown
from registry.trust.sources import FolderSource, HttpSource, MetadataSource, Missing
from tests.registry.trust.conftest import Serve, World

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]
Respond = Callable[[Answer], str]


@pytest.fixture
def respond() -> Iterator[Respond]:
    """A function that starts a server with one answer to everything."""
    servers = []

    def start(answer: Answer) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Tests print nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/tuf"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_endless_data(world: World, respond: Respond) -> None:
    sent = []

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            while True:
                sent.append(handler.wfile.write(b"x" * 65536))
        except OSError:
            handler.close_connection = True

    with pytest.raises(Oversize, match=r"metadata/2\.root\.json has more than the 512000 bytes"):
        world.node().refresh([HttpSource(respond(endless))], "canary")
    assert sum(sent) < 32 << 20  # socket buffers, not the stream


def test_endless_file_in_a_folder(world: World) -> None:
    mirror = world.copy("mirror")
    with (mirror / "tuf" / "metadata" / "timestamp.json").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(Oversize, match=r"timestamp\.json has more than the 16384 bytes"):
        world.node().refresh([FolderSource(mirror)], "canary")


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_no_plain_file_on_a_stick(world: World, kind: str) -> None:
    """Reading a pipe would never end."""
    mirror = world.copy("mirror")
    path = mirror / "tuf" / "metadata" / "timestamp.json"
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(NoSource, match=r"timestamp\.json: not a plain file"):
        world.node().refresh([FolderSource(mirror)], "canary")


def test_longer_than_the_snapshot_says(world: World, serve: Serve) -> None:
    mirror = world.copy("mirror")
    with (mirror / "tuf" / "metadata" / "2.targets.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(Oversize, match=r"2\.targets\.json"):
        world.node().refresh([HttpSource(serve(mirror))], "canary")


def test_slow_drip(respond: Respond) -> None:
    """A byte comes now and then, so the line is never silent for long."""
    done = threading.Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x")
        done.wait()
        handler.close_connection = True

    source = HttpSource(respond(drip), monotonic=itertools.count(0, 100).__next__)
    try:
        with pytest.raises(SlowDrip, match="1 bytes in 60 s"):
            source.get("metadata/timestamp.json", 4096)
    finally:
        done.set()


def test_silence(respond: Respond) -> None:
    done = threading.Event()

    def silent(handler: http.server.BaseHTTPRequestHandler) -> None:
        done.wait()
        handler.close_connection = True

    try:
        with pytest.raises(SourceDown, match="timed out"):
            HttpSource(respond(silent), seconds=0.05).get("metadata/timestamp.json", 4096)
    finally:
        done.set()


def test_truncated(respond: Respond) -> None:
    def short(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"{")
        handler.close_connection = True

    with pytest.raises(SourceDown):
        HttpSource(respond(short)).get("metadata/timestamp.json", 4096)


def test_redirect_loop(respond: Respond) -> None:
    def circle(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(SourceDown, match="redirects"):
        HttpSource(respond(circle)).get("metadata/timestamp.json", 4096)


@pytest.mark.parametrize(("status", "kind"), [(404, Missing), (403, Missing), (503, SourceDown)])
def test_answers_without_a_file(respond: Respond, status: int, kind: type[Exception]) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(kind):
        HttpSource(respond(answer)).get("metadata/timestamp.json", 4096)


def test_a_server_in_trouble_is_not_taken_for_one_without_a_newer_root(
    world: World, respond: Respond
) -> None:
    def trouble(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(500)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(NoSource, match="the answer was 500"):
        world.node().refresh([HttpSource(respond(trouble))], "canary")


def test_what_is_unchanged_is_not_sent_again(respond: Respond) -> None:
    asked = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers.get("If-None-Match"))
        same = asked[-1] == '"one"'
        handler.send_response(304 if same else 200)
        handler.send_header("ETag", '"one"')
        handler.send_header("Content-Length", "0" if same else "2")
        handler.end_headers()
        if not same:
            handler.wfile.write(b"{}")

    source = HttpSource(respond(answer))
    path = "metadata/timestamp.json"
    assert [source.get(path, 4096) for _ in range(2)] == [b"{}", b"{}"]
    assert asked == [None, '"one"']


def test_nothing_listens_and_nothing_is_plugged_in(world: World, tmp_path: Path) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    port = server.server_address[1]
    server.server_close()
    sources: list[MetadataSource] = [
        HttpSource(f"http://127.0.0.1:{port}/tuf"),
        FolderSource(tmp_path / "usb"),
    ]
    with pytest.raises(NoSource, match=r"refused.*usb holds no metadata"):
        world.node().refresh(sources, "canary")
    with pytest.raises(NoSource, match="none is given"):
        world.node().refresh([], "canary")

# SPDX-License-Identifier: Apache-2.0
"""A registry with few keys, a node, a clock that both share, and an HTTP server for the folder."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.trust import changes, founding
from registry.trust.changes import Package
from registry.trust.client import TrustClient
from registry.trust.folder import EXPIRY, RegistryFolder
from registry.trust.founding import Plan
from registry.trust.publisher import Publisher

START = 1_700_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR


@dataclass
class Clock:
    """Stands still unless it is moved."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A registry in `path`, its offline keys in `keys`, a node's trust in `node`."""

    base: Path
    clock: Clock = field(default_factory=Clock)

    @property
    def path(self) -> Path:
        return self.base / "registry"

    @property
    def keys(self) -> Path:
        return self.base / "keys"

    @property
    def metadata(self) -> Path:
        return self.path / "tuf" / "metadata"

    @property
    def root(self) -> Path:
        return self.metadata / "1.root.json"

    @contextmanager
    def publisher(self, *keys: Path) -> Iterator[Publisher]:
        folder = RegistryFolder(self.path)
        with Publisher.opened(folder, self.clock, keys or (self.keys,)) as publisher:
            yield publisher

    def init(self, plan: Plan | None = None) -> None:
        with self.publisher() as publisher:
            founding.init(publisher, self.keys, plan or Plan(), EXPIRY)

    def vouch(self, name: str = "vision/digits", tag: str = "1.0", data: bytes = b"") -> Package:
        data = data or f"{name}:{tag}".encode()
        package = Package(name, tag, digest_of(data), len(data))
        with self.publisher() as publisher:
            changes.vouch(publisher, [package])
        return package

    def desire(self, *models: str, ring: str = "canary") -> None:
        with self.publisher() as publisher:
            changes.desire(publisher, ring, models)

    def refresh(self, within: float = 12 * HOUR) -> list[str]:
        """As cron does: the offline keys are not at hand."""
        with self.publisher(self.base / "none") as publisher:
            return changes.refresh(publisher, within)

    def node(self, name: str = "node") -> TrustClient:
        return TrustClient(self.base / name, self.root, self.clock)

    def copy(self, name: str) -> Path:
        """The registry as it is now: what a stale mirror goes on showing."""
        to = self.base / name
        shutil.copytree(self.path, to)
        return to


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A registry that vouches for vision/digits:1.0, which ring canary is to run."""
    found = World(tmp_path)
    found.init()
    found.vouch()
    found.desire("vision/digits:1.0")
    return found


Serve = Callable[[Path], str]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that serves a registry's folder over HTTP and returns the base URL of its TUF."""
    servers = []

    def start(path: Path) -> str:
        handler = functools.partial(_Quiet, directory=str(path))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/tuf"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()

# SPDX-License-Identifier: Apache-2.0
"""An authority with its enrolment service, in this process, over real TLS."""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.authority import Authority
from firmware_bridge.provision.client import EstClient, Pair
from firmware_bridge.provision.est import EstServer


class FakeClock:
    """Shows what it is set to."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        return self.now


def no_pause(_seconds: float) -> None:
    """Tests do not wait between tries."""


class Service:
    """A running service: its address, and what stands behind it."""

    def __init__(self, admission: Admission, server: EstServer) -> None:
        self.admission, self.authority = admission, admission.authority
        self.url = f"https://127.0.0.1:{server.port}"
        self.root = forms.pem_of(self.authority.root)

    def client(self, clock: FakeClock | None = None, pair: Pair | None = None) -> EstClient:
        return EstClient(self.url, self.root, clock or self.authority.clock, pair, no_pause)


async def closed(selector: selectors.BaseSelector) -> None:
    """Until each connection has said goodbye: the loop watches nothing but its own pipe."""
    while len(selector.get_map()) > 1:  # noqa: ASYNC110, a selector has no event for it
        await asyncio.sleep(0.001)


@contextmanager
def service(admission: Admission) -> Iterator[Service]:
    """Serve on a free port, in a thread with an event loop of its own."""
    selector = selectors.DefaultSelector()
    loop = asyncio.SelectorEventLoop(selector)
    thread = threading.Thread(target=loop.run_forever, name="est")
    thread.start()
    server = EstServer(admission, "127.0.0.1", 0, ["127.0.0.1", "localhost"])
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(20)
        try:
            yield Service(admission, server)
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
            asyncio.run_coroutine_threadsafe(closed(selector), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def authority(
    folder: Path, clock: FakeClock | None = None, vendors: tuple[Path, ...] = ()
) -> Iterator[Authority]:
    """A new one."""
    with Authority.create(folder / "authority", clock or FakeClock(), "Tests", vendors) as made:
        yield made

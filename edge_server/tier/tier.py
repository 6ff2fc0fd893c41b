# SPDX-License-Identifier: Apache-2.0
"""A node as a cache for the nodes below it: an OCI registry to pull from, in a thread of its own.

It runs on the standard event loop, which has sendfile (uvloop has not), apart from the loop that
serves inference: no client of one waits for those of the other.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from edge_server.fill.fills import Fills
from edge_server.store.store import Store
from edge_server.tier.errors import CannotListen, TierError
from edge_server.tier.records import Records
from edge_server.tier.relay import TTL, Relay, Upstream
from edge_server.tier.source import PATIENCE, Counts, TierSource
from registry.errors import BadReference
from registry.origin.app import HttpServer, make_app
from registry.origin.pull import Pull
from registry.origin.users import Access
from registry.reference import parse_listen

_THREADS = 16  # that wait for disks and for origins' answers, never for a client


class Tier:
    """`folder` keeps what origins said last, for when they are down; `access` and `tls` guard it.
    `ttl`: seconds until tags and trust files are asked again. `clock`: seconds since 1970."""

    def __init__(
        self,
        store: Store,
        fills: Fills,
        origins: Upstream,
        folder: Path,
        clock: Callable[[], float] = time.time,
        *,
        access: Access | None = None,
        tls: ssl.SSLContext | None = None,
        ttl: float = TTL,
        patience: float = PATIENCE,
    ) -> None:
        self._store = store
        self._fills = fills
        self._origins = origins
        self._folder = folder
        self._clock = clock
        self._ttl = ttl
        self._access = access or Access()
        self._tls = tls
        self._patience = patience
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self.counts = Counts()

    def start(self, listen: str) -> str:
        """Serve on HOST:PORT (port 0 takes a free one); the URL. Raises CannotListen, OSError where
        the folder cannot be made."""
        try:
            host, port = parse_listen(listen)
        except BadReference as error:
            raise CannotListen(str(error), error.remedy) from None
        if self._thread is not None:
            raise TierError("the tier serves already", "stop it first")
        records = Records(self._folder)
        relay = Relay(self._store, self._origins, records, self._clock, self._ttl)
        ready: Future[str] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(relay, host, port, ready), name="tepi-tier"
        )
        self._thread.start()
        try:
            return ready.result()
        except OSError as error:
            self._thread.join()
            self._thread = None
            raise CannotListen(
                f"the tier cannot listen on {listen}: {error.strerror or error}",
                "stop what uses it or give another address; port 0 takes a free one",
            ) from None

    def stop(self) -> None:
        """Stop serving; answers under way have a few seconds. Fills go on."""
        if self._thread is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    def _run(self, relay: Relay, host: str, port: int, ready: Future[str]) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve(relay, host, port, ready))

    async def _serve(self, relay: Relay, host: str, port: int, ready: Future[str]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        with ThreadPoolExecutor(_THREADS, "tepi-tier") as threads:
            source = TierSource(self._store, self._fills, relay, threads, patience=self._patience)
            source.counts = self.counts
            app = make_app(Pull(source).routes(), self._access, sent=self._sent)
            server = HttpServer(app, host, port)
            try:
                await server.start(self._tls)
            except BaseException as error:
                ready.set_exception(error)
                return
            ready.set_result(server.address(self._tls is not None))
            await self._stop.wait()
            await server.stop()

    def _sent(self, count: int) -> None:
        self.counts.bytes += count

# SPDX-License-Identifier: Apache-2.0
"""A fill, which threads work on, as coroutines see it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Executor

from edge_server.fill.fill import Fill
from edge_server.store.errors import StoreError
from edge_server.store.store import Store
from registry.errors import NotFound, RegistryError
from registry.origin.source import SourceFailed

_LOOK = 1.0  # seconds that a thread waits for a fill which changes hands


class FillContent:
    """See registry.origin.source.Arriving. Made, used and closed on one loop. Closing it leaves the
    fill alone: what is under way is wanted by the next client too."""

    def __init__(self, fill: Fill, store: Store, threads: Executor) -> None:
        self._fill = fill
        self._store = store
        self._threads = threads
        self._attempt = fill.attempt
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._waiting = False
        self._descriptor: int | None = None
        self._unsubscribe = fill.subscribe(self._told)

    def _told(self, _fill: Fill) -> None:
        """In the thread that fills."""
        if self._waiting:
            self._waiting = False
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it the client
                self._loop.call_soon_threadsafe(self._changed.set)

    async def size(self) -> int:
        """See Arriving. Raises NotFound where nobody has the blob, SourceFailed."""
        while self._fill.size is None:
            await self._change(lambda: self._fill.size is not None)
        return self._fill.size

    async def read(self, offset: int, limit: int) -> bytes:
        """See Arriving."""
        fill = self._fill
        while True:
            self._check_attempt()
            if fill.path is not None:
                return await self._run(self._read_stored, offset, limit)
            if fill.available > offset:
                with contextlib.suppress(TimeoutError):
                    return await self._run(self._read_arriving, offset, limit)
                continue
            await self._change(lambda: fill.available > offset or fill.path is not None)

    def close(self) -> None:
        """See Arriving."""
        self._unsubscribe()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def _change(self, come: Callable[[], bool]) -> None:
        """Wait until the fill says something, unless `come` is true already."""
        self._changed.clear()
        self._waiting = True  # from here on a change is not missed
        failure = self._fill.error
        if failure is not None:
            if isinstance(failure, NotFound):
                raise failure
            raise SourceFailed(str(failure), failure.remedy)
        self._check_attempt()
        if not come():
            await self._changed.wait()

    def _check_attempt(self) -> None:
        if self._attempt != self._fill.attempt:
            raise SourceFailed(f"{self._fill.digest} is fetched anew: what came first was wrong")

    async def _run(self, work: Callable[[int, int], bytes], offset: int, limit: int) -> bytes:
        try:
            return await self._loop.run_in_executor(self._threads, work, offset, limit)
        except (RegistryError, OSError) as error:
            raise SourceFailed(str(error)) from None

    def _read_arriving(self, offset: int, limit: int) -> bytes:
        return self._fill.read(offset, limit, _LOOK, attempt=self._attempt)

    def _read_stored(self, offset: int, limit: int) -> bytes:
        """Through one descriptor, so that an eviction does not end it."""
        if self._descriptor is None:
            self._descriptor = self._store.open_blob(self._fill.digest)
        if self._descriptor is None:
            raise StoreError(f"{self._fill.digest} left the store while it was read")
        return os.pread(self._descriptor, limit, offset)

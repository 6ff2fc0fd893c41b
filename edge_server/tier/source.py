# SPDX-License-Identifier: Apache-2.0
"""A node as a source for the pull side: from its store, else from further up while it comes in.

Any blob may be asked for under any name; whether it exists is for the origins to say, under that
name. Whatever comes is kept in the store, unpinned, and goes with the least used.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_server.fill.errors import FillError
from edge_server.fill.fill import Want
from edge_server.fill.fills import Fills
from edge_server.store.store import Store
from edge_server.tier.arriving import FillContent
from edge_server.tier.relay import TTL, Relay
from registry.errors import NotFound, RegistryError
from registry.oci import Descriptor
from registry.origin.source import Arriving, ManifestFound, SourceFailed, Stored, TrustFile

T = TypeVar("T")
MOST_FILLS = 256  # under way at once, so that nobody fills the memory with wishes
PATIENCE = 60.0  # seconds until a client is told to come again; the fill goes on
_MISSING = 1024  # blobs that nobody has, remembered for a moment


@dataclass(slots=True)
class Counts:
    """Of blob requests: what was here, what was coming already, what had to be fetched; and bytes
    that went out."""

    hits: int = 0
    joined: int = 0
    misses: int = 0
    bytes: int = 0


class TierSource:
    """See registry.origin.source.Source. Lives on one loop; `threads` do what blocks."""

    def __init__(
        self,
        store: Store,
        fills: Fills,
        relay: Relay,
        threads: Executor,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        self.counts = Counts()
        self._store = store
        self._fills = fills
        self._relay = relay
        self._threads = threads
        self._clock = clock
        self._patience = patience
        self._asking: dict[str, asyncio.Task[Any]] = {}
        self._missing: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def manifest(self, name: str, target: str) -> ManifestFound | None:
        """See Source."""
        return await self._once(f"m {name} {target}", self._relay.manifest, name, target)

    async def referrers(self, name: str, digest: str) -> list[Descriptor]:
        """See Source."""
        return await self._once(f"r {name} {digest}", self._relay.referrers, name, digest)

    async def trust_file(self, path: str) -> TrustFile | None:
        """See Source."""
        return await self._once(f"t {path}", self._relay.trust_file, path)

    async def content(self, name: str, digest: str, held: bool) -> Stored | Arriving | None:
        """See Source. Its size is known when this returns an Arriving."""
        descriptor = await self._run(self._store.open_blob, digest)
        if descriptor is not None:
            self.counts.hits += 1
            return Stored(os.fdopen(descriptor, "rb", buffering=0), os.fstat(descriptor).st_size)
        if held or self._is_missing((name, digest)):
            return None
        arriving = self._start(name, digest)
        try:
            async with asyncio.timeout(self._patience):
                await arriving.size()
        except NotFound:
            arriving.close()
            self._note_missing((name, digest))
            return None
        except TimeoutError:
            arriving.close()
            raise SourceFailed(f"{digest} has not begun to come yet", "ask again") from None
        except BaseException:
            arriving.close()
            raise
        return arriving

    def _start(self, name: str, digest: str) -> FillContent:
        under_way = self._fills.find(digest) is not None
        if not under_way and len(self._fills.under_way()) >= MOST_FILLS:
            raise SourceFailed(f"{MOST_FILLS} blobs are coming in already", "ask again")
        try:  # one more holder, who never cancels: the fill outlives its clients
            fill = self._fills.start(Want(name, digest, urgent=True))
        except FillError as error:
            raise SourceFailed(str(error), error.remedy) from None
        if under_way:
            self.counts.joined += 1
        else:
            self.counts.misses += 1
        return FillContent(fill, self._store, self._threads)

    def _is_missing(self, key: tuple[str, str]) -> bool:
        until = self._missing.get(key)
        return until is not None and self._clock() < until

    def _note_missing(self, key: tuple[str, str]) -> None:
        self._missing[key] = self._clock() + TTL
        self._missing.move_to_end(key)
        while len(self._missing) > _MISSING:
            self._missing.popitem(last=False)

    async def _once(self, key: str, ask: Callable[..., T], *arguments: str) -> T:
        """However many ask for this now, one thread goes and finds out. A client that goes away
        leaves it to the others."""
        task: asyncio.Task[T] | None = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._run(ask, *arguments))
            self._asking[key] = task
            task.add_done_callback(lambda _task: self._asking.pop(key, None))
        return await asyncio.shield(task)

    def _run(self, work: Callable[..., T], *arguments: str) -> Coroutine[Any, Any, T]:
        async def run() -> T:
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(self._threads, work, *arguments)
            except SourceFailed:
                raise
            except RegistryError as error:
                raise SourceFailed(str(error), error.remedy) from None

        return run()

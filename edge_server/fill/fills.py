# SPDX-License-Identifier: Apache-2.0
"""All fills of a node: one for each blob however many want it, urgent ones first, a bounded number
at a time, each in a thread that ends when there is nothing left to do."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from pathlib import Path

from edge_server.fill.errors import Stopped
from edge_server.fill.fill import Fill, Want
from edge_server.fill.origins import Origins
from edge_server.fill.peers import Peers
from edge_server.fill.receive import Limits
from edge_server.fill.turns import Patience
from edge_server.fill.window import ALWAYS, Windows
from edge_server.fill.worker import House, Worker
from edge_server.store.store import Store

BACKGROUND = 2  # fills at once
URGENT = 8  # fills at once, beside those
_LOOK = 0.5  # seconds after which one who waits for another fill looks whether to stop


class Fills:
    """Starts fills. Safe for threads."""

    def __init__(
        self,
        store: Store,
        origins: Origins,
        peers: Peers | None = None,
        *,
        limits: Limits | None = None,
        windows: Windows = ALWAYS,
        patience: Patience | None = None,
        rng: random.Random | None = None,
        background: int = BACKGROUND,
        urgent: int = URGENT,
    ) -> None:
        self._house = House(
            store,
            origins,
            peers or Peers(),
            limits or Limits(),
            windows,
            patience or Patience(),
            rng or random.Random(),
        )
        self._limits = {False: background, True: urgent}
        self._lock = threading.Lock()
        self._live: dict[str, Fill] = {}  # by digest, from start to end
        self._pending: dict[bool, deque[Fill]] = {False: deque(), True: deque()}
        self._running = {False: 0, True: 0}
        self._threads: set[threading.Thread] = set()
        self._stopping = False
        self._totals: Counter[str] = Counter()  # of those that ended

    def start(self, want: Want) -> Fill:
        """The fill of this blob: one that is under way already, else a new one. Raises Stopped
        after `stop`."""
        with self._lock:
            fill, new = self._enter(want)
            if new or self._promoted(fill):
                self._pending[fill.urgent].append(fill)
                self._hire(fill.urgent)
        return fill

    def find(self, digest: str) -> Fill | None:
        """The fill of this blob, if it is under way."""
        with self._lock:
            return self._live.get(digest)

    def under_way(self) -> list[Fill]:
        """All fills that have not ended, for status and progress bars."""
        with self._lock:
            return list(self._live.values())

    def totals(self) -> dict[str, int]:
        """Bytes of all fills of this process by source: `origin NAME`, `peer NAME`, `local` for
        blocks that were here already, `delta` for what deltas made. Those of `local`, `delta` and
        peers did not come from an origin; what a delta cost is in its origin's count."""
        with self._lock:
            return dict(sum((Counter(f.sources) for f in self._live.values()), self._totals))

    def stop(self) -> None:
        """End all fills, keeping what arrived, and wait until their threads are gone."""
        with self._lock:
            self._stopping = True
            fills, threads = list(self._live.values()), list(self._threads)
            waiting = [fill for queue in self._pending.values() for fill in queue]
            for queue in self._pending.values():
                queue.clear()
        for fill in fills:
            fill.halt()
        for fill in waiting:
            self._leave(fill)
            fill.failed(_stopped(fill.digest))
        for thread in threads:
            thread.join()

    def _enter(self, want: Want) -> tuple[Fill, bool]:
        """The fill, and whether it is new. With the lock."""
        if self._stopping:
            raise _stopped(want.digest)
        before = self._live.get(want.digest)
        if before is not None and before.join(urgent=want.urgent):
            return before, False
        self._live[want.digest] = fill = Fill(want, self._house.limits.time.now, after=before)
        return fill, True

    def _promoted(self, fill: Fill) -> bool:
        """Whether it waited among those in the background and is urgent now. With the lock."""
        waiting = self._pending[False]
        if not fill.urgent or fill not in waiting:
            return False
        waiting.remove(fill)
        return True

    def _hire(self, urgent: bool) -> None:
        """One more thread, where that is allowed. With the lock."""
        if self._running[urgent] < self._limits[urgent]:
            self._running[urgent] += 1
            name = f"fill {'urgent' if urgent else 'background'}"
            thread = threading.Thread(target=self._work, args=(urgent,), name=name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self, urgent: bool) -> None:
        while (fill := self._take(urgent)) is not None:
            try:
                self._run(fill)
            except BaseException:  # a defect, which the fill has told to those who wait
                self._end(urgent)
                raise

    def _take(self, urgent: bool) -> Fill | None:
        """The next fill, or the end of the thread."""
        with self._lock:
            if self._pending[urgent]:
                return self._pending[urgent].popleft()
            self._dismiss(urgent)
            return None

    def _end(self, urgent: bool) -> None:
        """This thread ends before its time; another takes over."""
        with self._lock:
            self._dismiss(urgent)
            if self._pending[urgent]:
                self._hire(urgent)

    def _dismiss(self, urgent: bool) -> None:
        """This thread is to end. With the lock."""
        self._running[urgent] -= 1
        self._threads.discard(threading.current_thread())

    def _run(self, fill: Fill) -> None:
        Worker(fill, self._house, self._nested).run(lambda: self._leave(fill))

    def _leave(self, fill: Fill) -> None:
        with self._lock:
            if self._live.get(fill.digest) is fill:
                del self._live[fill.digest]
                self._totals.update(fill.sources)

    def _nested(self, want: Want, stop: threading.Event) -> Path:
        """Fill another blob in this thread, or wait for the thread that does; so that fills which
        wait for fills never use up the threads. Raises what the fill fails with, Stopped."""
        with self._lock:
            fill, mine = self._enter(want)
            for queue in self._pending.values():
                if fill in queue:
                    queue.remove(fill)
                    mine = True
        if mine:
            self._run(fill)
        while True:
            try:
                return fill.wait(_LOOK)
            except TimeoutError:
                if stop.is_set():
                    fill.cancel()
                    raise _stopped(want.digest) from None


def _stopped(digest: str) -> Stopped:
    return Stopped(f"{digest}: the fill was stopped", "start it again: it goes on where it was")

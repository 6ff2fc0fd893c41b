# SPDX-License-Identifier: Apache-2.0
"""Reads what a node holds again now and then, and mends what its disk has lost.

A damaged blob is out of the way at once; it is fetched again by its digest, block by block where it
has an index, the files of deployments are linked anew, and their models loaded anew: a program
that is mapped from a damaged file would go on computing with it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_server import log
from edge_server.fill.errors import Stopped
from edge_server.fill.fill import Want
from edge_server.fill.time import Time
from edge_server.rpc import defect
from edge_server.store.store import Store
from edge_server.sync.deployed import Deployment, Deployments
from edge_server.sync.gather import Filler, held_index
from edge_server.sync.models import Models
from registry.errors import NotFound, RegistryError

RATE: Final = 32 << 20  # bytes a second
_LOOK_SECONDS: Final = 0.5
_AFTER_TROUBLE: Final = 900.0  # seconds until a repair that failed is tried again
_STAMP = "scrubbed"


class Scrub:
    """A thread's work. `every` is in seconds, counted across restarts; 0: never."""

    def __init__(
        self,
        state: Path,
        store: Store,
        fills: Filler,
        deployments: Deployments,
        models: Models,
        stop: threading.Event,
        every: float,
        time: Time,
        rng: random.Random | None = None,
        rate: float = RATE,
    ) -> None:
        self._stamp = state / _STAMP
        self._store = store
        self._fills = fills
        self._deployments = deployments
        self._models = models
        self._stop = stop
        self._every = every
        self._time = time
        self._rng = rng or random.Random()
        self._rate = rate
        self.damaged = 0  # blobs found damaged, in all
        self.mended = 0
        self.waiting = 0  # that could not be fetched again yet

    def run(self) -> None:
        """Scrub when it is due until told to stop."""
        while self._every and not self._stop.is_set():
            self._time.wait(self._stop, self.due_in())
            if not self._stop.is_set():
                self.once()

    def due_in(self) -> float:
        """Seconds until the next one."""
        if self.waiting:
            return _AFTER_TROUBLE
        try:
            last = self._stamp.stat().st_mtime
        except OSError:
            last = self._time.wall()
            self._mark()
        return max(0.0, last + self._every - self._time.wall())

    def once(self) -> None:
        """Read all, mend what is damaged."""
        try:
            self._look()
            self.mend()
        except Stopped:
            return
        except RegistryError as error:
            log.warning("scrub", reason=str(error))
        except Exception:
            defect("scrub")
        self._mark()

    def mend(self) -> None:
        """Fetch again what is damaged. Raises the store's errors, Stopped."""
        repaired = self._store.repair(self._fetch)
        self.mended += len(repaired.mended)
        self.waiting = len(repaired.failed)
        for digest in repaired.mended:
            log.info("scrub: mended", digest=digest)
        for digest, error in repaired.failed.items():
            log.warning("scrub: not mended yet", digest=digest, reason=str(error))
        for name in self._deployments.mend():
            deployment = self._deployments.current(name)
            if deployment is not None:
                self._models.replace(deployment, _nothing, check=False)
                log.info("scrub: loaded anew", model=name)

    def _look(self) -> None:
        if self._store.damaged() and self.waiting:
            return  # they are waited for; all else was read a while ago
        damaged = self._store.verify(self._tell, rate=self._rate, pause=self._pause)
        self.damaged += len(damaged)
        for blob in damaged:
            log.warning(
                "scrub: damaged", digest=blob.digest, reason=blob.reason, pins=",".join(blob.pins)
            )

    def _fetch(self, digest: str) -> None:
        fill = self._fills.start(self._want(digest))
        while True:
            if self._stop.is_set():
                fill.cancel()
                raise Stopped("the sync is stopping")
            try:
                fill.wait(_LOOK_SECONDS)
                return
            except TimeoutError:
                continue

    def _want(self, digest: str) -> Want:
        """Of a package that has the blob: its good blocks are taken from the damaged file."""
        for deployment in self._held():
            name = deployment.package.model.repository
            for file in deployment.package.files:
                if file.digest == digest:
                    return Want(name, digest, file.size, True, held_index(self._store, file))
            if digest in deployment.package.digests:
                return Want(name, digest, urgent=True)
        raise NotFound(f"no package here has {digest}: it is not fetched again")

    def _held(self) -> Iterator[Deployment]:
        for name in self._deployments.names():
            for found in (self._deployments.current(name), self._deployments.previous(name)):
                if found is not None:
                    yield found

    def _tell(self, _count: int) -> None:
        if self._stop.is_set():
            raise Stopped("the sync is stopping")

    def _pause(self, seconds: float) -> None:
        self._time.wait(self._stop, seconds)

    def _mark(self) -> None:
        try:
            self._stamp.touch()
        except OSError as error:
            log.warning("scrub: the time is not kept", reason=error.strerror)


def _nothing() -> None:
    """What is current stays so."""

# SPDX-License-Identifier: Apache-2.0
"""Follows what the registry wants this node to run: look, fetch, verify, switch, and again.

One thread, one step at a time; all that takes long is below it, in fills and loads. Whatever
happens, what is current serves on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Final, Protocol

from edge_server import log
from edge_server.fill.errors import Stopped
from edge_server.fill.fill import Fill
from edge_server.fill.time import REAL_TIME, Time
from edge_server.rpc import defect
from edge_server.store.store import Store
from edge_server.sync.deployed import Deployment, Deployments
from edge_server.sync.errors import Unfit
from edge_server.sync.gather import Gatherer
from edge_server.sync.holds import Holds
from edge_server.sync.models import Models
from edge_server.sync.package import Package
from edge_server.sync.states import SyncEvent, SyncState
from edge_server.sync.status import Status
from edge_server.sync.tracker import Tracker
from registry.errors import BadManifest, RegistryError
from registry.package.errors import PackageError
from registry.trust.desired import Desired, DesiredModel

LOOK_SECONDS: Final = 1.0  # between two looks for a rollback that an operator asks for
_AFTER_TROUBLE: Final = 10.0  # seconds
_FOR_GOOD = (Unfit, BadManifest, PackageError)


class Trust(Protocol):
    """What says what is current."""

    def look(self) -> Desired:
        """What this node is to run. Raises TrustError where nothing may be installed now."""

    def last(self) -> Desired | None:
        """What it was to run when that was last known, whether or not that has expired."""

    @property
    def source(self) -> str:
        """Where the last good look was answered."""

    def still_good(self) -> bool:
        """Whether what is known may be acted upon although the last look failed."""


class Follower:
    """One node's sync. `run` returns when `stop` is set; `poll` is one step."""

    def __init__(
        self,
        trust: Trust,
        gatherer: Gatherer,
        store: Store,
        deployments: Deployments,
        models: Models,
        holds: Holds,
        status: Status,
        stop: threading.Event,
        poll_seconds: float,
        time: Time = REAL_TIME,
        rng: random.Random | None = None,
    ) -> None:
        self._trust = trust
        self._gatherer = gatherer
        self._store = store
        self._deployments = deployments
        self._models = models
        self._holds = holds
        self._status = status
        self._stop = stop
        self._poll_seconds = poll_seconds
        self._time = time
        self._rng = rng or random.Random()
        self._next_look = 0.0
        self._installing = False
        self.trackers: dict[str, Tracker] = {}

    def start(self) -> None:
        """Take up what an earlier run left, without a network."""
        self._pin()
        last = self._trust.last()
        if last is not None:
            self._want(last)
        self._tell()

    def run(self) -> None:
        """Poll until told to stop."""
        while not self._stop.is_set():
            try:
                pause = self.poll()
            except RegistryError as error:  # of the disk, most likely: the next poll may do better
                log.warning("sync", reason=_said(error))
                pause = _AFTER_TROUBLE
            except Exception:
                defect("sync")
                pause = _AFTER_TROUBLE
            self._time.wait(self._stop, pause)

    def poll(self) -> float:
        """Do what is due; returns the seconds until something is."""
        if self._time.now() >= self._next_look:
            self._look()
            pause = self._poll_seconds * self._rng.uniform(0.9, 1.1)
            self._next_look = self._time.now() + pause
        for tracker in list(self.trackers.values()):
            self._roll_back(tracker)
            if self._installing and not tracker.settled and not self._stop.is_set():
                self._turn(tracker)
        self._tell()
        now = self._time.now()
        due = [t.due for t in self.trackers.values() if t.state is SyncState.WAITING]
        return max(0.0, min(self._next_look - now, LOOK_SECONDS, *(d - now for d in due)))

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be done until the registry or an operator wants it."""
        return self._installing and all(t.settled for t in self.trackers.values())

    # -- what is wanted -----------------------------------------------------------------------

    def _look(self) -> None:
        try:
            desired = self._trust.look()
        except (RegistryError, OSError) as error:  # OSError: of the folder that trust is kept in
            self._installing = self._trust.still_good()
            self._status.trouble(str(error), getattr(error, "remedy", ""))
            return
        self._installing = True
        self._status.looked(desired.release, self._trust.source)
        self._want(desired)
        self._retire({model.name for model in desired.models})

    def _want(self, desired: Desired) -> None:
        for model in desired.models:
            tracker = self.trackers.get(model.name)
            if tracker is None:
                self.trackers[model.name] = self._track(model)
            else:
                tracker.want(model)
            self._holds.release(model.name, model.digest)

    def _track(self, model: DesiredModel) -> Tracker:
        """A model that is new to this run: it may be current, or have been taken back."""
        current = self._deployments.current(model.name)
        if self._holds.of(model.name) == model.digest:
            return Tracker(model, SyncState.ROLLED_BACK, "by an operator")
        if current is not None and current.digest == model.digest:
            size = current.package.size
            variant = current.package.variant
            return Tracker(model, SyncState.CURRENT, done=size, total=size, variant=variant)
        return Tracker(model)

    def _retire(self, wanted: set[str]) -> None:
        """Models that the ring no longer has."""
        for name in set(self.trackers) - wanted:
            del self.trackers[name]
            self._store.unpin(_staged(name))
        gone = [name for name in self._deployments.names() if name not in wanted]
        for name in gone:
            self._models.retire(name)
            self._deployments.withdraw(name)
            log.info("sync: no longer wanted here", model=name)
        if gone:
            self._pin()

    # -- one model ----------------------------------------------------------------------------

    def _turn(self, tracker: Tracker) -> None:
        """Bring one model as far as it goes."""
        if tracker.state is SyncState.WAITING:
            if self._time.now() < tracker.due:
                return
            tracker.move(SyncEvent.RETRIED)
        tracker.move(SyncEvent.STARTED)
        try:
            self._install(tracker)
        except Stopped:
            tracker.fail("stopped on the way; it goes on from there", self._time.now(), self._rng)
        except _FOR_GOOD as error:
            tracker.move(SyncEvent.UNFIT, _said(error))
            self._store.unpin(_staged(tracker.model.name))
        except (RegistryError, OSError, TimeoutError) as error:
            tracker.fail(_said(error), self._time.now(), self._rng)
        except Exception:
            tracker.fail(defect(f"install {tracker.model.name}"), self._time.now(), self._rng)
        else:
            tracker.attempts = 0
            self._tidy()

    def _install(self, tracker: Tracker) -> None:
        model = tracker.model
        package = self._gatherer.package(model)
        tracker.variant, tracker.total = package.variant, package.size
        self._store.pin(_staged(model.name), package.digests)
        current = self._deployments.current(model.name)

        def tell(fills: Sequence[Fill]) -> None:
            _count(tracker, fills)
            self._tell()

        self._gatherer.fill(package, current.package if current else None, tell)
        tracker.done = package.size
        tracker.move(SyncEvent.FILLED)
        deployment = self._deployments.deploy(package)
        tracker.move(SyncEvent.DEPLOYED)
        self._tell()
        self._models.replace(deployment, lambda: self._switch(deployment))
        tracker.move(SyncEvent.SWITCHED)

    def _switch(self, deployment: Deployment) -> None:
        self._deployments.switch(deployment)
        self._pin()

    def _roll_back(self, tracker: Tracker) -> None:
        """Where an operator asked for the package before this one."""
        name = tracker.model.name
        if tracker.state is not SyncState.CURRENT:
            return
        if self._holds.of(name) != tracker.model.digest:
            return
        before = self._deployments.previous(name)
        if before is None:
            self._holds.release(name)
            return
        try:
            self._models.replace(before, lambda: self._return(name, before.package), check=False)
        except RegistryError as error:
            log.warning("sync: cannot go back", model=name, reason=_said(error))
            self._holds.release(name)
            return
        tracker.move(SyncEvent.WITHDRAWN, "by an operator")

    def _return(self, name: str, package: Package) -> None:
        self._deployments.roll_back(name)
        self._store.pin(_current(name), package.digests)
        self._pin()

    # -- the store ----------------------------------------------------------------------------

    def _pin(self) -> None:
        """Pin what the links lead to, and let go of what they do not. New pins come first."""
        wanted: dict[str, Package] = {}
        for name in self._deployments.names():
            for pin, found in (
                (_current(name), self._deployments.current(name)),
                (_previous(name), self._deployments.previous(name)),
            ):
                if found is not None:
                    wanted[pin] = found.package
        there = self._store.pins()
        for pin, package in wanted.items():
            if there.get(pin) != package.digests:
                self._store.pin(pin, package.digests)
        for pin in there:
            if pin.startswith(_PREFIXES) and pin not in wanted:
                self._store.unpin(pin)
        staged = {_current(n): _staged(n) for n in self._deployments.names()}
        for pin, stage in staged.items():
            if stage in there and pin in wanted and there[stage] == wanted[pin].digests:
                self._store.unpin(stage)

    def _tidy(self) -> None:
        """After a switch: what neither link leads to goes."""
        try:
            self._deployments.clean()
            self._store.collect()
        except RegistryError as error:
            log.warning("sync: not tidied", reason=_said(error))

    def _tell(self) -> None:
        self._status.write(self.trackers.values(), self._deployments)


_PREFIXES = ("current ", "previous ")


def _current(name: str) -> str:
    return f"current {name}"


def _previous(name: str) -> str:
    return f"previous {name}"


def _staged(name: str) -> str:
    return f"staged {name}"


def _said(error: Exception) -> str:
    remedy = getattr(error, "remedy", "")
    return f"{error}; {remedy}" if remedy else str(error) or type(error).__name__


def _count(tracker: Tracker, fills: Sequence[Fill]) -> None:
    tracker.done = sum(fill.available for fill in fills)
    sources: dict[str, int] = {}
    for fill in fills:
        for source, count in dict(fill.sources).items():
            sources[source] = sources.get(source, 0) + count
    tracker.sources = sources

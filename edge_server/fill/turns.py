# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to give a blob: peers, then origins in their order, then a pause, and never for
ever."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

from edge_server.fill.errors import FillFailed, Lied, NowhereFound, RangeIgnored, Stopped
from edge_server.fill.health import full_jitter
from edge_server.fill.origins import Origins
from edge_server.fill.peers import Peers
from edge_server.fill.places import lacks
from edge_server.fill.source import Origin, Peer, Place
from edge_server.fill.time import Time
from registry.remote.errors import RemoteError

LIES = 2  # wrong blobs from one origin until it is not asked for that blob again


@dataclass(frozen=True, slots=True)
class Patience:
    """When a fill gives up; whoever wants the blob tries again later. A round asks every source
    once; between rounds there is a pause of 0 to `first` * 2**n seconds, `longest` at most."""

    rounds: int = 6  # in a row that brought less than `meaningful` bytes
    seconds: float = 120.0  # since the last that brought more
    first: float = 0.5
    longest: float = 30.0
    meaningful: int = 64 << 10


class Turns:
    """Of one fill, in its thread."""

    def __init__(
        self,
        digest: str,
        origins: Origins,
        peers: Peers,
        patience: Patience,
        time: Time,
        rng: random.Random,
        stop: threading.Event,
    ) -> None:
        self._digest = digest
        self._origins = origins
        self._peers = peers
        self._patience = patience
        self._time = time
        self._rng = rng
        self._stop = stop
        self._tried: set[Place] = set()  # in this round
        self._out: set[Place] = set()  # lack the blob, or lied about it
        self._lies: dict[Origin, int] = {}
        self._reasons: dict[Place, str] = {}
        self.rangeless: set[Place] = set()  # send the whole where a range is asked for
        self._rounds = 0
        self._since = time.now()

    def next(self, *, peers: bool = True) -> Place:
        """Who is asked now; waits for one. Without `peers`, an origin. Raises FillFailed or
        NowhereFound where it has no sense to go on, Stopped."""
        while not self._stop.is_set():
            skip = self._tried | self._out
            place = (
                (self._peers.next(skip | self.rangeless) if peers else None)
                or self._origins.next(skip | self.rangeless)
                or self._origins.next(skip)
            )
            if place is not None:
                return place
            self._pause()
        raise Stopped(f"{self._digest}: the fill was stopped", "start it again: it goes on")

    def received(self, place: Place, count: int) -> None:
        """So many bytes come from it."""
        if isinstance(place, Peer):
            self._peers.received(place, count)
        else:
            self._origins.received(place, count)

    def moved(self, count: int) -> None:
        """The blob has so many bytes more than before the last request."""
        if count >= self._patience.meaningful:
            self._rounds = 0
            self._since = self._time.now()

    def rested(self) -> None:
        """Time went by for another reason than a source: patience begins anew."""
        self._since = self._time.now()

    def succeeded(self, place: Place) -> None:
        """It gave all that it was asked for."""
        if isinstance(place, Peer):
            self._peers.succeeded(place)
        else:
            self._origins.succeeded(place)

    def failed(self, place: Place, error: RemoteError) -> None:
        """It did not; another's turn."""
        self._reasons[place] = str(error)
        if isinstance(error, RangeIgnored):
            self.rangeless.add(place)
            self.succeeded(place)
            return
        self._tried.add(place)
        if lacks(error):
            self._out.add(place)
        if isinstance(place, Origin):
            self._origins.failed(place, error)
        elif isinstance(error, Lied):
            self._peers.lied(place, str(error))
        else:
            self._peers.failed(place, error)

    def lied(self, places: Collection[Place]) -> None:
        """A blob that these gave together has another digest. Peers are out at once; an origin is
        once it was there often enough, since another may have been the liar."""
        error = Lied(f"what it sent does not have the digest {self._digest}")
        for place in places:
            self.failed(place, error)
            if isinstance(place, Origin):
                self._lies[place] = self._lies.get(place, 0) + 1
                if self._lies[place] >= LIES:
                    self._out.add(place)

    def others(self, place: Place) -> bool:
        """Whether another origin may be asked now that is not known to ignore ranges."""
        skip = self._tried | self._out | self.rangeless | {place}
        return self._origins.ready_in(skip) == 0

    def reasons(self) -> dict[str, str]:
        """Of each source what it did last, and when it is asked again."""
        found = {place.label: reason for place, reason in self._reasons.items()}
        for name, reason in self._origins.reasons().items():
            label = f"origin {name}"
            _, asked, when = reason.partition("; asked again")
            found[label] = found[label] + asked + when if label in found else reason
        return found

    def _pause(self) -> None:
        ready = self._origins.ready_in(self._out)
        if ready is None:
            self._give_up()
        self._rounds += 1
        patience = self._patience
        pause = full_jitter(self._rounds, self._rng, patience.first, patience.longest)
        pause = max(pause, ready)
        spent = self._time.now() + pause - self._since
        if self._rounds > patience.rounds:
            why = f"gave up after {patience.rounds} rounds over all sources that brought little"
            raise FillFailed(self._digest, why, self.reasons())
        if spent > patience.seconds:
            why = f"gave up: nothing to be had within {patience.seconds:.0f} s"
            raise FillFailed(self._digest, why, self.reasons())
        self._tried.clear()
        self._time.wait(self._stop, pause)

    def _give_up(self) -> NoReturn:
        """No origin is left to ask, now or later."""
        if not len(self._origins):
            raise FillFailed(self._digest, "no origin is configured", self.reasons())
        if any(origin in self._lies for origin in self._origins):
            why = "no source gives the bytes of this digest"
            raise FillFailed(self._digest, why, self.reasons())
        raise NowhereFound(self._digest, "no origin has it", self.reasons())

# SPDX-License-Identifier: Apache-2.0
"""Places to fetch from, each with a circuit: who is asked next, who is left alone for a while."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_server.fill.health import Circuit, State
from edge_server.fill.source import Place
from edge_server.fill.time import REAL_TIME, Time
from registry.remote.errors import Missing, RemoteError

P = TypeVar("P", bound=Place)
_ONLY_IF_CACHED = 504  # what a cache answers that does not hold it: RFC 9111, 5.2.1.7


@dataclass(frozen=True, slots=True)
class Health:
    """How a place does, for status and metrics."""

    name: str
    url: str
    region: str
    healthy: bool
    reason: str  # of the last failure, empty where the last request went well
    retry_in: float  # seconds until it is asked again; 0 where it may be asked now
    requests: int
    failures: int
    bytes: int


class Places(Generic[P]):
    """In order of priority. Safe for threads."""

    def __init__(
        self, places: Iterable[P] = (), *, time: Time = REAL_TIME, rng: random.Random | None = None
    ) -> None:
        self._time = time
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        ordered = sorted(places, key=lambda place: place.priority)
        self._circuits = {place: Circuit(self._rng) for place in ordered}

    def __len__(self) -> int:
        return len(self._circuits)

    def __iter__(self) -> Iterator[P]:
        return iter(self._circuits)

    def next(self, skip: Collection[Place] = ()) -> P | None:
        """The first that may be asked now and is not in `skip`. Whoever takes it says how it went
        by succeeded or failed."""
        now = self._time.now()
        with self._lock:
            for place in self._order():
                if place not in skip and self._circuits[place].ask(now):
                    place.carried.requests += 1
                    return place
        return None

    def succeeded(self, place: P) -> None:
        """It answered well."""
        with self._lock:
            self._circuits[place].succeeded()

    def failed(self, place: P, error: RemoteError) -> None:
        """It did not. That it lacks something is not held against it."""
        if lacks(error):
            self.succeeded(place)
            return
        now = self._time.now()
        with self._lock:
            place.carried.failures += 1
            self._circuits[place].failed(now, str(error), error.retry_after or 0.0)

    def received(self, place: P, count: int) -> None:
        """It gave so many bytes of blobs, and may go on."""
        with self._lock:
            place.carried.bytes += count
            self._circuits[place].moves()

    def ready_in(self, skip: Collection[Place] = ()) -> float | None:
        """Seconds until one that is not in `skip` may be asked; None where there is none."""
        now = self._time.now()
        with self._lock:
            waits = [self._wait(place, now) for place in self._order() if place not in skip]
        return min(waits, default=None)

    def reasons(self) -> dict[str, str]:
        """Of each what went wrong last and when it is asked again."""
        return {
            health.name: (health.reason or "not asked")
            + (f"; asked again in {health.retry_in:.0f} s" if health.retry_in else "")
            for health in self.report()
        }

    def report(self) -> list[Health]:
        """How they all do, in order."""
        now = self._time.now()
        with self._lock:
            return [
                Health(
                    place.name,
                    place.url,
                    place.region,
                    circuit.state is State.CLOSED and not circuit.failures,
                    circuit.reason,
                    self._wait(place, now),
                    place.carried.requests,
                    place.carried.failures,
                    place.carried.bytes,
                )
                for place, circuit in self._circuits.items()
            ]

    def _order(self) -> list[P]:
        return list(self._circuits)

    def _wait(self, place: P, now: float) -> float:
        circuit = self._circuits[place]
        return 0.0 if circuit.may_ask(now) else circuit.until - now


def lacks(error: RemoteError) -> bool:
    """Whether a place answered well that it does not have what was asked for."""
    return isinstance(error, Missing) or error.status == _ONLY_IF_CACHED

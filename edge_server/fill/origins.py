# SPDX-License-Identifier: Apache-2.0
"""The origins of a node in their order: who is asked next, who is left alone for a while, and
small documents from whichever answers first."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeVar

from edge_server.fill.errors import AllOriginsDown, Lied
from edge_server.fill.health import Circuit, State
from edge_server.fill.source import Origin
from edge_server.fill.time import REAL_TIME, Time
from registry.digest import digest_of
from registry.errors import NotFound
from registry.oci import MANIFEST_LIMIT, Index
from registry.remote.errors import EndlessData, Missing, RemoteError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OriginHealth:
    """How an origin does, for status and metrics."""

    name: str
    url: str
    region: str
    healthy: bool
    reason: str  # of the last failure, empty where the last request went well
    retry_in: float  # seconds until it is asked again; 0 where it may be asked now
    requests: int
    failures: int
    bytes: int


class Origins:
    """Ordered origins with failover and health. Safe for threads."""

    def __init__(
        self, origins: Iterable[Origin], *, time: Time = REAL_TIME, rng: random.Random | None = None
    ) -> None:
        self._ordered = sorted(origins, key=lambda origin: origin.priority)
        self._time = time
        self._lock = threading.Lock()
        rng = rng or random.Random()
        self._circuits = {origin: Circuit(rng) for origin in self._ordered}

    def __len__(self) -> int:
        return len(self._ordered)

    def __iter__(self) -> Iterable[Origin]:
        return iter(self._ordered)

    def next(self, skip: Collection[Origin] = ()) -> Origin | None:
        """The first origin in order that may be asked now and is not in `skip`. Whoever takes it
        says how it went by succeeded or failed."""
        now = self._time.now()
        with self._lock:
            for origin in self._ordered:
                if origin not in skip and self._circuits[origin].ask(now):
                    origin.carried.requests += 1
                    return origin
        return None

    def succeeded(self, origin: Origin) -> None:
        """It answered well."""
        with self._lock:
            self._circuits[origin].succeeded()

    def failed(self, origin: Origin, error: RemoteError) -> None:
        """It did not. That it lacks something is not held against it."""
        if isinstance(error, Missing):
            self.succeeded(origin)
            return
        now = self._time.now()
        with self._lock:
            origin.carried.failures += 1
            self._circuits[origin].failed(now, str(error), error.retry_after or 0.0)

    def received(self, origin: Origin, count: int) -> None:
        """It gave so many bytes of blobs."""
        with self._lock:
            origin.carried.bytes += count

    def ready_in(self, skip: Collection[Origin] = ()) -> float | None:
        """Seconds until an origin that is not in `skip` may be asked; None where there is none."""
        now = self._time.now()
        with self._lock:
            waits = [
                0.0 if circuit.may_ask(now) else circuit.until - now
                for origin, circuit in self._circuits.items()
                if origin not in skip
            ]
        return min(waits, default=None)

    def reasons(self) -> dict[str, str]:
        """Of each origin what went wrong last and when it is asked again."""
        return {
            health.name: (health.reason or "not asked")
            + (f"; asked again in {health.retry_in:.0f} s" if health.retry_in else "")
            for health in self.report()
        }

    def report(self) -> list[OriginHealth]:
        """How they all do, in order."""
        now = self._time.now()
        with self._lock:
            return [
                OriginHealth(
                    origin.name,
                    origin.url,
                    origin.region,
                    circuit.state is State.CLOSED and not circuit.failures,
                    circuit.reason,
                    0.0 if circuit.may_ask(now) else circuit.until - now,
                    origin.carried.requests,
                    origin.carried.failures,
                    origin.carried.bytes,
                )
                for origin, circuit in self._circuits.items()
            ]

    def manifest(self, name: str, target: str, limit: int = MANIFEST_LIMIT) -> tuple[bytes, str]:
        """Bytes and media type of a manifest by tag or digest, from the first origin that gives
        what was asked for. Raises NotFound where every origin lacks it, else AllOriginsDown."""

        def ask(origin: Origin) -> tuple[bytes, str]:
            data, media_type, _ = origin.remote.manifest(name, target)
            if len(data) > limit:
                raise EndlessData(f"{origin.url}/{name}: its manifest has over {limit} bytes")
            if target.startswith("sha256:") and digest_of(data) != target:
                raise Lied(f"{origin.url}/{name}: what it gives is not {target}")
            return data, media_type

        return self.first(f"{name} {target}", ask)

    def referrers(self, name: str, digest: str) -> Index:
        """What refers to a manifest; errors as of manifest."""
        return self.first(
            f"referrers of {name} {digest}", lambda origin: origin.remote.referrers(name, digest)
        )

    def first(self, what: str, ask: Callable[[Origin], T]) -> T:
        """The answer of the first origin that gives one; each is asked once at most. `ask` raises
        RemoteError; errors as of manifest."""
        tried: dict[Origin, RemoteError] = {}
        while origin := self.next(tried):
            try:
                answer = ask(origin)
            except RemoteError as error:
                self.failed(origin, error)
                tried[origin] = error
                continue
            self.succeeded(origin)
            return answer
        if self._ordered and len(tried) == len(self._ordered):
            lacking = all(isinstance(error, Missing) for error in tried.values())
            if lacking:
                raise NotFound(f"{what}: no origin has it", "check the name, or publish it")
        missing = {origin.name: str(error) for origin, error in tried.items()}
        raise AllOriginsDown(what, self.reasons() | missing)

# SPDX-License-Identifier: Apache-2.0
"""A card that lives in Python: runs models on onnxruntime, and fails or waits when told to."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device.binding import FaultEntry
from device.errors import CardError, CardGone
from device.host import open_session
from edge_server.app import Parts
from edge_server.card.link import WATCH_INTERVAL
from edge_server.engines.engine import Array
from edge_server.settings import Settings


def gone() -> CardGone:
    """What a card says that was pulled out."""
    return CardGone("the card left the bus", code=64, fault="GONE", remedy="put it back")


class FakeCard:
    """Counts what is done to it. `absent` makes attaching fail."""

    def __init__(self) -> None:
        self.alive = True
        self.absent = False
        self.closed = False
        self.attached = 0
        self.resets = 0
        self.reset_error: CardError | None = None
        self.beat = 0
        self.log: list[FaultEntry] = []
        self.plan: list[Any] = []
        self.stopped = False  # the heart

    in_process = True

    @property
    def info(self) -> dict[str, int | str]:
        if self.absent or not self.alive:
            raise gone()
        return {"isa": "fake", "memory": 1 << 20, "clock_ns": 5_000, "workers": 1}

    @property
    def busy_ns(self) -> list[int]:
        return [1_000_000]

    def faults(self) -> list[FaultEntry]:
        return self.log

    def ping(self) -> None:
        if self.absent:
            raise gone()

    @property
    def heartbeat(self) -> int:
        if self.absent:
            raise gone()
        self.beat += not self.stopped
        return self.beat

    def plan_faults(self, plan: Sequence[Any]) -> None:
        self.plan = list(plan)

    def reset(self) -> None:
        self.resets += 1
        if self.absent:
            raise gone()
        if self.reset_error is not None:
            raise self.reset_error
        self.alive = True
        self.stopped = False
        self.attached += 1

    def detach(self) -> None:
        self.alive = False

    def attach(self) -> None:
        if self.absent:
            raise gone()
        self.alive = True
        self.attached += 1

    def close(self) -> None:
        self.closed = True


@dataclass
class Row:
    """A placement row."""

    node: str = "n"
    op: str = "Add"
    where: str = "card"
    reason: str = ""


@dataclass
class Info:
    """An input or output."""

    name: str
    type: str
    shape: Sequence[int | str | None]


class FakeSession:
    """A model on a FakeCard."""

    def __init__(self, bench: "Bench", path: Path, card: FakeCard) -> None:
        if bench.load_error is not None:
            raise bench.load_error
        self._bench = bench
        self._card = card
        self._session = open_session(str(path))
        self.inputs = [Info(i.name, i.type, i.shape) for i in self._session.get_inputs()]
        self.outputs = [Info(o.name, o.type, o.shape) for o in self._session.get_outputs()]
        self.placement = list(bench.placement)
        self.generation = card.attached
        self.closed = False
        bench.sessions.append(self)

    def run(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, Array],
        deadline_s: float | None = None,
    ) -> list[Array]:
        assert not self.closed, "run on a closed session"
        bench = self._bench
        with bench.lock:
            bench.running += 1
            bench.most_running = max(bench.most_running, bench.running)
            bench.runs += 1
        try:
            if (hold := bench.hold) is not None:
                bench.started.release()
                assert hold.wait(20), "nobody let the run go on"
            if bench.run_errors:
                raise bench.run_errors.pop(0)
            if not self._card.alive or self.generation != self._card.attached:
                raise gone()
            bench.deadlines.append(deadline_s)
            results: list[Array] = self._session.run(output_names, feeds)
            return [result + bench.error for result in results] if bench.error else results
        finally:
            with bench.lock:
                bench.running -= 1

    def close(self) -> None:
        self.closed = True


class FakeClock:
    """Sleeps end when the test says so. `searches` holds how long those were to be in which a lost
    card is awaited."""

    def __init__(self) -> None:
        self.searches: list[float] = []
        self.time = 1000.0
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        if seconds != WATCH_INTERVAL:
            self.searches.append(seconds)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seconds, future))
        await future

    def wake(self, at_least: float = 0.0, below: float = 1e9) -> None:
        """End the sleeps of a length in this range."""
        chosen = [w for w in self._waiting if at_least <= w[0] < below]
        self._waiting = [w for w in self._waiting if w not in chosen]
        for _, future in chosen:
            if not future.done():
                future.set_result(None)


class Bench:
    """Everything fake of one server: its card, its sessions, its clock."""

    def __init__(self) -> None:
        self.card = FakeCard()
        self.cards: list[FakeCard] = []
        self.open_error: CardError | None = None
        self.load_error: Exception | None = None
        self.run_errors: list[Exception] = []
        self.deadlines: list[float | None] = []
        self.error = 0.0  # added to whatever the card answers
        self.placement = [Row()]
        self.sessions: list[FakeSession] = []
        self.clock = FakeClock()
        self.hold: threading.Event | None = None
        self.started = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.running = self.most_running = self.runs = 0

    def parts(self) -> Parts:
        """For edge_server.app.Server."""
        return Parts(self._open_card, self._open_session, self.clock)

    def _open_card(self, _settings: Settings) -> FakeCard:
        if self.open_error is not None:
            raise self.open_error
        if self.card.closed:
            self.card = FakeCard()
        self.cards.append(self.card)
        return self.card

    def _open_session(self, path: Path, card: Any, _threads: int) -> FakeSession:
        return FakeSession(self, path, card)

    async def until_started(self) -> None:
        """Returns when one more run has begun (with `hold` set)."""
        assert await asyncio.to_thread(self.started.acquire, True, 20), "no run began"

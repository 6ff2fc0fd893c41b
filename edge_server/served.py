# SPDX-License-Identifier: Apache-2.0
"""A model version in service: its engines, the route that requests take now, and its line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge_server.card.probes import Probes
from edge_server.engines.engine import Engine
from edge_server.gate import Gate
from edge_server.infer_codec import InputDecoder, OutputEncoder, TensorSpec, parameter_field
from edge_server.model_config import CardPolicy, instances
from edge_server.statistics import ModelCounters
from wire import model_config_pb2 as config_pb2

_SIZES_KEPT = 64
_RUNS_PER_WINDOW = 16
_AT_HOME = ("", "no_card", "not_compilable")  # reasons with which a model is where it belongs
_LASTING = ("not_compilable", "program_rejected", "card_full")


class Costs:
    """What runs of an engine cost by input size: the least of the last window, in nanoseconds.

    The least, since a run on a worker thread also waits for the interpreter lock now and then.
    """

    def __init__(self) -> None:
        self._known: dict[int, list[int]] = {}  # size -> [least, least of this window, runs in it]

    def of(self, size: int) -> int | None:
        """Nanoseconds for inputs of `size` bytes; None where none has run yet."""
        entry = self._known.get(size)
        return entry[0] if entry else None

    def add(self, size: int, ns: int) -> None:
        """One more run."""
        entry = self._known.get(size)
        if entry is None:
            if len(self._known) < _SIZES_KEPT:
                self._known[size] = [ns, ns, 1]
            return
        if ns < entry[1]:
            entry[1] = ns
            entry[0] = min(entry[0], ns)
        entry[2] += 1
        if entry[2] == _RUNS_PER_WINDOW:
            entry[0], entry[1], entry[2] = entry[1], 1 << 62, 0


class Slot:
    """An engine in use. Retiring closes it on a worker thread once the last run has left it."""

    def __init__(self, engine: Engine, costs: Costs) -> None:
        self.engine = engine
        self.costs = costs
        self._users = 0
        self._executor: Executor | None = None

    def enter(self) -> None:
        """A run begins on another thread."""
        self._users += 1

    @property
    def in_use(self) -> bool:
        """Whether a run is under way on another thread."""
        return self._users > 0

    def leave(self) -> None:
        """A run has ended."""
        self._users -= 1
        if self._users == 0 and self._executor is not None:
            self._executor.submit(self.engine.close)

    def retire(self, executor: Executor) -> None:
        """No new run will begin."""
        self._executor = executor
        if self._users == 0:
            executor.submit(self.engine.close)


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests go. Without a slot they are refused, `detail` says why."""

    slot: Slot | None
    reason: str  # why not the card, one word; empty where no word is due
    detail: str
    parameters: bytes  # the response parameters that name device and reason


@dataclass(frozen=True, slots=True)
class OffCard:
    """Why a model is not on the card: a word for labels and a sentence for people."""

    reason: str
    detail: str


@dataclass(slots=True)
class Loaded:
    """What the loader made, before it is put into service."""

    path: Path
    config: config_pb2.ModelConfig
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    labels: dict[str, Sequence[str]]
    policy: CardPolicy
    cpu: Slot | None
    card: Slot | OffCard
    probes: Probes
    memory_bytes: int

    def retire(self, executor: Executor) -> None:
        """It will not be put into service."""
        for slot in (self.cpu, self.card):
            if isinstance(slot, Slot):
                slot.retire(executor)


class ModelState(StrEnum):
    """The truth about one model version."""

    READY = "ready"  # where it belongs: on the card, or on onnxruntime as that is all there is
    DEGRADED = "degraded"  # answered by onnxruntime in the card's stead
    UNAVAILABLE = "unavailable"  # refused: it requires the card


class ServedVersion:
    """One version of a model. Everything here runs on the event loop's thread."""

    def __init__(
        self,
        name: str,
        version: str,
        loaded: Loaded,
        counters: ModelCounters,
        max_queue_size: int,
        executor: Executor,
        withheld: OffCard,
    ) -> None:
        """`withheld`: why requests do not run on the card before `enter_card`."""
        config = loaded.config
        queue = config.dynamic_batching.default_queue_policy
        self.name = name
        self.version = version
        self.path = loaded.path
        self.config = config
        self.inputs = loaded.inputs
        self.outputs = loaded.outputs
        self.policy = loaded.policy
        self.memory_bytes = loaded.memory_bytes
        self.counters = counters
        self.decoder = InputDecoder(loaded.inputs, config.max_batch_size)
        self.encoder = OutputEncoder(
            name, version, loaded.outputs, config.max_batch_size, loaded.labels
        )
        self.gate = Gate(instances(config), queue.max_queue_size or max_queue_size)
        self.default_timeout_us = queue.default_timeout_microseconds
        self.active = 0
        self._cpu = loaded.cpu
        self.probes = loaded.probes
        self._card = loaded.card
        self._candidate: Slot | OffCard | None = None
        self._left: Slot | None = None  # the card's, since it was left
        if isinstance(loaded.card, Slot):
            self._candidate, self._card = loaded.card, withheld
        self._executor = executor
        self._fallbacks: dict[str, Route] = {}
        self._drained = asyncio.Event()
        self._retiring = False
        self.route = self._make_route()

    @property
    def on_card(self) -> bool:
        """True while requests go to the card."""
        return isinstance(self._card, Slot)

    @property
    def state(self) -> ModelState:
        """Degraded is not dead: requests are answered."""
        if self.route.slot is None or self._retiring:
            return ModelState.UNAVAILABLE
        return ModelState.READY if self.route.reason in _AT_HOME else ModelState.DEGRADED

    @property
    def ready(self) -> bool:
        """True while requests are answered."""
        return self.route.slot is not None and not self._retiring

    @property
    def candidate(self) -> Slot | None:
        """Loaded onto the card, and not in use before the card has passed its probation."""
        return self._candidate if isinstance(self._candidate, Slot) else None

    @property
    def reference(self) -> Slot | None:
        """onnxruntime, where the policy keeps it."""
        return self._cpu

    @property
    def waits_for_card(self) -> bool:
        """Whether nothing but the card's absence keeps it off the card."""
        return isinstance(self._card, OffCard) and self._card.reason not in _LASTING

    @property
    def wants_card(self) -> bool:
        """Whether it should be loaded onto a card that has none of it."""
        return self._candidate is None and not self.on_card

    def offer(self, card: Slot | OffCard) -> None:
        """What loading it onto the card came to; see `enter_card`."""
        if isinstance(self._candidate, Slot):
            self._candidate.retire(self._executor)
        if self._retiring and isinstance(card, Slot):
            card.retire(self._executor)
            return
        self.probes.agreement.forget()  # the card's memory has been written anew
        self._candidate = card

    def enter_card(self) -> None:
        """Requests from now on run on what was offered."""
        if self._candidate is not None:
            self._put_on_card(self._candidate)
            self._candidate = None

    def leave_card(self, why: OffCard) -> None:
        """Requests from now on go without the card, whose programs are let go."""
        if isinstance(self._candidate, Slot):
            self._candidate.retire(self._executor)
        self._candidate = None
        self._put_on_card(why)

    @property
    def still_on_card(self) -> bool:
        """Whether runs are under way on a card that it has left."""
        return self._left is not None and self._left.in_use

    def _put_on_card(self, card: Slot | OffCard) -> None:
        if isinstance(self._card, Slot):
            self._card.retire(self._executor)
            self._left = self._card
        self._card = card
        self._fallbacks.clear()
        self.route = self._make_route()

    def fallback(self, reason: str, detail: str) -> Route:
        """The way for one request that the card has failed."""
        route = self._fallbacks.get(reason)
        if route is None:
            route = self._off_card(OffCard(reason, detail))
            if route.slot is not None:
                self._fallbacks[reason] = route
        return route

    def _make_route(self) -> Route:
        if isinstance(self._card, Slot):
            device = self._card.engine.device
            return Route(self._card, "", "", parameter_field(tepi_device=device))
        return self._off_card(self._card)

    def _off_card(self, why: OffCard) -> Route:
        if self.policy is CardPolicy.FORBID:
            parameters = parameter_field(tepi_device="onnxruntime")
            return Route(self._cpu, "", why.detail, parameters)
        parameters = parameter_field(tepi_device="onnxruntime", tepi_fallback_reason=why.reason)
        slot = self._cpu if self.policy is CardPolicy.PREFER else None
        return Route(slot, why.reason, why.detail, parameters)

    def leave(self) -> None:
        """One request has been answered."""
        self.active -= 1
        if self._retiring and self.active == 0:
            self._drained.set()

    async def retire(self) -> None:
        """Wait for the requests under way, then give the engines' memory back."""
        self._retiring = True
        if self.active:
            await self._drained.wait()
        for slot in (self._cpu, self._card, self._candidate):
            if isinstance(slot, Slot):
                slot.retire(self._executor)

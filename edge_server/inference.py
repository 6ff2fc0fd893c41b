# SPDX-License-Identifier: Apache-2.0
"""The way of one request: look up, decode, wait in line, run, fall back if the card fails, encode.

A run that costs less than a hand-over between threads takes place on the event loop itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from time import perf_counter_ns

from device.errors import CardError, CardTimeout
from edge_server.card.link import CardLink
from edge_server.card.shadow import Shadow
from edge_server.engines.card import NotCompilable
from edge_server.engines.engine import Array, EngineError, FeedError
from edge_server.frames import Asked, Frames
from edge_server.gate import Gate
from edge_server.model_config import CardPolicy
from edge_server.repository import Repository
from edge_server.served import OffCard, Route, ServedVersion, Slot
from edge_server.status import Failure, RequestError, internal, invalid, unavailable
from wire import inference_pb2 as pb

_OVERDUE = 0.03  # seconds after a deadline in which the card must have said so
_LOOP_LEAST = 0.01  # seconds of a deadline on the event loop


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a run may be. On the event loop a card that hangs would hold up everybody."""

    inline_ns: int  # runs that take less are done on the event loop
    least_s: float  # of any deadline elsewhere
    most_s: float = 30.0
    times: int = 20  # a deadline in runs of the same size

    def on_loop(self, cost_ns: int | None, patience: float | None) -> float:
        """Seconds that the card has for a run on the event loop."""
        return self._deadline(min(_LOOP_LEAST, self.least_s), cost_ns, patience)

    def elsewhere(self, cost_ns: int | None, patience: float | None) -> float:
        """Seconds for a run on a worker thread; half of what the client still waits, at most, so
        that onnxruntime can answer in the other half."""
        return self._deadline(self.least_s, cost_ns, patience)

    def _deadline(self, least: float, cost_ns: int | None, patience: float | None) -> float:
        usual = self.most_s if cost_ns is None else max(least, self.times * cost_ns / 1e9)
        deadline = min(usual, self.most_s)
        return deadline if patience is None else max(min(deadline, patience / 2), 1e-3)


class Inference:
    """Answers requests for all models."""

    def __init__(
        self,
        repository: Repository,
        link: CardLink,
        executor: Executor,
        shadow: Shadow,
        limits: Limits,
    ) -> None:
        self._repository = repository
        self._link = link
        self._executor = executor
        self._shadow = shadow
        self._limits = limits
        self._frames = Frames()
        repository.on_publish = self._frames.forget

    async def answer(self, data: bytes, patience: float | None = None) -> bytes:
        """A serialized ModelInferResponse to a serialized ModelInferRequest; `patience`: seconds
        that the client will wait, None for ever.

        Raises RequestError for what the client should read as a status, and DecodeError.
        """
        start = perf_counter_ns()
        frame = self._frames.get(data)
        feeds = frame.feeds(data) if frame is not None else None
        if frame is None or feeds is None:
            return await self._first_of_its_kind(data, start, patience)
        return await self._run(frame.asked, feeds, start, patience)

    async def _first_of_its_kind(self, data: bytes, start: int, patience: float | None) -> bytes:
        """Parse and check, then answer."""
        request = pb.ModelInferRequest.FromString(data)
        served = self._repository.find(request.model_name, request.model_version)
        try:
            feeds, size = served.decoder.decode(request)
            wanted = served.encoder.wanted(request)
            timeout = _timeout(served, request)
        except RequestError as error:
            served.counters.failed(error.failure, perf_counter_ns() - start)
            raise
        batch = served.decoder.batch_of(request)
        asked = Asked(served, request.id, wanted, timeout, size, batch)
        self._frames.learn(data, request, asked, feeds)
        return await self._run(asked, feeds, start, patience)

    async def _run(
        self, asked: Asked, feeds: Mapping[str, Array], start: int, patience: float | None
    ) -> bytes:
        """Everything after decoding."""
        served = asked.served
        counters = served.counters
        counters.pending += 1
        served.active += 1
        decoded = perf_counter_ns()
        try:
            route = served.route
            slot = route.slot
            if slot is not None and served.gate.idle and self._is_short(slot, asked.size):
                began = decoded
                try:
                    deadline = self._limits.on_loop(slot.costs.of(asked.size), patience)
                    arrays = _run(slot, asked, feeds, deadline)
                except (CardError, NotCompilable) as error:
                    arrays, route = await self._fall_back(asked, slot, error, feeds)
            else:
                arrays, route, began = await self._run_in_line(asked, feeds, patience)
            ran = perf_counter_ns()
            response = served.encoder.encode(
                asked.request_id, asked.wanted, arrays, route.parameters
            )
            counters.succeeded(asked.batch, start, decoded, began, ran, perf_counter_ns())
            if route.reason:
                counters.fell_back(route.reason)
                if served.waits_for_card:
                    served.probes.remember(asked.wanted.names, feeds, arrays)
            elif self._shadow.due(served):
                self._shadow.follow(served, asked.wanted.names, feeds, arrays)
            return response
        except RequestError as error:
            counters.failed(error.failure, perf_counter_ns() - start)
            raise
        except asyncio.CancelledError:
            counters.failed(Failure.CANCELED, perf_counter_ns() - start)
            raise
        except Exception:
            counters.failed(Failure.BACKEND, perf_counter_ns() - start)
            raise
        finally:
            counters.pending -= 1
            served.leave()

    def _is_short(self, slot: Slot, size: int) -> bool:
        cost = slot.costs.of(size)
        return slot.engine.inline and cost is not None and cost < self._limits.inline_ns

    async def _run_in_line(
        self, asked: Asked, feeds: Mapping[str, Array], patience: float | None
    ) -> tuple[list[Array], Route, int]:
        """Wait for a place, then run on a worker thread."""
        served = asked.served
        if served.route.slot is None:
            raise _refusal(served, served.route)
        await served.gate.enter(asked.timeout)
        began = perf_counter_ns()
        route = served.route  # the card may have come or gone meanwhile
        slot = route.slot
        if slot is None:
            served.gate.leave()
            raise _refusal(served, route)
        try:
            deadline = None  # the processor has none
            if served.on_card:
                if self._link.is_late:
                    served.gate.leave()
                    raise _late()
                deadline = self._limits.elsewhere(slot.costs.of(asked.size), patience)
            arrays = await self._run_elsewhere(slot, asked, feeds, served.gate, deadline)
        except (CardError, NotCompilable) as error:
            arrays, route = await self._fall_back(asked, slot, error, feeds)
        return arrays, route, began

    async def _fall_back(
        self,
        asked: Asked,
        failed: Slot,
        error: CardError | NotCompilable,
        feeds: Mapping[str, Array],
    ) -> tuple[list[Array], Route]:
        """The same request on onnxruntime, past the line: it has had its turn already."""
        if isinstance(error, CardError):
            current = asked.served.route.slot is failed and not self._link.is_late
            why = self._link.report(error, current)
        else:
            why = OffCard("not_compilable", str(error))
        route = asked.served.fallback(why.reason, why.detail)
        if route.slot is None:
            raise _refusal(asked.served, route)
        return await self._run_elsewhere(route.slot, asked, feeds, None), route

    async def _run_elsewhere(
        self,
        slot: Slot,
        asked: Asked,
        feeds: Mapping[str, Array],
        gate: Gate | None,
        deadline_s: float | None = None,
    ) -> list[Array]:
        """Run on a worker thread and leave `gate` after it, also where nobody waits any more.

        A card that does not even say that the deadline has passed is not waited for: its thread
        stays with it, the request and the next in line go on. Raises CardTimeout then.
        """
        loop = asyncio.get_running_loop()
        slot.enter()
        overdue: int | None = None

        # Neither names `future`: it would hold itself, and the model, until a collection.
        def finished(ended: Future[list[Array]]) -> None:
            slot.leave()
            if overdue is None:
                if gate is not None:
                    gate.leave()
                return
            self._link.ended(overdue)
            error = ended.exception()
            if isinstance(error, CardError):
                self._link.report(error, current=asked.served.route.slot is slot)

        def done(ended: Future[list[Array]]) -> None:
            loop.call_soon_threadsafe(finished, ended)

        future = self._executor.submit(_run, slot, asked, feeds, deadline_s)
        future.add_done_callback(done)
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(_heard)
        if deadline_s is None:
            return await waiting
        ended, _ = await asyncio.wait({waiting}, timeout=deadline_s + _OVERDUE)
        if ended:
            return waiting.result()
        overdue = self._link.overdue()
        if gate is not None:
            gate.leave()
        raise _late()


def _late() -> CardTimeout:
    remedy = "the host resets the card; if it persists replace it"
    why = "the card keeps a request beyond its deadline"
    return CardTimeout(why, code=7, fault="DEADLINE", remedy=remedy)


def _heard(future: asyncio.Future[list[Array]]) -> None:
    """Whoever waited may have gone; then its error is nobody's."""
    if not future.cancelled():
        future.exception()


def _run(
    slot: Slot, asked: Asked, feeds: Mapping[str, Array], deadline_s: float | None = None
) -> list[Array]:
    start = perf_counter_ns()
    try:
        arrays = slot.engine.run(asked.wanted.names, feeds, deadline_s)
    except FeedError as error:
        raise invalid(f"the model refuses these inputs: {error}") from None
    except EngineError as error:
        raise internal(f"the model failed on {slot.engine.device}: {error}") from None
    slot.costs.add(asked.size, perf_counter_ns() - start)
    return arrays


def _refusal(served: ServedVersion, route: Route) -> RequestError:
    assert served.policy is CardPolicy.REQUIRE
    return unavailable(
        f"model '{served.name}' requires the card (tepi_card), which cannot run it now: "
        f"{route.detail}"
    )


def _timeout(served: ServedVersion, request: pb.ModelInferRequest) -> float | None:
    """Seconds that the request may wait in line; None for as long as it takes."""
    microseconds = served.default_timeout_us
    parameter = request.parameters.get("timeout")
    if parameter is not None:
        kind = parameter.WhichOneof("parameter_choice")
        if kind not in ("int64_param", "uint64_param"):
            raise invalid("parameter 'timeout' must be an integer number of microseconds")
        given = parameter.int64_param if kind == "int64_param" else parameter.uint64_param
        if given < 0:
            raise invalid(f"parameter 'timeout' is {given}, expected microseconds of 0 or more")
        microseconds = given or microseconds
    return microseconds / 1e6 if microseconds else None

# SPDX-License-Identifier: Apache-2.0
"""The card's answers checked by onnxruntime behind the client's back, and deadlines of its runs."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from device.errors import CardTimeout
from edge_server.card.states import CardState
from edge_server.engines.engine import Array, Engine
from edge_server.inference import Limits
from tests.edge_server import onnx_models as models
from tests.edge_server.fakes import Bench
from tests.edge_server.running import arrays, request, running, text, until

X = np.array([1, 2], np.float32)


class Slow:
    """An engine that takes longer than any deadline of its test."""

    def __init__(self, engine: Engine) -> None:
        self.inline, self.device = engine.inline, engine.device
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.runs = 0
        self._engine = engine

    def run(
        self, names: Sequence[str], feeds: Mapping[str, Array], deadline_s: float | None = None
    ) -> list[Array]:
        self.runs += 1
        time.sleep(0.2)
        return self._engine.run(names, feeds, deadline_s)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    models.put(tmp_path / "models", "scale", models.scale(2))
    return tmp_path / "models"


async def test_right_answers_are_counted_and_change_nothing(repository: Path) -> None:
    bench = Bench()
    async with running(repository, bench.parts(), card="inproc", shadow_share=1.0) as (
        server,
        call,
    ):
        counters = server.counters.of("scale", "1")
        for n in range(1, 4):
            response = await call.infer(request("scale", {"x": X}))
            assert text(response, "tepi_device") == "card"
            await until(lambda n=n: counters.shadow_checks == n)  # type: ignore[misc]
        assert counters.shadow_mismatches == 0
        assert server.link.state is CardState.READY


async def test_a_share_is_a_share(repository: Path) -> None:
    bench = Bench()
    async with running(repository, bench.parts(), card="inproc", shadow_share=0.25) as (
        server,
        call,
    ):
        counters = server.counters.of("scale", "1")
        for n in range(1, 13):
            await call.infer(request("scale", {"x": X}))
            await until(lambda n=n: counters.shadow_checks == n // 4)  # type: ignore[misc]


async def test_wrong_answers_are_kept_and_end_the_trust(repository: Path, tmp_path: Path) -> None:
    bench = Bench()
    samples = tmp_path / "samples"
    async with running(
        repository,
        bench.parts(),
        card="inproc",
        shadow_share=1.0,
        shadow_limit=2,
        shadow_samples=samples,
    ) as (server, call):
        counters = server.counters.of("scale", "1")
        bench.error = 4.0  # from now on the card computes wrongly
        for n in (1, 2):
            await call.infer(request("scale", {"x": X}))
            await until(lambda n=n: counters.shadow_checks == n)  # type: ignore[misc]
        assert server.link.state.value != "ready"
        assert counters.shadow_mismatches == 2
        response = await call.infer(request("scale", {"x": X}))
        assert text(response, "tepi_device") == "onnxruntime"
        assert text(response, "tepi_fallback_reason") == "card_mismatch"
        assert np.array_equal(arrays(response)["y"], 2 * X)
        await until(lambda: server.link.resets >= 1 and "shadow" in server.link.absent.detail)
        bench.error = 0.0
        while server.link.state is not CardState.READY:
            bench.clock.wake()
            await asyncio.sleep(0)
        response = await call.infer(request("scale", {"x": X}))
        assert text(response, "tepi_device") == "card"
    kept = sorted(samples.iterdir())
    assert [path.name for path in kept] == ["scale-1-0.npz", "scale-1-1.npz"]
    sample = np.load(kept[0])
    assert np.array_equal(sample["input.x"], X)
    assert np.array_equal(sample["onnxruntime.y"], 2 * X)
    assert np.array_equal(sample["card.y"], 2 * X + 4)


async def test_a_request_answered_meanwhile_is_run_again_in_probation(repository: Path) -> None:
    bench = Bench()
    async with running(repository, bench.parts(), card="inproc") as (server, call):
        bench.card.reset_error = bench.open_error = None
        bench.run_errors = [CardTimeout("late", code=65, fault="TIMEOUT", fatal=True)]
        bench.card.reset_error = CardTimeout("no", code=65, fault="TIMEOUT", fatal=True)
        response = await call.infer(request("scale", {"x": X}))
        assert text(response, "tepi_fallback_reason") == "card_timeout"
        runs = bench.runs
        await call.infer(request("scale", {"x": 3 * X}))
        bench.card.reset_error = None
        while server.link.state is not CardState.READY:
            bench.clock.wake()
            await asyncio.sleep(0)
        made = 3  # zeros and two random ones
        warm = 5
        assert bench.runs - runs >= made + warm + 1


async def test_runs_have_deadlines_of_their_size_and_the_clients_patience(
    repository: Path,
) -> None:
    bench = Bench()
    async with running(
        repository, bench.parts(), card="inproc", card_deadline_ms=250, inline_limit_us=0
    ) as (_, call):
        bench.deadlines.clear()
        await call.infer(request("scale", {"x": X}))
        assert bench.deadlines == [pytest.approx(0.25)]


def test_limits() -> None:
    limits = Limits(inline_ns=200_000, least_s=0.25)
    assert limits.elsewhere(None, None) == 30
    assert limits.elsewhere(1_000_000, None) == 0.25
    assert limits.elsewhere(100_000_000, None) == 2
    assert limits.elsewhere(10_000_000_000, None) == 30
    assert limits.elsewhere(100_000_000, 1.0) == 0.5
    assert limits.elsewhere(None, 0.0) == 1e-3
    assert limits.on_loop(100_000, None) == 0.01
    assert limits.on_loop(100_000, 0.01) == 0.005


async def test_a_card_that_ignores_deadlines_is_not_waited_for(repository: Path) -> None:
    """Its thread is left with it; nobody else goes there before that has come back."""
    bench = Bench()
    bench.hold = threading.Event()
    bench.hold.set()
    async with running(
        repository, bench.parts(), card="inproc", card_deadline_ms=20, inline_limit_us=0
    ) as (server, call):
        while bench.started.acquire(blocking=False):
            pass
        runs = bench.runs
        bench.hold.clear()
        for _ in range(3):
            response = await call.infer(request("scale", {"x": X}))
            assert text(response, "tepi_fallback_reason") == "card_timeout"
            assert np.array_equal(arrays(response)["y"], 2 * X)
        assert bench.runs == runs + 1 and server.link.is_late
        assert server.repository.find("scale", "").gate.idle
        assert server.link.state is CardState.READY  # it may be but slow
        bench.hold.set()
        await until(lambda: not server.link.is_late)
        response = await call.infer(request("scale", {"x": X}))
        assert text(response, "tepi_device") == "card"


async def test_what_an_overdue_run_comes_to_counts(repository: Path) -> None:
    bench = Bench()
    bench.hold = threading.Event()
    bench.hold.set()
    async with running(
        repository, bench.parts(), card="inproc", card_deadline_ms=20, inline_limit_us=0
    ) as (server, call):
        while bench.started.acquire(blocking=False):
            pass
        bench.hold.clear()
        bench.run_errors = [CardTimeout("late", code=65, fault="TIMEOUT", fatal=True)]
        await call.infer(request("scale", {"x": X}))
        bench.hold.set()
        await until(lambda: server.link.resets == 1)
        assert server.link.faults[65] == 1
        while server.link.state is not CardState.READY:
            bench.clock.wake()
            await asyncio.sleep(0)


async def test_only_the_card_has_deadlines(repository: Path) -> None:
    """onnxruntime takes the time that it takes, and is asked once."""
    async with running(repository, card="none", card_deadline_ms=1, inline_limit_us=0) as (
        server,
        call,
    ):
        slot = server.repository.find("scale", "").route.slot
        assert slot is not None
        engine, runs = Slow(slot.engine), server.counters.of("scale", "1")
        slot.engine = engine
        response = await call.infer(request("scale", {"x": X}))
        assert text(response, "tepi_fallback_reason") == "no_card"
        assert engine.runs == 1 and runs.fallbacks == {"no_card": 1}

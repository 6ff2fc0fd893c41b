# SPDX-License-Identifier: Apache-2.0
"""Fallback with the real software card: taken away, brought back and broken while clients call."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.binding import Card
from device.host import open_session
from edge_server.app import Parts, product_parts
from edge_server.card.states import CardState
from edge_server.engines.engine import Array
from tests.edge_server import onnx_models as models
from tests.edge_server.running import Caller, arrays, request, running, text, until

X = np.random.default_rng(3).normal(0, 1, (1, 16)).astype(np.float32)
POLICY = 'parameters { key: "tepi_card" value { string_value: "%s" } }'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    models.put(tmp_path, "dense", models.quantized_dense())
    models.put(tmp_path, "must", models.quantized_dense(), POLICY % "require")
    models.put(tmp_path, "never", models.quantized_dense(), POLICY % "forbid")
    return tmp_path


@pytest.fixture
def expected(repository: Path) -> Array:
    """What onnxruntime makes of X."""
    path = str(repository / "dense" / "1" / "model.onnx")
    session = open_session(path)
    result: Array = session.run(None, {"x": X})[0]
    return result


async def device(call: Caller, model: str, expected: Array) -> tuple[str, str]:
    """(device, fallback reason) of one request, whose result is checked to the last bit."""
    response = await call.infer(request(model, {"x": X}))
    assert np.array_equal(arrays(response)["y"], expected)
    return text(response, "tepi_device"), text(response, "tepi_fallback_reason")


async def test_policies_on_the_card(repository: Path, expected: Array) -> None:
    async with running(repository, card="inproc", card_control=True) as (_, call):
        assert await device(call, "dense", expected) == ("card", "")
        assert await device(call, "must", expected) == ("card", "")
        assert await device(call, "never", expected) == ("onnxruntime", "")
        status = await call("Status")
        assert status.state == 5 and status.bus == "inproc"


@pytest.mark.parametrize("inline_limit_us", [0, 10_000_000], ids=["workers", "loop"])
async def test_card_away_and_back_under_load(
    repository: Path, expected: Array, inline_limit_us: int
) -> None:
    settings: dict[str, Any] = {"card": "inproc", "card_control": True}
    async with running(repository, inline_limit_us=inline_limit_us, **settings) as (server, call):
        stop = asyncio.Event()
        seen: set[tuple[str, str]] = set()

        async def client() -> int:
            answered = 0
            while not stop.is_set():
                seen.add(await device(call, "dense", expected))
                answered += 1
            return answered

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for _ in range(3):
            seen.clear()
            await call("Detach")
            await until(lambda: ("onnxruntime", "card_gone") in seen)
            refused = await call.refusal(request("must", {"x": X}))
            assert refused.code == "UNAVAILABLE"
            seen.clear()
            await call("Attach")
            await until(lambda: ("card", "") in seen)
            assert await device(call, "must", expected) == ("card", "")
        stop.set()
        answered = sum(await asyncio.gather(*clients))
        counters = server.counters.of("dense", "1")
        counters.settle()
        assert counters.success.count == answered
        assert counters.failures == {}
        assert counters.fallbacks["card_gone"] >= 3


@pytest.mark.parametrize("fault", ["HANG", "MEMORY_ECC", "FIRMWARE_ASSERT"])
async def test_a_card_that_breaks_comes_back_by_itself(
    repository: Path, expected: Array, fault: str
) -> None:
    async with running(repository, card="inproc") as (server, call):
        card = server.link.card.handle
        assert isinstance(card, Card)
        assert await device(call, "dense", expected) == ("card", "")
        card.inject(fault)
        async with asyncio.timeout(60):
            while (got := await device(call, "dense", expected))[0] == "card":
                pass
        assert got[1].startswith("card_")
        async with asyncio.timeout(60):
            while await device(call, "dense", expected) != ("card", ""):
                pass
        assert server.link.state is CardState.READY
        await until(lambda: server.repository.find("must", "").ready)
        assert await device(call, "must", expected) == ("card", "")
        assert server.counters.of("dense", "1").failures == {}


async def test_card_memory_full(repository: Path, expected: Array) -> None:
    """A card with too little memory: prefer goes elsewhere and says so, require is refused."""
    product = product_parts()
    parts = Parts(
        lambda settings: Card.open(settings.card, threads=settings.threads, memory=1),
        product.open_session,
        product.clock,
    )
    async with running(repository, parts, card="inproc") as (server, call):
        assert await device(call, "dense", expected) == ("onnxruntime", "card_full")
        refused = await call.refusal(request("must", {"x": X}))
        assert refused.code == "UNAVAILABLE"
        assert server.link.state is CardState.READY


async def test_a_sequence_longer_than_the_model_allows(tmp_path: Path) -> None:
    """It is the request that is wrong; the next one is answered."""
    models.put(tmp_path, "positions", models.positions(16))
    async with running(tmp_path, product_parts(), card="inproc") as (_, call):
        refused = await call.refusal(request("positions", {"x": np.zeros((1, 24, 8), np.float32)}))
        assert refused.code == "INVALID_ARGUMENT"
        assert "[1, 24, 8]" in refused.message
        response = await call.infer(request("positions", {"x": np.zeros((1, 16, 8), np.float32)}))
        assert text(response, "tepi_device") == "card"


async def test_weights_that_flipped_unnoticed_are_found_by_the_shadow_check(
    repository: Path, expected: Array
) -> None:
    plan = '[{"kind": "BIT_FLIP_UNDETECTED", "trigger": "execute", "after": 1}]'
    async with running(repository, card="inproc", card_control=True, shadow_share=1.0) as (
        server,
        call,
    ):
        counters = server.counters.of("dense", "1")
        await call("Inject", plan=plan)
        async with asyncio.timeout(60):
            while server.link.resets == 0:  # its answers are wrong meanwhile
                await call.infer(request("dense", {"x": X}))
        assert counters.shadow_mismatches >= 3
        await until(lambda: server.link.state is CardState.READY)
        await until(lambda: server.repository.find("dense", "").on_card)
        assert await device(call, "dense", expected) == ("card", "")


async def test_a_fault_after_which_the_driver_reset_the_card_is_not_called_ready(
    repository: Path, expected: Array
) -> None:
    """Nothing is loaded on it any more: it goes through reset and probation like any other."""
    plan = '[{"kind": "BIT_FLIP", "trigger": "execute", "after": 1, "count": 2}]'
    async with running(repository, card="inproc", card_control=True) as (server, call):
        await call("Inject", plan=plan)
        assert await device(call, "dense", expected) == ("onnxruntime", "card_fault")
        await until(lambda: server.link.returns == 1)
        assert (server.link.losses, server.link.resets) == (1, 1)
        assert await device(call, "dense", expected) == ("card", "")
        assert await device(call, "must", expected) == ("card", "")

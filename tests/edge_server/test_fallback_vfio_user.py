# SPDX-License-Identifier: Apache-2.0
"""Fallback with a card in another process, which is killed and started again under load."""

import asyncio
from pathlib import Path

import numpy as np

from device.host import open_session
from edge_server.card.states import CardState
from tests.device.binding.card_process import card_process
from tests.edge_server import onnx_models as models
from tests.edge_server.running import arrays, request, running, text, until

X = np.random.default_rng(3).normal(0, 1, (1, 16)).astype(np.float32)


async def test_kill_9_and_a_new_process_under_load(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    models.put(repository, "dense", models.quantized_dense())
    path = str(repository / "dense" / "1" / "model.onnx")
    expected = open_session(path).run(None, {"x": X})[0]
    socket = tmp_path / "card.sock"
    seen: set[str] = set()
    stop = asyncio.Event()
    with card_process(socket) as first:
        async with running(repository, card=first.name) as (server, call):

            async def client() -> int:
                answered = 0
                while not stop.is_set():
                    response = await call.infer(request("dense", {"x": X}))
                    assert np.array_equal(arrays(response)["y"], expected)
                    seen.add(text(response, "tepi_device"))
                    answered += 1
                return answered

            clients = [asyncio.create_task(client()) for _ in range(6)]
            await until(lambda: "card" in seen)
            first.kill()
            seen.clear()
            await until(lambda: server.link.state is CardState.ABSENT)
            await until(lambda: "onnxruntime" in seen)
            with card_process(socket) as second:
                await until(lambda: server.link.state is CardState.READY)
                seen.clear()
                await until(lambda: "card" in seen)
                stop.set()
                answered = sum(await asyncio.gather(*clients))
                assert second.process.poll() is None
            counters = server.counters.of("dense", "1")
            counters.settle()
            assert counters.success.count == answered
            assert counters.failures == {}


async def test_server_that_starts_before_its_card(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    models.put(repository, "dense", models.quantized_dense())
    socket = tmp_path / "card.sock"
    async with running(repository, card=f"vfio-user:{socket}") as (server, call):
        response = await call.infer(request("dense", {"x": X}))
        assert text(response, "tepi_device") == "onnxruntime"
        assert text(response, "tepi_fallback_reason") == "card_absent"
        with card_process(socket):
            async with asyncio.timeout(60):
                while text(response, "tepi_device") != "card":
                    response = await call.infer(request("dense", {"x": X}))
            assert server.link.returns == 0

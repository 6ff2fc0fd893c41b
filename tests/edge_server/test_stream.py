# SPDX-License-Identifier: Apache-2.0
"""ModelStreamInfer: order, errors in-band, the final-response mark, an end that loses nothing."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.edge_server import onnx_models as models
from tests.edge_server.running import Caller, arrays, request, running
from wire import inference_pb2 as pb

X = np.array([1, 2], np.float32)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    models.put(tmp_path, "scale", models.scale(2))
    return tmp_path


def opened(call: Caller) -> Any:
    """A stream of bytes."""
    return call.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()


def parsed(data: Any) -> pb.ModelStreamInferResponse:
    assert data is not grpc.aio.EOF
    return pb.ModelStreamInferResponse.FromString(data)


async def test_answers_come_in_order_each_marked_final(repository: Path) -> None:
    async with running(repository) as (_, call):
        stream = opened(call)
        for index in range(200):
            await stream.write(
                request("scale", {"x": X * index}, id=str(index)).SerializeToString()
            )
        await stream.done_writing()
        for index in range(200):
            answer = parsed(await stream.read())
            assert not answer.error_message
            assert answer.infer_response.id == str(index)
            assert answer.infer_response.parameters["triton_final_response"].bool_param
            assert np.array_equal(arrays(answer.infer_response)["y"], 2 * index * X)
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_an_empty_final_response_is_never_due(repository: Path) -> None:
    message = request("scale", {"x": X})
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    async with running(repository) as (_, call):
        stream = opened(call)
        await stream.write(message.SerializeToString())
        await stream.done_writing()
        answer = parsed(await stream.read())
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        assert len(answer.infer_response.outputs) == 1
        assert await stream.read() is grpc.aio.EOF


async def test_errors_travel_in_band_and_the_stream_goes_on(repository: Path) -> None:
    async with running(repository) as (_, call):
        stream = opened(call)
        wrong = request("scale", {"x": np.ones(3, np.float32)}, id="wrong")
        for data in (wrong.SerializeToString(), b"\xff\xff", b""):
            await stream.write(data)
        await stream.write(request("scale", {"x": X}, id="right").SerializeToString())
        first = parsed(await stream.read())
        assert "expected [2]" in first.error_message and first.infer_response.id == "wrong"
        assert "not a valid" in parsed(await stream.read()).error_message
        assert "unknown model ''" in parsed(await stream.read()).error_message
        last = parsed(await stream.read())
        assert last.infer_response.id == "right" and not last.error_message
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_a_client_that_leaves_takes_its_requests_along(repository: Path) -> None:
    async with running(repository) as (server, call):
        stream = opened(call)
        await stream.write(request("scale", {"x": X}).SerializeToString())
        await stream.read()
        stream.cancel()
        answer = await call.infer(request("scale", {"x": X}))
        assert np.array_equal(arrays(answer)["y"], 2 * X)
        assert server.counters.of("scale", "1").pending == 0

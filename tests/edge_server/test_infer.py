# SPDX-License-Identifier: Apache-2.0
"""ModelInfer: what a right request gets back, in every form that the protocol allows."""

import asyncio
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from edge_server.engines.engine import Array
from edge_server.tensor_bytes import pack_bytes
from tests.edge_server import onnx_models as models
from tests.edge_server.fakes import Bench
from tests.edge_server.running import Refused, arrays, request, running, text, until
from wire import inference_pb2 as pb

X = np.array([1.5, -2], np.float32)
NUMBERS = {
    "BOOL": (TensorProto.BOOL, np.bool_, [True, False, True]),
    "UINT8": (TensorProto.UINT8, np.uint8, [0, 7, 255]),
    "UINT16": (TensorProto.UINT16, np.uint16, [0, 7, 65535]),
    "UINT32": (TensorProto.UINT32, np.uint32, [0, 7, 2**32 - 1]),
    "UINT64": (TensorProto.UINT64, np.uint64, [0, 7, 2**64 - 1]),
    "INT8": (TensorProto.INT8, np.int8, [-128, 0, 127]),
    "INT16": (TensorProto.INT16, np.int16, [-(2**15), 0, 2**15 - 1]),
    "INT32": (TensorProto.INT32, np.int32, [-(2**31), 0, 2**31 - 1]),
    "INT64": (TensorProto.INT64, np.int64, [-(2**63), 0, 2**63 - 1]),
    "FP16": (TensorProto.FLOAT16, np.float16, [-1.5, 0, 65504]),
    "FP32": (TensorProto.FLOAT, np.float32, [-1.5, 0, 3e38]),
    "FP64": (TensorProto.DOUBLE, np.float64, [-1.5, 0, 1e308]),
}
CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


async def test_answer_names_model_version_id_and_device(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    async with running(tmp_path) as (_, call):
        response = await call.infer(request("scale", {"x": X}, id="7"))
        assert (response.model_name, response.model_version, response.id) == ("scale", "1", "7")
        assert np.array_equal(arrays(response)["y"], 2 * X)
        assert not response.outputs[0].HasField("contents")
        assert text(response, "tepi_device") == "onnxruntime"
        assert text(response, "tepi_fallback_reason") == "no_card"


@pytest.mark.parametrize("datatype", NUMBERS)
async def test_numbers_pass_raw_unchanged(tmp_path: Path, datatype: str) -> None:
    onnx_type, dtype, values = NUMBERS[datatype]
    models.put(tmp_path, "same", models.identity(onnx_type))
    sent: Array = np.array(values, dtype)
    async with running(tmp_path) as (_, call):
        for _ in range(3):  # the second and third are known by their frame
            response = await call.infer(request("same", {"x": sent}))
            assert response.outputs[0].datatype == datatype
            assert np.array_equal(arrays(response)["y"], sent)


@pytest.mark.parametrize("datatype", CONTENTS)
async def test_numbers_pass_typed_unchanged(tmp_path: Path, datatype: str) -> None:
    onnx_type, dtype, values = NUMBERS[datatype]
    models.put(tmp_path, "same", models.identity(onnx_type))
    message = pb.ModelInferRequest(model_name="same")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[3])
    getattr(tensor.contents, CONTENTS[datatype]).extend(values)
    async with running(tmp_path) as (_, call):
        response = await call.infer(message)
        assert np.array_equal(arrays(response)["y"], np.array(values, dtype))


@pytest.mark.parametrize("typed", [False, True])
async def test_strings_pass_unchanged(tmp_path: Path, typed: bool) -> None:
    models.put(tmp_path, "same", models.identity(TensorProto.STRING))
    words = np.array(["", "tepi", "tepí\0\n", "x" * 70000], object)
    message = pb.ModelInferRequest(model_name="same")
    tensor = message.inputs.add(name="x", datatype="BYTES", shape=[4])
    if typed:
        tensor.contents.bytes_contents.extend(w.encode() for w in words)
    else:
        message.raw_input_contents.append(pack_bytes(words))
    async with running(tmp_path) as (_, call):
        response = await call.infer(message)
        assert response.outputs[0].datatype == "BYTES"
        assert response.raw_output_contents[0] == pack_bytes(words)


async def test_empty_tensors_pass(tmp_path: Path) -> None:
    models.put(tmp_path, "same", models.identity(TensorProto.FLOAT))
    empty = np.empty((0,), np.float32)
    async with running(tmp_path) as (_, call):
        response = await call.infer(request("same", {"x": empty}))
        assert list(response.outputs[0].shape) == [0] and response.raw_output_contents == [b""]
        bare = pb.ModelInferRequest(model_name="same")
        bare.inputs.add(name="x", datatype="FP32", shape=[0])
        assert list((await call.infer(bare)).outputs[0].shape) == [0]


async def test_outputs_come_as_asked_for(tmp_path: Path) -> None:
    models.put(tmp_path, "add", models.add())
    a, b = np.full((2, 3), 5, np.float32), np.full((2, 3), 3, np.float32)
    async with running(tmp_path) as (_, call):
        for names in ([], ["difference", "sum"], ["difference"], ["sum"]):
            response = await call.infer(request("add", {"b": b, "a": a}, names))
            assert [o.name for o in response.outputs] == (names or ["sum", "difference"])
            for name, array in arrays(response).items():
                assert np.array_equal(array, a + b if name == "sum" else a - b)


async def test_the_same_kind_of_request_may_change_its_data_and_shape(tmp_path: Path) -> None:
    models.put(tmp_path, "add", models.add(), "max_batch_size: 8")
    generator = np.random.default_rng(0)
    async with running(tmp_path) as (_, call):
        for rows in (1, 2, 1, 3, 2, 1, 8):
            a, b = generator.normal(0, 1, (2, rows, 3)).astype(np.float32)
            got = arrays(await call.infer(request("add", {"a": a, "b": b})))
            assert np.array_equal(got["sum"], a + b)


async def test_swapped_inputs_of_equal_size_are_told_apart(tmp_path: Path) -> None:
    """Both requests have the same length; the frame of the first must not be taken for both."""
    models.put(tmp_path, "add", models.add())
    a, b = np.full((1, 3), 5, np.float32), np.full((1, 3), 3, np.float32)
    async with running(tmp_path) as (_, call):
        for _ in range(2):
            first = await call.infer(request("add", {"a": a, "b": b}))
            second = await call.infer(request("add", {"b": a, "a": b}))
            assert arrays(first)["difference"][0, 0] == 2
            assert arrays(second)["difference"][0, 0] == -2


async def test_classification_ranks_and_labels(tmp_path: Path) -> None:
    config = (
        'max_batch_size: 2\noutput [ { name: "y" data_type: TYPE_FP32 dims: [3] '
        'label_filename: "labels.txt" } ]'
    )
    folder = models.put(tmp_path, "same", models.identity(TensorProto.FLOAT, ("n", 3)), config)
    (folder / "labels.txt").write_text("cat\ndog\n")
    message = request("same", {"x": np.array([[0.5, 2, 1], [3, 3, -1]], np.float32)}, ["y"])
    message.outputs[0].parameters["classification"].int64_param = 2
    async with running(tmp_path) as (_, call):
        response = await call.infer(message)
        assert response.outputs[0].datatype == "BYTES"
        assert list(response.outputs[0].shape) == [2, 2]
        expected = ["2.000000:1:dog", "1.000000:2", "3.000000:0:cat", "3.000000:1:dog"]
        assert response.raw_output_contents[0] == pack_bytes(np.array(expected, object))
        message.outputs[0].parameters["classification"].int64_param = 99
        response = await call.infer(message)
        assert list(response.outputs[0].shape) == [2, 3]


async def test_reshape_of_the_configuration_is_applied(tmp_path: Path) -> None:
    config = (
        'input [ { name: "x" data_type: TYPE_FP32 dims: [2,1] reshape { shape: [2] } } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [1,2] reshape { shape: [2] } } ]'
    )
    models.put(tmp_path, "scale", models.scale(3), config)
    async with running(tmp_path) as (_, call):
        response = await call.infer(request("scale", {"x": X.reshape(2, 1)}))
        assert np.array_equal(arrays(response)["y"], 3 * X.reshape(1, 2))


async def test_a_message_above_four_mebibytes_passes(tmp_path: Path) -> None:
    models.put(tmp_path, "same", models.identity(TensorProto.FLOAT))
    large = np.arange(3 << 20, dtype=np.float32)
    async with running(tmp_path) as (_, call):
        got = arrays(await call.infer(request("same", {"x": large})))
        assert np.array_equal(got["y"], large)


async def test_version_chooses_and_empty_means_the_highest(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2), "version_policy { all {} }", 2)
    models.put(tmp_path, "scale", models.scale(10), version=10)
    async with running(tmp_path) as (_, call):
        for version, factor, answered in (("2", 2, "2"), ("10", 10, "10"), ("", 10, "10")):
            response = await call.infer(request("scale", {"x": X}, model_version=version))
            assert response.model_version == answered
            assert np.array_equal(arrays(response)["y"], factor * X)


async def _held(tmp_path: Path, config: str, bench: Bench) -> None:
    """A model whose runs wait for bench.hold."""
    models.put(tmp_path, "scale", models.scale(2), config)
    bench.hold = threading.Event()
    bench.hold.set()


async def test_timeout_in_line_is_unavailable(tmp_path: Path) -> None:
    bench = Bench()
    await _held(tmp_path, "", bench)
    assert bench.hold is not None
    async with running(tmp_path, bench.parts(), card="inproc", inline_limit_us=0) as (server, call):
        _drain(bench)
        bench.hold.clear()
        first = asyncio.create_task(call.infer(request("scale", {"x": X})))
        await bench.until_started()
        late = request("scale", {"x": X})
        late.parameters["timeout"].int64_param = 1000
        refused = await call.refusal(late)
        assert (refused.code, refused.message) == ("UNAVAILABLE", "Request timeout expired")
        bench.hold.set()
        assert text(await first, "tepi_device") == "card"
        counters = server.counters.of("scale", "1")
        assert counters.failures == {"REJECTED": 1} and counters.pending == 0


async def test_a_full_line_is_unavailable(tmp_path: Path) -> None:
    bench = Bench()
    config = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    await _held(tmp_path, config, bench)
    assert bench.hold is not None
    async with running(tmp_path, bench.parts(), card="inproc", inline_limit_us=0) as (
        _server,
        call,
    ):
        _drain(bench)
        bench.hold.clear()
        first = asyncio.create_task(call.infer(request("scale", {"x": X})))
        await bench.until_started()
        others = [asyncio.create_task(call.infer(request("scale", {"x": X}))) for _ in range(2)]
        done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        (refused,) = done
        error = refused.exception()
        assert isinstance(error, Refused) and error.code == "UNAVAILABLE"
        assert "Exceeds maximum queue size" in error.message
        bench.hold.set()
        await first
        (waited,) = [t for t in others if t is not refused]
        assert np.array_equal(arrays(await waited)["y"], 2 * X)


async def test_a_cancelled_request_in_line_is_never_run(tmp_path: Path) -> None:
    bench = Bench()
    await _held(tmp_path, "", bench)
    assert bench.hold is not None
    async with running(tmp_path, bench.parts(), card="inproc", inline_limit_us=0) as (server, call):
        _drain(bench)
        bench.hold.clear()
        first = asyncio.create_task(call.infer(request("scale", {"x": X})))
        await bench.until_started()
        runs = bench.runs
        counters = server.counters.of("scale", "1")
        data = request("scale", {"x": X}).SerializeToString()
        method = call.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        second = method(data)
        (served,) = server.repository.all_served()
        await until(lambda: served.gate.waiting == 1)
        second.cancel()
        await until(lambda: counters.failures.get("CANCELED") == 1)
        assert served.gate.waiting == 0
        bench.hold.set()
        await first
        await call.infer(request("scale", {"x": X}))
        assert bench.runs == runs + 1  # the third alone; the second never ran


async def test_a_deadline_that_passes_in_line_takes_the_request_along(tmp_path: Path) -> None:
    bench = Bench()
    await _held(tmp_path, "", bench)
    assert bench.hold is not None
    async with running(tmp_path, bench.parts(), card="inproc", inline_limit_us=0) as (server, call):
        _drain(bench)
        bench.hold.clear()
        first = asyncio.create_task(call.infer(request("scale", {"x": X})))
        await bench.until_started()
        data = request("scale", {"x": X}).SerializeToString()
        method = call.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await method(data, timeout=0.05)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        counters = server.counters.of("scale", "1")
        await until(lambda: counters.failures.get("CANCELED") == 1)
        (served,) = server.repository.all_served()
        assert served.gate.waiting == 0
        bench.hold.set()
        assert text(await first, "tepi_device") == "card"


async def test_instances_bound_how_many_run_at_once(tmp_path: Path) -> None:
    bench = Bench()
    await _held(tmp_path, "instance_group [ { count: 3 } ]", bench)
    assert bench.hold is not None
    async with running(tmp_path, bench.parts(), card="inproc", inline_limit_us=0) as (server, call):
        _drain(bench)
        bench.hold.clear()
        tasks = [asyncio.create_task(call.infer(request("scale", {"x": X}))) for _ in range(8)]
        for _ in range(3):
            await bench.until_started()
        (served,) = server.repository.all_served()
        await until(lambda: served.gate.waiting == 5)
        assert bench.most_running == 3
        bench.hold.set()
        for response in await asyncio.gather(*tasks):
            assert np.array_equal(arrays(response)["y"], 2 * X)
        assert bench.most_running == 3


def _drain(bench: Bench) -> None:
    """Forget the warm runs."""
    while bench.started.acquire(blocking=False):
        pass

# SPDX-License-Identifier: Apache-2.0
"""Conformance as stock tritonclient sees it, in a process of its own: `triton_cases.py ADDRESS`.

Not a test module: test_conformance.py runs it (tritonclient's descriptors and ours cannot share a
process). Every `case_…` runs through the blocking and through the asyncio client; `stream_…` cases
through the stream of each. One `ok NAME CLIENT` line is printed for each.
"""

import asyncio
import inspect
import json
import queue
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

X = np.array([1.5, -2], np.float32)


def tensor(name: str, array: Any, datatype: str) -> Any:
    """tritonclient's input object."""
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def scale_input() -> Any:
    """The input of the model `scale`."""
    return tensor("x", X, "FP32")


async def refused(status: str, words: str, answer: Any) -> None:
    """The awaited call fails with this gRPC status and a message that holds these words."""
    try:
        await answer
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}", f"{error.status()}: {error.message()}"
        assert words in error.message(), error.message()
        return
    raise AssertionError(f"expected {status} about {words!r}, but the call succeeded")


class Blocking:
    """The blocking client under the asyncio client's face, so that a case reads the same."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return method(*arguments, **named)

        return call


async def case_server(client: Any, _folder: Path) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    metadata = await client.get_server_metadata(as_json=True)
    assert metadata["name"] == "tepi" and metadata["version"]
    assert "statistics" in metadata["extensions"]


async def case_model(client: Any, _folder: Path) -> None:
    assert await client.is_model_ready("scale")
    assert not await client.is_model_ready("nope")
    metadata = await client.get_model_metadata("add", "1", as_json=True)
    assert [i["name"] for i in metadata["inputs"]] == ["a", "b"]
    assert metadata["inputs"][0]["shape"] == ["-1", "3"]
    config = (await client.get_model_config("add", as_json=True))["config"]
    assert config["max_batch_size"] == 4 and config["input"][0]["dims"] == ["3"]
    assert config["instance_group"][0]["count"] == 1
    await refused("NOT_FOUND", "nope", client.get_model_metadata("nope"))
    await refused("NOT_FOUND", "nope", client.get_model_config("nope"))


async def case_infer_raw(client: Any, _folder: Path) -> None:
    result = await client.infer("scale", [scale_input()], request_id="9", priority=1, timeout=10**6)
    assert np.array_equal(result.as_numpy("y"), 2 * X)
    response = result.get_response()
    assert (response.id, response.model_version) == ("9", "1")
    assert response.parameters["tepi_device"].string_param == "onnxruntime"
    outputs = [triton.InferRequestedOutput("difference"), triton.InferRequestedOutput("sum")]
    a, b = np.full((2, 3), 5, np.float32), np.full((2, 3), 3, np.float32)
    result = await client.infer(
        "add", [tensor("b", b, "FP32"), tensor("a", a, "FP32")], outputs=outputs
    )
    assert [o.name for o in result.get_response().outputs] == ["difference", "sum"]
    assert np.array_equal(result.as_numpy("difference"), a - b)
    assert np.array_equal(result.as_numpy("sum"), a + b)


async def case_infer_other_types(client: Any, _folder: Path) -> None:
    half = np.array([1.5, -2, 65504], np.float16)
    result = await client.infer("half", [tensor("x", half, "FP16")])
    assert np.array_equal(result.as_numpy("y"), half)
    words = np.array([b"", b"tepi", "tepí".encode()], object)
    result = await client.infer("words", [tensor("x", words, "BYTES")])
    assert list(result.as_numpy("y")) == list(words)
    truth = np.array([True, False, True])
    result = await client.infer("truth", [tensor("x", truth, "BOOL")])
    assert np.array_equal(result.as_numpy("y"), truth)


async def case_classification(client: Any, _folder: Path) -> None:
    wanted = [triton.InferRequestedOutput("y", class_count=2)]
    result = await client.infer("scale", [scale_input()], outputs=wanted)
    assert list(result.as_numpy("y")) == [b"3.000000:0", b"-4.000000:1"]


async def case_errors(client: Any, _folder: Path) -> None:
    await refused("NOT_FOUND", "nope", client.infer("nope", [scale_input()]))
    await refused("NOT_FOUND", "7", client.infer("scale", [scale_input()], model_version="7"))
    wrong = tensor("x", X.astype(np.float64), "FP64")
    await refused("INVALID_ARGUMENT", "expected FP32", client.infer("scale", [wrong]))
    shared = triton.InferInput("x", [2], "FP32")
    shared.set_shared_memory("region", 8)
    await refused("UNIMPLEMENTED", "shared memory", client.infer("scale", [shared]))


async def case_statistics(client: Any, _folder: Path) -> None:
    async def count() -> tuple[int, int]:
        (row,) = (await client.get_inference_statistics("scale", "1", as_json=True))["model_stats"]
        stats = row["inference_stats"]
        return int(stats["success"]["count"]), int(stats["queue"]["count"])

    await client.infer("scale", [scale_input()])
    before = await count()
    await client.infer("scale", [scale_input()])
    after = await count()
    assert after == (before[0] + 1, before[1] + 1), (before, after)
    assert len((await client.get_inference_statistics()).model_stats) >= 5


async def case_repository(client: Any, folder: Path) -> None:
    index = (await client.get_model_repository_index()).models
    assert {m.name for m in index} >= {"scale", "add"}
    await client.unload_model("scale")
    assert not await client.is_model_ready("scale")
    await refused("UNAVAILABLE", "unloaded", client.infer("scale", [scale_input()]))
    await client.load_model("scale")
    assert await client.is_model_ready("scale")
    content = (folder / "scale" / "1" / "model.onnx").read_bytes()
    config = json.dumps({"backend": "onnxruntime", "max_batch_size": 0})
    await client.load_model("brought", config=config, files={"file:1/model.onnx": content})
    result = await client.infer("brought", [scale_input()])
    assert np.array_equal(result.as_numpy("y"), 2 * X)
    await client.unload_model("brought", unload_dependents=True)
    await refused("NOT_FOUND", "nope", client.load_model("nope"))
    await refused("NOT_FOUND", "nope", client.unload_model("nope"))


async def case_shared_memory(client: Any, _folder: Path) -> None:
    await client.unregister_system_shared_memory()
    await client.unregister_cuda_shared_memory()
    assert not (await client.get_system_shared_memory_status()).regions
    assert not (await client.get_cuda_shared_memory_status()).regions
    off = "UNIMPLEMENTED"
    await refused(off, "shared memory", client.register_system_shared_memory("a", "/a", 8))
    await refused(off, "shared memory", client.register_cuda_shared_memory("a", b"YQ==", 0, 8))


async def case_settings(client: Any, _folder: Path) -> None:
    await refused("UNIMPLEMENTED", "tracing", client.get_trace_settings())
    await refused("UNIMPLEMENTED", "tracing", client.update_trace_settings(settings={}))
    await refused("UNIMPLEMENTED", "log", client.get_log_settings())
    await refused("UNIMPLEMENTED", "log", client.update_log_settings({"log_info": True}))


def requests(count: int) -> list[dict[str, Any]]:
    """Stream requests, every fifth for a model that is not there."""
    return [
        {
            "model_name": "nope" if n % 5 == 4 else "scale",
            "inputs": [scale_input()],
            "request_id": str(n),
            "enable_empty_final_response": True,
        }
        for n in range(count)
    ]


def check_stream(answers: list[tuple[Any, Any]]) -> None:
    """Order, results, in-band errors and the mark of the last response."""
    for n, (result, error) in enumerate(answers):
        if n % 5 == 4:
            assert error is not None and "nope" in error.message(), error
            continue
        assert error is None, error
        response = result.get_response()
        assert response.id == str(n)
        assert response.parameters["triton_final_response"].bool_param
        assert np.array_equal(result.as_numpy("y"), 2 * X)


def stream_blocking(address: str) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for request in requests(50):
            client.async_stream_infer(**request)
        check_stream([answers.get(timeout=30) for _ in range(50)])
        client.stop_stream()
    assert answers.empty()


async def stream_asyncio(address: str) -> None:
    async def source() -> Any:
        for request in requests(50):
            yield request

    async with triton_aio.InferenceServerClient(address) as client:
        answers = [answer async for answer in client.stream_infer(source())]
    assert len(answers) == 50
    check_stream(answers)


def typed_contents_with_the_stock_stub(address: str) -> None:
    """tritonclient always sends raw; other clients of the same stubs send typed contents."""
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="scale")
    made = request.inputs.add(name="x", datatype="FP32", shape=[2])
    made.contents.fp32_contents.extend([1.5, -2])
    with grpc.insecure_channel(address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert np.array_equal(np.frombuffer(response.raw_output_contents[0], np.float32), 2 * X)


async def main(address: str, folder: Path) -> None:
    """All cases in order."""
    cases = [(n, f) for n, f in globals().items() if n.startswith("case_")]
    for name, case in cases:
        with triton.InferenceServerClient(address) as blocking:
            await case(Blocking(blocking), folder)
        print("ok", name, "blocking", flush=True)
        async with triton_aio.InferenceServerClient(address) as client:
            await case(client, folder)
        print("ok", name, "asyncio", flush=True)
    for name, stream in [(n, f) for n, f in globals().items() if n.startswith("stream_")]:
        done = stream(address)
        if inspect.isawaitable(done):
            await done
        print("ok", name, flush=True)
    typed_contents_with_the_stock_stub(address)
    print("ok typed", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))

# SPDX-License-Identifier: Apache-2.0
"""A user of stock tritonclient, in a process of its own: `stock_client.py ADDRESS FLAVOUR`.

Not a test module: test_tritonclient.py runs it. tritonclient brings its own copy of the
protocol's descriptors, which cannot share a process with ours. Each `case_…` of a flavour raises
on what a user would call broken; the process prints one `ok NAME` line a case.
"""

import asyncio
import queue
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

HELD_OUT = Path(__file__).resolve().parents[2] / "examples/digits/held-out.npz"
WAIT = 30


def digits(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first `count` held-out digits as [count, 1, 8, 8], and their labels."""
    with np.load(HELD_OUT) as file:
        return file["images"][:count, None].astype(np.float32), file["labels"][:count].astype(int)


def image_input(images: NDArray[np.float32], name: str = "image") -> Any:
    """The images as tritonclient's input object."""
    tensor = triton.InferInput(name, list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    return tensor


def check(result: Any, labels: NDArray[np.int64]) -> None:
    """The answer has one row of probabilities for each label, and the right digit on top."""
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (len(labels), 10), probabilities.shape
    assert probabilities.dtype == np.float32
    right = np.mean(np.argmax(probabilities, axis=1) == labels)
    assert right >= 0.97, f"accuracy {right}"


def refused(status: str, words: str, call: Callable[[], Any]) -> None:
    """The call fails with this gRPC status and a message that holds these words."""
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}", f"{error.status()}: {error.message()}"
        assert words in error.message(), error.message()
        return
    raise AssertionError(f"expected {status} about {words}, but the call succeeded")


def case_health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "2")
    assert not client.is_model_ready("letters")


def case_metadata(client: Any) -> None:
    server = client.get_server_metadata()
    assert server.name == "tepi"
    assert {"model_repository", "statistics", "model_configuration"} <= set(server.extensions)
    absent = {"system_shared_memory", "cuda_shared_memory", "trace", "logging"}
    assert not absent & set(server.extensions)
    model = client.get_model_metadata("digits")
    assert (model.name, list(model.versions)) == ("digits", ["1"])
    (image,), (probabilities,) = model.inputs, model.outputs
    assert (image.name, image.datatype, list(image.shape)) == ("image", "FP32", [-1, 1, 8, 8])
    assert (probabilities.name, list(probabilities.shape)) == ("probabilities", [-1, 10])
    config = client.get_model_config("digits").config
    assert (config.name, config.max_batch_size) == ("digits", 64)
    assert list(config.input[0].dims) == [1, 8, 8]


def case_infer_in_batches(client: Any) -> None:
    images, labels = digits(576)
    for start in range(0, len(labels), 64):
        part = slice(start, start + 64)
        check(client.infer("digits", [image_input(images[part])]), labels[part])


def case_infer_says_who_answered(client: Any) -> None:
    images, labels = digits(1)
    result = client.infer(
        "digits",
        [image_input(images)],
        model_version="1",
        request_id="seven",
        priority=1,
        timeout=5_000_000,
        client_timeout=WAIT,
        outputs=[triton.InferRequestedOutput("probabilities")],
    )
    check(result, labels)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "digits", "1")
    assert response.parameters["tepi_device"].string_param == "card"
    assert "tepi_fallback_reason" not in response.parameters


def case_classification_names_the_digit(client: Any) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    images, labels = digits(4)
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
    top = client.infer("digits", [image_input(images)], outputs=wanted).as_numpy("probabilities")
    assert top.shape == (4, 3)
    for row, label in zip(top, labels, strict=True):
        score, index, name = row[0].decode().split(":")
        assert 0 < float(score) <= 1.01
        assert (int(index), name) == (label, names[label])


def case_async_infer(client: Any) -> None:
    images, labels = digits(32)
    answers: queue.Queue[Any] = queue.Queue()
    for i in range(len(labels)):
        client.async_infer(
            "digits",
            [image_input(images[i : i + 1])],
            lambda result, error: answers.put((result, error)),
            request_id=str(i),
        )
    right = 0
    for _ in labels:
        result, error = answers.get(timeout=WAIT)
        assert error is None, error
        row = result.as_numpy("probabilities")[0]
        right += np.argmax(row) == labels[int(result.get_response().id)]
    assert right >= 30


def case_statistics_grow(client: Any) -> None:
    images, _ = digits(8)
    before = client.get_inference_statistics("digits").model_stats[0]
    client.infer("digits", [image_input(images)])
    after = client.get_inference_statistics("digits", "1").model_stats[0]
    assert after.inference_count == before.inference_count + 8
    assert after.execution_count == before.execution_count + 1
    assert after.inference_stats.queue.count > before.inference_stats.queue.count
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns


def case_repository(client: Any) -> None:
    images, labels = digits(1)
    index = client.get_model_repository_index().models
    assert [(m.name, m.version, m.state) for m in index] == [("digits", "1", "READY")]
    client.unload_model("digits")
    assert not client.is_model_ready("digits")
    refused("UNAVAILABLE", "digits", lambda: client.infer("digits", [image_input(images)]))
    client.load_model("digits")
    assert client.is_model_ready("digits")
    check(client.infer("digits", [image_input(images)]), labels)
    try:
        client.load_model("letters")
    except InferenceServerException as error:
        assert "letters" in error.message()
    else:
        raise AssertionError("loading a model that is not there succeeded")


def case_bad_requests_are_named(client: Any) -> None:
    images, labels = digits(2)
    good = image_input(images)
    doubles = triton.InferInput("image", [2, 1, 8, 8], "FP64")
    doubles.set_data_from_numpy(images.astype(np.float64))
    wide = image_input(np.zeros((2, 1, 8, 9), np.float32))
    many = image_input(np.zeros((65, 1, 8, 8), np.float32))
    unknown_output = [triton.InferRequestedOutput("logits")]

    refused("NOT_FOUND", "letters", lambda: client.infer("letters", [good]))
    refused("NOT_FOUND", "7", lambda: client.infer("digits", [good], model_version="7"))
    bad = "INVALID_ARGUMENT"
    refused(bad, "picture", lambda: client.infer("digits", [image_input(images, "picture")]))
    refused(bad, "image", lambda: client.infer("digits", [doubles]))
    refused(bad, "image", lambda: client.infer("digits", [wide]))
    refused(bad, "64", lambda: client.infer("digits", [many]))
    refused(bad, "image", lambda: client.infer("digits", []))
    refused(bad, "logits", lambda: client.infer("digits", [good], outputs=unknown_output))
    check(client.infer("digits", [good]), labels)


def case_what_is_not_there_yet_says_so(client: Any) -> None:
    refused("UNIMPLEMENTED", "", client.get_trace_settings)
    refused("UNIMPLEMENTED", "", client.get_log_settings)
    refused("UNIMPLEMENTED", "", lambda: client.register_system_shared_memory("a", "/a", 64))
    refused("UNIMPLEMENTED", "", lambda: client.register_cuda_shared_memory("a", b"YQ==", 0, 64))
    client.unregister_cuda_shared_memory()  # measuring tools do this first; nothing to do


def case_stream(client: Any) -> None:
    images, labels = digits(40)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(len(labels)):
        name = "letters" if i == 20 else "digits"
        client.async_stream_infer(name, [image_input(images[i : i + 1])], request_id=str(i))
    got = [answers.get(timeout=WAIT) for _ in labels]
    client.stop_stream()
    errors = [error for _, error in got if error is not None]
    assert len(errors) == 1
    assert "letters" in errors[0].message(), errors
    results = [result for result, error in got if error is None]
    pairs = [
        (int(np.argmax(r.as_numpy("probabilities"))), labels[int(r.get_response().id)])
        for r in results
    ]
    assert sum(a == b for a, b in pairs) >= 37


def case_stream_marks_the_final_response(client: Any) -> None:
    images, _ = digits(1)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(
        "digits", [image_input(images)], enable_empty_final_response=True, request_id="last"
    )
    result, error = answers.get(timeout=WAIT)
    client.stop_stream()
    assert error is None, error
    assert result.get_response().parameters["triton_final_response"].bool_param


async def case_aio_infer_concurrently(client: Any) -> None:
    images, labels = digits(128)
    results = await asyncio.gather(
        *(client.infer("digits", [image_input(images[i : i + 1])]) for i in range(len(labels)))
    )
    rows = np.concatenate([result.as_numpy("probabilities") for result in results])
    assert np.mean(np.argmax(rows, axis=1) == labels) >= 0.97


async def case_aio_stream(client: Any) -> None:
    images, labels = digits(16)

    async def requests() -> Any:
        for i in range(len(labels)):
            yield {
                "model_name": "digits",
                "inputs": [image_input(images[i : i + 1])],
                "request_id": str(i),
            }

    right = 0
    async for result, error in client.stream_infer(requests()):
        assert error is None, error
        row = result.as_numpy("probabilities")[0]
        right += np.argmax(row) == labels[int(result.get_response().id)]
    assert right >= 15


async def case_aio_control(client: Any) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("digits")
    assert (await client.get_server_metadata()).name == "tepi"
    assert (await client.get_model_metadata("digits")).name == "digits"
    assert (await client.get_model_config("digits")).config.name == "digits"
    assert (await client.get_inference_statistics("digits")).model_stats[0].name == "digits"
    assert [m.name for m in (await client.get_model_repository_index()).models] == ["digits"]
    await client.unload_model("digits")
    await client.load_model("digits")
    assert await client.is_model_ready("digits")


async def run_aio(address: str, cases: list[Callable[[Any], Any]]) -> None:
    """Each case with an asyncio client of its own."""
    for case in cases:
        async with triton_aio.InferenceServerClient(address) as client:
            await case(client)
        print("ok", case.__name__, flush=True)


def main(address: str, flavour: str) -> None:
    """Run the cases of one flavour: `sync`, `stream` or `aio`."""
    found = [value for name, value in globals().items() if name.startswith("case_")]
    aio = [case for case in found if case.__name__.startswith("case_aio_")]
    stream = [case for case in found if case.__name__.startswith("case_stream")]
    if flavour == "aio":
        asyncio.run(run_aio(address, aio))
        return
    for case in stream if flavour == "stream" else [c for c in found if c not in aio + stream]:
        with triton.InferenceServerClient(address) as client:
            case(client)
        print("ok", case.__name__, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

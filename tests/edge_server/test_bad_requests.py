# SPDX-License-Identifier: Apache-2.0
"""Requests that are wrong get the right status and a message that names what to mend; the server
goes on answering."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.edge_server import onnx_models as models
from tests.edge_server.running import Refused, arrays, request, running
from wire import inference_pb2 as pb

A = np.ones((2, 3), np.float32)
Change = Callable[[pb.ModelInferRequest], None]


def wrong_model(m: pb.ModelInferRequest) -> None:
    m.model_name = "nope"


def wrong_version(m: pb.ModelInferRequest) -> None:
    m.model_version = "9"


def wrong_input_name(m: pb.ModelInferRequest) -> None:
    m.inputs[1].name = "c"


def input_twice(m: pb.ModelInferRequest) -> None:
    m.inputs[1].name = "a"


def input_missing(m: pb.ModelInferRequest) -> None:
    del m.inputs[1], m.raw_input_contents[1]


def wrong_datatype(m: pb.ModelInferRequest) -> None:
    m.inputs[0].datatype = "INT32"


def unknown_datatype(m: pb.ModelInferRequest) -> None:
    m.inputs[0].datatype = "FP33"


def wrong_rank(m: pb.ModelInferRequest) -> None:
    m.inputs[0].shape[:] = [6]


def wrong_shape(m: pb.ModelInferRequest) -> None:
    m.inputs[0].shape[:] = [3, 2]


def negative_shape(m: pb.ModelInferRequest) -> None:
    m.inputs[0].shape[:] = [-2, 3]


def batch_too_large(m: pb.ModelInferRequest) -> None:
    m.inputs[0].shape[:] = [5, 3]


def huge_shape(m: pb.ModelInferRequest) -> None:
    m.model_name = "same"
    del m.inputs[1], m.raw_input_contents[1]
    m.inputs[0].name = "x"
    m.inputs[0].shape[:] = [2**62]


def too_few_bytes(m: pb.ModelInferRequest) -> None:
    m.raw_input_contents[0] = bytes(23)


def too_many_bytes(m: pb.ModelInferRequest) -> None:
    m.raw_input_contents[1] = bytes(25)


def raw_missing(m: pb.ModelInferRequest) -> None:
    del m.raw_input_contents[1]


def raw_left_over(m: pb.ModelInferRequest) -> None:
    m.raw_input_contents.append(b"1234")


def no_data(m: pb.ModelInferRequest) -> None:
    del m.raw_input_contents[:]


def raw_and_typed(m: pb.ModelInferRequest) -> None:
    m.inputs[0].contents.fp32_contents.extend([1.0] * 6)


def typed_in_the_wrong_field(m: pb.ModelInferRequest) -> None:
    del m.raw_input_contents[:]
    m.inputs[0].contents.int_contents.extend([1] * 6)


def typed_too_short(m: pb.ModelInferRequest) -> None:
    del m.raw_input_contents[:]
    m.inputs[0].contents.fp32_contents.extend([1.0] * 5)


def unknown_output(m: pb.ModelInferRequest) -> None:
    m.outputs.add(name="product")


def output_twice(m: pb.ModelInferRequest) -> None:
    m.outputs.add(name="sum")
    m.outputs.add(name="sum")


def zero_classes(m: pb.ModelInferRequest) -> None:
    m.outputs.add(name="sum").parameters["classification"].int64_param = 0


def classes_as_text(m: pb.ModelInferRequest) -> None:
    m.outputs.add(name="sum").parameters["classification"].string_param = "3"


def input_in_shared_memory(m: pb.ModelInferRequest) -> None:
    m.inputs[0].parameters["shared_memory_region"].string_param = "r"


def output_in_shared_memory(m: pb.ModelInferRequest) -> None:
    m.outputs.add(name="sum").parameters["shared_memory_region"].string_param = "r"


def timeout_as_text(m: pb.ModelInferRequest) -> None:
    m.parameters["timeout"].string_param = "soon"


def timeout_below_zero(m: pb.ModelInferRequest) -> None:
    m.parameters["timeout"].int64_param = -1


CASES: list[tuple[Change, str, tuple[str, ...]]] = [
    (wrong_model, "NOT_FOUND", ("'nope'", "add")),
    (wrong_version, "NOT_FOUND", ("'add'", "'9'", "1")),
    (wrong_input_name, "INVALID_ARGUMENT", ("unknown input 'c'", "'a', 'b'")),
    (input_twice, "INVALID_ARGUMENT", ("'a' is given twice",)),
    (input_missing, "INVALID_ARGUMENT", ("'b' is missing", "got 'a'")),
    (wrong_datatype, "INVALID_ARGUMENT", ("'a'", "INT32", "expected FP32")),
    (unknown_datatype, "INVALID_ARGUMENT", ("'a'", "FP33", "expected FP32")),
    (wrong_rank, "INVALID_ARGUMENT", ("'a'", "[6]", "expected [-1,3]")),
    (wrong_shape, "INVALID_ARGUMENT", ("'a'", "[3,2]", "expected [-1,3]")),
    (negative_shape, "INVALID_ARGUMENT", ("'a'", "[-2,3]", "expected [-1,3]")),
    (batch_too_large, "INVALID_ARGUMENT", ("'a'", "batch size 5", "1 to 4")),
    (huge_shape, "INVALID_ARGUMENT", ("'x'", "24 bytes", str(2**64), str(2**62))),
    (too_few_bytes, "INVALID_ARGUMENT", ("'a'", "23 bytes", "expected 24", "[2,3]")),
    (too_many_bytes, "INVALID_ARGUMENT", ("'b'", "25 bytes", "expected 24")),
    (raw_missing, "INVALID_ARGUMENT", ("'b'", "ends after 1")),
    (raw_left_over, "INVALID_ARGUMENT", ("3 entries", "expected 2")),
    (no_data, "INVALID_ARGUMENT", ("'a'", "no data")),
    (raw_and_typed, "INVALID_ARGUMENT", ("'a'", "typed contents and raw_input_contents")),
    (typed_in_the_wrong_field, "INVALID_ARGUMENT", ("'a'", "int_contents", "fp32_contents")),
    (typed_too_short, "INVALID_ARGUMENT", ("'a'", "5 elements", "expected 6")),
    (unknown_output, "INVALID_ARGUMENT", ("unknown output 'product'", "'sum'")),
    (output_twice, "INVALID_ARGUMENT", ("'sum' is requested twice",)),
    (zero_classes, "INVALID_ARGUMENT", ("'sum'", "classification")),
    (classes_as_text, "INVALID_ARGUMENT", ("'sum'", "classification")),
    (input_in_shared_memory, "UNIMPLEMENTED", ("'a'", "shared memory")),
    (output_in_shared_memory, "UNIMPLEMENTED", ("'sum'", "shared memory")),
    (timeout_as_text, "INVALID_ARGUMENT", ("'timeout'",)),
    (timeout_below_zero, "INVALID_ARGUMENT", ("'timeout'", "-1")),
]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    models.put(tmp_path, "add", models.add(), "max_batch_size: 4")
    models.put(tmp_path, "same", models.identity(TensorProto.FLOAT))
    models.put(tmp_path, "words", models.identity(TensorProto.STRING))
    return tmp_path


async def test_wrong_requests_are_told_what_is_wrong(repository: Path) -> None:
    async with running(repository) as (_, call):
        for change, code, words in CASES:
            await call.infer(request("add", {"a": A, "b": A}))
            message = request("add", {"a": A, "b": A})
            change(message)
            refused = await call.refusal(message)
            assert refused.code == code, (change.__name__, refused)
            for word in words:
                assert word in refused.message, (change.__name__, word, refused.message)
        right = await call.infer(request("add", {"a": A, "b": A}))
        assert np.array_equal(arrays(right)["sum"], A + A)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too few"),
        (b"\x01\0\0\0", "says 1 bytes, 0 are left"),
        (b"\xff\xff\xff\xff1234", "says 4294967295 bytes"),
        (b"\x01\0\0\0ab", "1 bytes after the last"),
        (b"\x01\0\0\0\xff", "element 0 is not UTF-8"),
    ],
)
async def test_broken_strings_are_told_where(repository: Path, data: bytes, words: str) -> None:
    message = pb.ModelInferRequest(model_name="words", raw_input_contents=[data])
    message.inputs.add(name="x", datatype="BYTES", shape=[1])
    async with running(repository) as (_, call):
        refused = await call.refusal(message)
        assert refused.code == "INVALID_ARGUMENT" and words in refused.message
        message.inputs[0].shape[:] = [2**62]
        assert (await call.refusal(message)).code == "INVALID_ARGUMENT"


async def test_strings_cannot_be_classified(repository: Path) -> None:
    message = pb.ModelInferRequest(model_name="words", raw_input_contents=[b"\x01\0\0\0a"])
    message.inputs.add(name="x", datatype="BYTES", shape=[1])
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    async with running(repository) as (_, call):
        refused = await call.refusal(message)
        assert refused.code == "INVALID_ARGUMENT" and "needs numbers" in refused.message


_RIGHT = request("add", {"a": A, "b": A}, ["sum"], id="1").SerializeToString()


def _damaged() -> st.SearchStrategy[bytes]:
    """Random bytes, and right requests cut short or with bytes changed."""
    flips = st.lists(
        st.tuples(st.integers(0, len(_RIGHT) - 1), st.integers(0, 255)), min_size=1, max_size=6
    )

    def flip(changes: list[tuple[int, int]]) -> bytes:
        data = bytearray(_RIGHT)
        for at, value in changes:
            data[at] = value
        return bytes(data)

    cut = st.integers(0, len(_RIGHT)).map(lambda n: _RIGHT[:n])
    return st.one_of(st.binary(max_size=300), cut, flips.map(flip))


async def test_no_bytes_bring_the_server_down(repository: Path) -> None:
    """Any bytes get an answer or a status that blames the request; never INTERNAL or UNKNOWN."""
    import asyncio

    async with running(repository) as (server, call):
        loop = asyncio.get_running_loop()

        @settings(
            max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(_damaged())
        def attack(data: bytes) -> None:
            try:
                asyncio.run_coroutine_threadsafe(call.raw("ModelInfer", data), loop).result(20)
            except Refused as error:
                assert error.code in ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"), error

        await asyncio.to_thread(attack)
        right = await call.infer(request("add", {"a": A, "b": A}))
        assert np.array_equal(arrays(right)["sum"], A + A)
        assert all(c.pending == 0 for c in server.counters.models.values())

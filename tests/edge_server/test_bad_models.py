# SPDX-License-Identifier: Apache-2.0
"""Models and configurations that cannot be served: each is named with what is wrong, and the
model beside it is served all the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_server.model_files import RepositoryError, model_folders
from tests.edge_server import onnx_models as models
from tests.edge_server.running import Refused, arrays, request, running

X = np.array([1, 2], np.float32)


def corrupt() -> bytes:
    return models.add()[:-40] + b"\xff" * 20


def garbage() -> bytes:
    return bytes(range(256)) * 4


def unknown_opset() -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    tensor = ("x", TensorProto.FLOAT, (2,))
    return models.model_bytes([node], [tensor], [("y", TensorProto.FLOAT, (2,))], opset=9999)


def unknown_op() -> bytes:
    node = helper.make_node("Frobnicate", ["x"], ["y"])
    tensor = ("x", TensorProto.FLOAT, (2,))
    return models.model_bytes([node], [tensor], [("y", TensorProto.FLOAT, (2,))])


def contradictory_shapes() -> bytes:
    node = helper.make_node("Add", ["x", "c"], ["y"])
    return models.model_bytes(
        [node],
        [("x", TensorProto.FLOAT, (2,))],
        [("y", TensorProto.FLOAT, (2,))],
        [numpy_helper.from_array(np.zeros((3, 5), np.float32), "c")],
    )


def huge_constant() -> bytes:
    """ConstantOfShape of 2**50 floats, which onnxruntime would fold when it loads the model."""
    shape = numpy_helper.from_array(np.array([2**50], np.int64), "s")
    return models.model_bytes(
        [
            helper.make_node("ConstantOfShape", ["s"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["total"], keepdims=0),
            helper.make_node("Add", ["x", "total"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, (2,))],
        [("y", TensorProto.FLOAT, (2,))],
        [shape],
    )


def sequence_input() -> bytes:
    node = helper.make_node("SequenceLength", ["x"], ["y"])
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
    )
    opset = [helper.make_opsetid("", models.OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


MODELS: list[tuple[Callable[[], bytes], str]] = [
    (corrupt, "model.onnx"),
    (garbage, "model.onnx"),
    (lambda: b"", "1/model.onnx is empty"),
    (unknown_opset, "opset"),
    (unknown_op, "Frobnicate"),
    (contradictory_shapes, "model.onnx"),
    (sequence_input, "'x' is a seq(tensor(float))"),
]

CONFIGS: list[tuple[str, tuple[str, ...]]] = [
    ('max_batch_size: "four"', ("config.pbtxt", "line 1", "four")),
    ('name: "bad"\ninput [ {', ("config.pbtxt", "line 2")),
    ("\n\nmax_batch_size 3 }", ("config.pbtxt", "line 3")),
    ('input [ { name: "x" data_type: TYPE_FP99 } ]', ("TYPE_FP99",)),
    ('name: "other"', ("'other'", "'bad'")),
    ('platform: "tensorrt_plan"', ("tensorrt_plan", "onnxruntime_onnx")),
    ('backend: "python"', ("'python'", "onnxruntime")),
    ("max_batch_size: -1", ("max_batch_size -1",)),
    ("max_batch_size: 4", ("'x'", "[2]", "max_batch_size 0")),
    ('input [ { name: "z" } ]', ("'z'", "x")),
    ('input [ { name: "x" }, { name: "x" } ]', ("twice",)),
    ('input [ { name: "x" data_type: TYPE_INT8 } ]', ("'x'", "INT8", "FP32")),
    ('input [ { name: "x" data_type: TYPE_FP32 dims: [3] } ]', ("'x'", "[3]", "[2]")),
    ('input [ { name: "x" dims: [0] } ]', ("'x'", "[0]")),
    ('input [ { name: "x" dims: [3] reshape { shape: [2] } } ]', ("'x'", "reshape")),
    ('output [ { name: "y" dims: [2] label_filename: "no.txt" } ]', ("no.txt", "'y'")),
    ('output [ { name: "y" dims: [2] label_filename: "../secret" } ]', ("../secret", "leaves")),
    ('default_model_filename: "../../model.onnx"', ("../../model.onnx",)),
    ("version_policy { specific { versions: [7] } }", ("version 7", "there are 1")),
    ("ensemble_scheduling { step [ { model_name: 'a' } ] }", ("ensemble_scheduling",)),
    ("model_transaction_policy { decoupled: true }", ("decoupled",)),
    ("instance_group [ { count: 100000 } ]", ("instance_group.count 100000",)),
    (
        'parameters { key: "tepi_card" value { string_value: "maybe" } }',
        ("tepi_card", "maybe", "prefer, require, forbid"),
    ),
    ("# " + "x" * (1 << 20), ("larger than 1 MiB",)),
]


async def check(repository: Path, words: tuple[str, ...]) -> None:
    """`bad` is unavailable for the reason given, wherever a person may look; `good` is served."""
    async with running(repository) as (_, call):
        index = {m.name: m for m in (await call("RepositoryIndex")).models}
        assert index["bad"].state == "UNAVAILABLE" and index["good"].state == "READY"
        with pytest.raises(Refused) as load:
            await call("RepositoryModelLoad", model_name="bad")
        assert load.value.code == "INVALID_ARGUMENT"
        infer = await call.refusal(request("bad", {"x": X}))
        assert infer.code == "UNAVAILABLE"
        for word in words:
            assert word in load.value.message, load.value.message
            assert word in infer.message, infer.message
            assert word in index["bad"].reason, index["bad"].reason
        assert np.array_equal(arrays(await call.infer(request("good", {"x": X})))["y"], 2 * X)
        assert (await call("ServerReady")).ready


@pytest.mark.parametrize(("model", "words"), MODELS, ids=lambda v: getattr(v, "__name__", "-"))
async def test_models_that_cannot_be_loaded(
    tmp_path: Path, model: Callable[[], bytes], words: str
) -> None:
    models.put(tmp_path, "good", models.scale(2))
    models.put(tmp_path, "bad", model())
    await check(tmp_path, (words,))


@pytest.mark.parametrize(("config", "words"), CONFIGS, ids=range(len(CONFIGS)))
async def test_configurations_with_errors(
    tmp_path: Path, config: str, words: tuple[str, ...]
) -> None:
    models.put(tmp_path, "good", models.scale(2))
    models.put(tmp_path, "bad", models.scale(2), config)
    await check(tmp_path, words)


async def test_a_model_that_wants_all_memory_fails_alone(tmp_path: Path) -> None:
    """Whether it fails to load or to run, the server and the other model go on."""
    models.put(tmp_path, "good", models.scale(2))
    models.put(tmp_path, "bad", huge_constant())
    async with running(tmp_path) as (_, call):
        refused = await call.refusal(request("bad", {"x": X}))
        assert refused.code in ("UNAVAILABLE", "INTERNAL") and refused.message
        assert np.array_equal(arrays(await call.infer(request("good", {"x": X})))["y"], 2 * X)


async def test_a_folder_without_a_version_is_named(tmp_path: Path) -> None:
    models.put(tmp_path, "good", models.scale(2))
    (tmp_path / "bad" / "first").mkdir(parents=True)
    await check(tmp_path, ("no version folder", "'bad/1/model.onnx'"))


async def test_a_version_without_a_model_is_named(tmp_path: Path) -> None:
    models.put(tmp_path, "good", models.scale(2))
    (tmp_path / "bad" / "1").mkdir(parents=True)
    await check(tmp_path, ("1/model.onnx is missing",))


async def test_a_config_that_is_not_text_is_named(tmp_path: Path) -> None:
    models.put(tmp_path, "good", models.scale(2))
    folder = models.put(tmp_path, "bad", models.scale(2))
    (folder / "config.pbtxt").write_bytes(b"name: \xff\xfe")
    await check(tmp_path, ("byte 6", "UTF-8"))


async def test_unknown_fields_are_reported_and_not_fatal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = 'future_field { a: [1, 2] b: "}" }\ninput [ { name: "x" novelty: 3 dims: [2] } ]\n'
    models.put(tmp_path, "scale", models.scale(2), config + "sequence_batching { }\n")
    async with running(tmp_path) as (_, call):
        assert np.array_equal(arrays(await call.infer(request("scale", {"x": X})))["y"], 2 * X)
    said = " ".join(str(getattr(r, "tepi_fields", "")) for r in caplog.records)
    assert "line 1: unknown field 'future_field'" in said
    assert "line 2: unknown field 'novelty' of inference.ModelInput" in said
    assert "sequence_batching is not acted upon" in said


def test_a_repository_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nowhere' does not exist; create it"):
        model_folders(tmp_path / "nowhere")


def test_a_repository_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match="is not a folder"):
        model_folders(tmp_path / "file")


async def test_an_empty_repository_is_served_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as (_, call):
        assert (await call("ServerReady")).ready
        assert not (await call("RepositoryIndex")).models
        models.put(tmp_path, "scale", models.scale(2))
        await call("RepositoryModelLoad", model_name="scale")
        assert np.array_equal(arrays(await call.infer(request("scale", {"x": X})))["y"], 2 * X)
    assert "the model repository is empty" in caplog.text


def test_a_repository_that_cannot_be_read_is_told() -> None:
    with pytest.raises(RepositoryError, match="cannot be read: File name too long"):
        model_folders(Path("/" + "x" * 300))

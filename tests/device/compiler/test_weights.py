# SPDX-License-Identifier: Apache-2.0
"""Initializers left in the model's file, and programs mapped from a file of their own."""

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from device.binding import Card
from device.compiler import CardSegment
from device.compiler.graph import Constants
from device.compiler.weights import LEFT, open_model
from device.errors import ModelError
from device.session import Session

from .arithmetic import Array
from .building import Builder
from .running import compile_model, reference


def dense(rows: int | str = 1, width: int = 96) -> onnx.ModelProto:
    """x [rows, width] -> two products, the weights of both above the limit."""
    b = Builder()
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, width]))
    b.quantized("x", "xq", 0.02, 120, output=False)
    value = b.again("xq")
    for name in "vw":
        w = b.weights(name, (width, width), channels=False)
        b.quantized(b.node("MatMul", (value, w), f"{name}m"), f"{name}q", 0.4, output=False)
        value = b.again(f"{name}q")
    b.output(value, TensorProto.FLOAT)
    return b.model()


def feed(rows: int, width: int = 96) -> dict[str, Array]:
    return {"x": np.random.default_rng(0).normal(0, 1, (rows, width)).astype(np.float32)}


def expected(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    (only,) = reference(model, feeds).values()
    return only


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_what_is_left_and_what_is_read_make_the_model(tmp_path: Path) -> None:
    model = dense()
    path = saved(model, tmp_path)
    lean, weights = open_model(path)
    assert len(lean.SerializeToString()) < path.stat().st_size - 2 * LEFT
    assert "v" in weights and "w" in weights and "v_scale" not in weights
    assert weights.size("v") == 96 * 96
    stored = {t.name: t for t in model.graph.initializer}
    assert weights.read("w") == stored["w"].raw_data
    weights.fill(lean, {"v"})
    assert [t.name for t in lean.graph.initializer if t.raw_data and t.name in "vw"] == ["v"]
    weights.fill(lean)
    assert lean == model


def test_every_element_type_decodes_as_from_the_whole_model(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, 4 * LEFT)
    kinds = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT4", "UINT4", "INT64", "BOOL")
    tensors = [helper.make_tensor(k, getattr(TensorProto, k), values.shape, values) for k in kinds]
    tensors += [numpy_helper.from_array(numpy_helper.to_array(t), f"{t.name}_raw") for t in tensors]
    graph = helper.make_graph([], "g", [], [], tensors)
    model = helper.make_model(graph)
    lean, weights = open_model(saved(model, tmp_path))
    constants = Constants(lean.graph.initializer, weights)
    for tensor in model.graph.initializer:
        wanted, found = numpy_helper.to_array(tensor), constants.get(tensor.name)
        assert found is not None and found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def test_a_file_that_is_replaced_while_in_use(tmp_path: Path) -> None:
    """Symbolic shapes are compiled later on: the old file's weights serve them."""
    model = dense("rows")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    path = saved(model, tmp_path)
    with Session(path) as session:
        other = tmp_path / "other.onnx"
        other.write_bytes(dense(1, 8).SerializeToString())
        other.replace(path)
        (got,) = session.run(None, feed(3))
    np.testing.assert_array_equal(got, expected(model, feed(3)))


def test_a_file_that_is_written_to_while_in_use(tmp_path: Path) -> None:
    path = saved(dense(), tmp_path)
    _, weights = open_model(path)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ModelError, match=r"model\.onnx was changed while it was in use"):
        weights.read("w")


def test_an_initializer_of_the_wrong_size(tmp_path: Path) -> None:
    model = dense()
    tensor = next(t for t in model.graph.initializer if t.name == "v")
    tensor.raw_data = tensor.raw_data[:-1]
    with pytest.raises(ModelError, match=r'"v" of shape .* needs 9216 bytes, has 9215'):
        Session(saved(model, tmp_path))


@pytest.mark.parametrize("cut", [1, 100, 5000, 12000])
def test_a_file_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    path = saved(dense(), tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ModelError, match=r"model\.onnx"):
        Session(path)


def test_part_of_a_model_on_onnxruntime_has_its_weights(tmp_path: Path) -> None:
    b = Builder()
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 96]))
    b.quantized("x", "xq", 0.02, 120, output=False)
    w = b.weights("w", (96, 96), channels=False)
    b.quantized(b.node("MatMul", (b.again("xq"), w), "m"), "mq", 0.4, output=False)
    real = b.const("real", b.rng.normal(0, 1, (1, 96 * 24)).astype(np.float32))
    tiled = b.node("Tile", (b.again("mq"), b.const("times", np.array([1, 24]))), "tiled")
    b.output(
        b.node(
            "Det",
            (
                b.node(
                    "Reshape",
                    (b.node("Mul", (tiled, real), "p"), b.const("square", np.array([48, 48]))),
                    "r",
                ),
            ),
            "d",
        ),
        TensorProto.FLOAT,
    )
    model = b.model()
    with Session(saved(model, tmp_path)) as session:
        assert {row.where for row in session.placement} == {"card", "onnxruntime"}
        (got,) = session.run(None, feed(1))
    np.testing.assert_allclose(got, expected(model, feed(1)), rtol=1e-4)


def test_a_large_program_lies_in_a_file_and_survives_a_reset() -> None:
    model = dense(1, 1024)
    (segment,) = compile_model(model).segments
    assert isinstance(segment, CardSegment) and isinstance(segment.program, mmap.mmap)
    with Card.open() as card, Session(model.SerializeToString(), card) as session:
        (before,) = session.run(None, feed(1, 1024))
        card.reset()
        session.reload()
        (after,) = session.run(None, feed(1, 1024))
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(after, expected(model, feed(1, 1024)))


def test_without_room_for_files_a_program_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path / "absent"))
    model = dense(1, 1024)
    (segment,) = compile_model(model).segments
    assert isinstance(segment, CardSegment) and isinstance(segment.program, bytes)
    with Session(model.SerializeToString()) as session:
        (got,) = session.run(None, feed(1, 1024))
    np.testing.assert_array_equal(got, expected(model, feed(1, 1024)))

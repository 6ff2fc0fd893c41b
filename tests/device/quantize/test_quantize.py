# SPDX-License-Identifier: Apache-2.0
"""What becomes int8, of a model that reads text: int64 inputs of lengths known only to the data."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from device.errors import ModelError
from device.quantize.quantize import Extent, Report, quantize
from device.session import Session

RNG = np.random.default_rng(11)
WORDS, WIDTH = 50, 16


class Steps:
    """What was done, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def begin(self, what: str, total: int) -> None:
        self.begun.append(what)

    def step(self) -> None: ...


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Words looked up, two products with a Relu between, the sum over the mask."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], "words"),
        helper.make_node("MatMul", ["words", "first"], ["wide"], "layer.first"),
        helper.make_node("Relu", ["wide"], ["rectified"], "layer.rectify"),
        helper.make_node("MatMul", ["rectified", "second"], ["narrow"], "layer.second"),
        helper.make_node("Cast", ["mask"], ["share"], "share", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["share", "last"], ["column"], "column"),
        helper.make_node("Mul", ["narrow", "column"], ["kept"], "kept"),
        helper.make_node("ReduceSum", ["kept", "middle"], ["total"], "total", keepdims=0),
    ]
    held = {
        "table": RNG.normal(0, 1, (WORDS, WIDTH)).astype("f4"),
        "first": RNG.normal(0, 0.3, (WIDTH, 32)).astype("f4"),
        "second": RNG.normal(0, 0.3, (32, WIDTH)).astype("f4"),
        "last": np.array([2]),
        "middle": np.array([1]),
    }
    ports = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("ids", "mask")
    ]
    result = helper.make_tensor_value_info("total", TensorProto.FLOAT, ["batch", WIDTH])
    constants = [numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "text", ports, [result], constants)
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "text.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    ids = RNG.integers(0, WORDS, (12, 9))
    np.savez(path, ids=ids, mask=(np.arange(9) < RNG.integers(3, 10, (12, 1))).astype("i8"))
    return path


def run(model: Path, data: Path, extent: Extent) -> tuple[Report, onnx.ModelProto, list[str]]:
    output = model.with_name("int8.onnx")
    steps = Steps()
    report = quantize(model, data, output, "minmax", steps, extent=extent)
    feed = {"ids": RNG.integers(0, WORDS, (3, 70)), "mask": np.ones((3, 70), "i8")}
    with Session(model, "none") as original, Session(output, "none") as ours:
        wanted, got = original.run(None, feed)[0], ours.run(None, feed)[0]
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()
    return report, onnx.load(output), steps.begun


def source(proto: onnx.ModelProto, node: str, operand: int) -> str:
    """The type of what makes a node's operand, "" for a constant or an input."""
    (name,) = (n.input[operand] for n in proto.graph.node if n.name == node)
    return next((n.op_type for n in proto.graph.node if name in n.output), "")


def reader(proto: onnx.ModelProto, node: str) -> str:
    (name,) = (n.output[0] for n in proto.graph.node if n.name == node)
    return next(n.op_type for n in proto.graph.node if name in n.input)


def test_everything_and_the_card_at_the_data_s_shapes(model: Path, data: Path) -> None:
    report, proto, begun = run(model, data, Extent())
    assert begun == ["calibration", "layers", "outputs", "timing"]
    assert report.samples == 12
    assert 0 < report.on_card <= report.nodes
    assert source(proto, "kept", 0) == "DequantizeLinear"


def test_float_results(model: Path, data: Path) -> None:
    _, proto, _ = run(model, data, Extent(("MatMul",), float_results=("MatMul",)))
    assert source(proto, "words", 0) == ""
    assert source(proto, "layer.first", 0) == "DequantizeLinear"
    assert reader(proto, "layer.first") == "Relu"
    assert reader(proto, "layer.second") == "Mul"


def test_nodes_that_stay(model: Path, data: Path) -> None:
    _, proto, _ = run(model, data, Extent(("Gather", "MatMul"), keep=("*.first",)))
    assert source(proto, "layer.first", 1) == ""
    assert source(proto, "layer.second", 1) == "DequantizeLinear"


def test_smoothing_touches_what_becomes_int8(model: Path, data: Path) -> None:
    extent = Extent(("MatMul",), ("layer.second",), ("MatMul",), smooth=0.5)
    _, proto, begun = run(model, data, extent)
    assert begun[0] == "smoothing"
    assert reader(proto, "words") == "Mul"
    assert reader(proto, "layer.rectify") == "MatMul"


@pytest.mark.parametrize(
    ("extent", "complaint"),
    [
        (Extent(("Gemm",)), "has no Gemm; its operators are Cast, Gather"),
        (Extent(float_results=("Conv",)), "has no Conv"),
        (Extent(keep=("layer.third",)), "no node that is named 'layer.third'"),
    ],
)
def test_words_that_fit_no_node(model: Path, data: Path, extent: Extent, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint.replace("*", r"\*")):
        run(model, data, extent)
    assert not model.with_name("int8.onnx").exists()

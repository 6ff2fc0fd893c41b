# SPDX-License-Identifier: Apache-2.0
"""Placement: segments around what the card lacks, a row and a reason for every node."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from device.compiler import CardSegment, CompiledModel, HostSegment

from .building import Builder
from .running import compile_model, difference


def conv(b: Builder, x: str, name: str, inside: int, outside: int) -> str:
    """A 3x3 convolution of a real tensor; returns the real of its quantized result."""
    w = b.weights(f"{name}_w", (outside, inside, 3, 3), True)
    value = b.node("Conv", [x, w], f"{name}_value", pads=[1, 1, 1, 1])
    b.quantized(value, name, 0.3, output=False)
    return b.again(name)


def kinds(compiled: CompiledModel) -> list[str]:
    return ["card" if isinstance(s, CardSegment) else "host" for s in compiled.segments]


def rows(compiled: CompiledModel) -> dict[str, tuple[str, str]]:
    return {row.node: (row.where, row.reason) for row in compiled.placement}


def check(b: Builder, name: str = "model") -> CompiledModel:
    model = b.model()
    compiled = compile_model(model, name=name)
    assert len(compiled.placement) == len(model.graph.node)
    assert all(row.reason for row in compiled.placement)
    assert [row.op for row in compiled.placement] == [n.op_type for n in model.graph.node]
    assert difference(model, b.feeds, compiled)[0] <= 1
    return compiled


def test_unsupported_operator_in_the_middle() -> None:
    b = Builder()
    value = conv(b, b.dequantized("x", (1, 4, 8, 8)), "first", 4, 6)
    norm = [b.const("scale", np.ones(6, "f4")), b.const("shift", np.zeros(6, "f4"))]
    value = b.node("InstanceNormalization", [value, *norm], "normal")
    b.quantized(value, "normal_q", 0.02, output=False)
    value = conv(b, b.again("normal_q"), "last", 6, 3)
    b.output(value, TensorProto.FLOAT)
    compiled = check(b)
    assert kinds(compiled) == ["card", "host", "card"]
    where = rows(compiled)
    label = "InstanceNormalization_normal"
    assert where[label] == ("onnxruntime", "the card has no InstanceNormalization")
    assert where["Conv_first_value"][0] == where["Conv_last_value"][0] == "card"
    host = compiled.segments[1]
    assert isinstance(host, HostSegment)
    card = compiled.segments[0]
    assert isinstance(card, CardSegment)
    assert [(port.name, port.dtype) for port in card.outputs] == [("first", np.dtype(np.uint8))]
    ops = [node.op_type for node in onnx.load_model_from_string(host.model).graph.node]
    assert ops == ["DequantizeLinear", "InstanceNormalization", "QuantizeLinear"]


def test_branches_join_after_an_unsupported_operator() -> None:
    """One branch leaves the card and comes back; the other waits on it."""
    b = Builder()
    stem = conv(b, b.dequantized("x", (1, 4, 8, 8)), "stem", 4, 4)
    side = b.node("LpNormalization", [stem], "side", axis=1)
    b.quantized(side, "side_q", 0.01, output=False)
    body = conv(b, stem, "body", 4, 4)
    b.quantized(b.node("Add", [body, b.again("side_q")], "sum"), "y", 0.4)
    compiled = check(b)
    assert kinds(compiled) in (["card", "host", "card"],)
    assert rows(compiled)["Add_sum"][0] == "card"


def test_float_result_needed_off_the_card() -> None:
    """The float of a convolution goes to a graph output too, so it is computed in float."""
    b = Builder()
    x, w = b.dequantized("x", (1, 4, 8, 8)), b.weights("w", (6, 4, 3, 3), True)
    b.quantized(b.node("Conv", [x, w], "raw"), "y", 0.3)
    b.output("raw", TensorProto.FLOAT)
    compiled = compile_model(b.model())
    assert kinds(compiled) == ["host"]
    assert "needed in float" in rows(compiled)["Conv_raw"][1]


def test_moves_alone_do_not_leave_onnxruntime() -> None:
    b = Builder()
    value = b.node("LpNormalization", [b.dequantized("x", (2, 3, 4))], "a", axis=1)
    b.quantized(value, "a_q", 0.01, output=False)
    value = b.node("Transpose", [b.again("a_q")], "turned", perm=[0, 2, 1])
    b.quantized(value, "t", 0.01, output=False)
    value = b.node("LpNormalization", [b.again("t")], "b", axis=1)
    b.quantized(value, "y", 0.01)
    compiled = check(b)
    assert kinds(compiled) == ["host"] and compiled.any_shape
    assert "worth" in rows(compiled)["Transpose_turned"][1]


def test_float_model_stays_whole() -> None:
    b = Builder()
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4]))
    b.feeds["x"] = b.rng.normal(0, 1, (3, 4)).astype(np.float32)
    b.node("MatMul", ["x", b.const("w", np.ones((4, 2), "f4"))], "y")
    b.output("y", TensorProto.FLOAT)
    compiled = check(b)
    assert kinds(compiled) == ["host"] and compiled.any_shape and compiled.batchable


def test_subgraph_reads_a_tensor_of_the_card() -> None:
    """An If whose branches take a card's result from outside."""
    b = Builder()
    value = conv(b, b.dequantized("x", (1, 4, 8, 8)), "first", 4, 6)
    branches: dict[str, Any] = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, [value], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
        )
        for name, op in (("then", "Neg"), ("else", "Abs"))
    }
    b.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    b.feeds["flag"] = np.array(True)
    b.node("If", ["flag"], "picked", **branches)
    b.output("picked", TensorProto.FLOAT)
    compiled = check(b)
    assert kinds(compiled) == ["card", "host"]


def test_subgraph_reads_a_float_that_only_the_card_would_have() -> None:
    """What a subgraph takes from outside counts as a reader."""
    b = Builder()
    x, w = b.dequantized("x", (1, 4, 8, 8)), b.weights("w", (6, 4, 3, 3), True)
    b.quantized(b.node("Conv", [x, w], "raw"), "y", 0.3)
    branches: dict[str, Any] = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["raw"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
        )
        for name, op in (("then", "Neg"), ("else", "Abs"))
    }
    b.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    b.feeds["flag"] = np.array(False)
    b.node("If", ["flag"], "picked", **branches)
    b.output("picked", TensorProto.FLOAT)
    compiled = check(b)
    assert kinds(compiled) == ["host"]
    assert "needed in float" in rows(compiled)["Conv_raw"][1]


def test_node_that_nobody_reads() -> None:
    b = Builder()
    conv(b, b.dequantized("x", (1, 4, 8, 8)), "y", 4, 6)
    b.output("y")
    compiled = check(b)
    assert rows(compiled)["DequantizeLinear_y_real"] == (
        "card",
        "nobody reads its result; it is left out",
    )


def test_folded_shapes_reach_onnxruntime() -> None:
    """Shape arithmetic is done when compiled; a node off the card gets its value."""
    b = Builder()
    value = conv(b, b.dequantized("x", (1, 4, 8, 8)), "first", 4, 6)
    shape = b.node("Shape", [value], "shape")
    head = b.node("Gather", [shape, b.const("zero", np.array([0]))], "head")
    target = b.node("Concat", [head, b.const("rest", np.array([-1]))], "target", axis=0)
    value = b.node("CumSum", [value, b.const("axis", np.array(1))], "cumulated")
    b.node("Reshape", [value, target], "flat")
    b.output("flat", TensorProto.FLOAT)
    compiled = check(b)
    assert kinds(compiled) == ["card", "host"]
    assert rows(compiled)["Shape_shape"] == (
        "card",
        "known before any input; computed when the model is compiled",
    )


def test_outputs_of_every_kind() -> None:
    """A constant, an input passed on, a quantized tensor inside the model, and its float."""
    b = Builder()
    x = b.dequantized("x", (1, 4, 8, 8))
    real = conv(b, x, "mid", 4, 6)
    conv(b, real, "y", 6, 5)
    b.output("mid")
    b.output(real, TensorProto.FLOAT)
    b.output("y")
    b.node("Constant", [], "fixed", value_float=3.5)
    b.output("fixed", TensorProto.FLOAT)
    b.node("Identity", ["mid"], "mid_again")
    b.output("mid_again")
    compiled = check(b)
    assert kinds(compiled) == ["card"]
    assert compiled.constants["fixed"] == 3.5


def test_duplicate_quantizers_run_once() -> None:
    b = Builder()
    x = b.dequantized("x", (1, 4, 8, 8))
    w = b.weights("w", (6, 4, 3, 3), True)
    value = b.node("Conv", [x, w], "conv")
    b.quantized(value, "a", 0.3, 5, output=False)
    b.quantized(value, "b", 0.3, 5, output=False)
    b.quantized(b.node("Add", [b.again("a"), b.again("b")], "sum"), "y", 0.6)
    compiled = check(b)
    assert kinds(compiled) == ["card"]
    assert "runs once" in rows(compiled)["QuantizeLinear_b"][1]


def test_two_quantizations_of_one_result() -> None:
    b = Builder()
    x, w = b.dequantized("x", (1, 4, 8, 8)), b.weights("w", (6, 4, 3, 3), True)
    value = b.node("Conv", [x, w], "conv")
    b.quantized(value, "fine", 0.1)
    b.quantized(value, "coarse", 0.4)
    assert kinds(check(b)) == ["card"]


def test_unnamed_nodes_are_called_by_their_output() -> None:
    b = Builder()
    conv(b, b.dequantized("x", (1, 4, 8, 8)), "y", 4, 6)
    b.output("y")
    for node in b.nodes:
        node.ClearField("name")
    assert "Conv_y_value" in rows(check(b))


@pytest.mark.parametrize("size", [0])
def test_empty_tensor(size: int) -> None:
    b = Builder()
    b.quantized(b.node("Sigmoid", [b.dequantized("x", (size, 4))], "v"), "y")
    compiled = compile_model(b.model())
    assert kinds(compiled) == ["host"]
    assert "empty" in rows(compiled)["Sigmoid_v"][1]

# SPDX-License-Identifier: Apache-2.0
"""Signal to noise, agreement, and which layer is to blame."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from device.quantize.accuracy import layer_losses, output_accuracy
from device.session import Session


def model(nodes: list[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    held = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def through_int8(name: str) -> list[onnx.NodeProto]:
    """The round trip of a tensor as onnxruntime.quantization names it."""
    byte = f"{name}_QuantizeLinear_Output"
    return [
        helper.make_node("QuantizeLinear", [name, f"{name}_s", "z"], [byte]),
        helper.make_node(
            "DequantizeLinear", [byte, f"{name}_s", "z"], [f"{name}_DequantizeLinear_Output"]
        ),
    ]


FEEDS = [{"x": np.random.default_rng(seed).uniform(-1, 1, (2, 4)).astype("f4")} for seed in (1, 2)]
FLOAT = [
    helper.make_node("Mul", ["x", "k"], ["a"], "scale"),
    helper.make_node("Relu", ["a"], ["b"], "rectify"),
    helper.make_node("Neg", ["b"], ["y"], "negate"),
]


def test_the_coarse_layer_is_named_first() -> None:
    int8 = model(
        [
            *through_int8("x"),
            helper.make_node("Mul", ["x_DequantizeLinear_Output", "k"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            *through_int8("b"),
            helper.make_node("Neg", ["b_DequantizeLinear_Output"], ["y"]),
        ],
        k=np.float32(2),
        x_s=np.float32(1 / 127),
        b_s=np.float32(0.5),  # four steps for all values
        z=np.uint8(128),
    )
    steps: list[int] = []
    losses = layer_losses(model(FLOAT, k=np.float32(2)), int8, FEEDS, lambda: steps.append(1))
    assert len(steps) == len(FEEDS)
    assert [(loss.node, loss.op) for loss in losses] == [("scale", "Mul+Relu"), ("negate", "Neg")]
    assert losses[0].drop_db > 15
    assert losses[1].drop_db == pytest.approx(0, abs=0.01)
    x = np.concatenate([feed["x"] for feed in FEEDS]).astype("f8")
    exact = np.maximum(2 * x, 0)
    coarse = np.maximum(2 * np.round(x * 127) / 127, 0)
    noise = np.square(np.round(coarse / 0.5) * 0.5 - exact).sum()
    assert losses[0].sqnr_db == pytest.approx(10 * math.log10(np.square(exact).sum() / noise), 0.01)


def test_equal_models_are_exact_and_agree() -> None:
    proto = model(FLOAT, k=np.float32(2)).SerializeToString()
    with Session(proto, "none") as one, Session(proto, "none") as other:
        (row,) = output_accuracy(one, other, FEEDS, lambda: None)
    assert (row.sqnr_db, row.largest_difference, row.top1) == (None, 0.0, 1.0)


def test_agreement_counts_rows() -> None:
    feeds = [{"x": np.array([[4, 3, 2, 1], [1, 2, 3, 4]], "f4")}]
    same = model([helper.make_node("Identity", ["x"], ["y"])])
    other = model([helper.make_node("Mul", ["x", "k"], ["y"])], k=np.array([0.1, 1, 1, 1], "f4"))
    with (
        Session(same.SerializeToString(), "none") as one,
        Session(other.SerializeToString(), "none") as two,
    ):
        (row,) = output_accuracy(one, two, feeds, lambda: None)
    assert row.top1 == 0.5
    assert row.largest_difference == pytest.approx(3.6)

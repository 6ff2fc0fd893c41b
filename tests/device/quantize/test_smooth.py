# SPDX-License-Identifier: Apache-2.0
"""Smoothing changes no result, evens channels out, and keeps what it does not concern."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from device.quantize.smooth import smoothed
from device.session import Session

RNG = np.random.default_rng(3)
SPREAD = np.array([1, 100, 0.01, 1, 0], "f4")  # of the channels; the last is always 0
FEEDS = [{"x": RNG.normal(0, 1, (3, 5)).astype("f4") * SPREAD} for _ in range(4)]
WEIGHTS = {
    "w": RNG.normal(0, 1, (5, 4)).astype("f4"),
    "v": RNG.normal(0, 1, (6, 5)).astype("f4"),
    "b": RNG.normal(0, 1, 6).astype("f4"),
}


def model() -> onnx.ModelProto:
    """Two products of one activation, the weights of the second transposed, and one of two
    activations."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "rectify"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "plain"),
        helper.make_node("Gemm", ["r", "v", "b"], ["z"], "turned", transB=1),
        helper.make_node("Transpose", ["y"], ["t"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["y", "t"], ["q"], "both"),
    ]
    widths: dict[str, int | str] = {"x": 5, "y": 4, "z": 6, "q": "n"}
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in widths.items()
    ]
    held = [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weight(proto: onnx.ModelProto, node: str) -> npt.NDArray[np.float32]:
    (name,) = (n.input[1] for n in proto.graph.node if n.name == node)
    (held,) = (t for t in proto.graph.initializer if t.name == name)
    return numpy_helper.to_array(held)


def test_results_stay_and_each_sample_is_told() -> None:
    steps: list[int] = []
    even = smoothed(model(), FEEDS, 0.8, (), lambda: steps.append(1))
    onnx.checker.check_model(even, full_check=True)
    assert len(steps) == len(FEEDS)
    assert [n.op_type for n in even.graph.node].count("Mul") == 1
    assert {"w", "v"}.isdisjoint(t.name for t in even.graph.initializer)
    with (
        Session(model().SerializeToString(), "none") as before,
        Session(even.SerializeToString(), "none") as after,
    ):
        for feed in FEEDS:
            for wanted, got in zip(before.run(None, feed), after.run(None, feed), strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)


def test_alpha_1_makes_channels_alike() -> None:
    even = smoothed(model(), FEEDS, 1.0, (), lambda: None)
    factor = weight(even, "plain")[:4, 0] / WEIGHTS["w"][:4, 0]
    np.testing.assert_allclose(weight(even, "turned")[0, :4] / WEIGHTS["v"][0, :4], factor, 1e-4)
    largest = np.max([np.maximum(feed["x"], 0).max(axis=0) for feed in FEEDS], axis=0)[:4]
    np.testing.assert_allclose(largest / factor, np.full(4, largest[0] / factor[0]), 1e-4)


@pytest.mark.parametrize("excluded", [{"plain"}, {"plain", "turned"}])
def test_excluded_nodes_keep_their_weights(excluded: set[str]) -> None:
    even = smoothed(model(), FEEDS, 0.5, excluded, lambda: None)
    np.testing.assert_array_equal(weight(even, "plain"), WEIGHTS["w"])
    assert [n.op_type for n in even.graph.node].count("Mul") == 2 - len(excluded)


def test_weights_that_a_branch_reads_as_well_stay() -> None:
    proto = model()
    branches: dict[str, Any] = {
        name: helper.make_graph(
            [helper.make_node("Identity", ["w"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [5, 4])],
        )
        for name in ("then_branch", "else_branch")
    }
    held = numpy_helper.from_array(np.array(True), "c")
    proto.graph.initializer.append(held)
    proto.graph.node.append(helper.make_node("If", ["c"], ["chosen"], "branch", **branches))
    proto.graph.output.append(helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [5, 4]))
    even = smoothed(proto, FEEDS, 0.5, (), lambda: None)
    with Session(even.SerializeToString(), "none") as session:
        np.testing.assert_array_equal(session.run(["chosen"], FEEDS[0])[0], WEIGHTS["w"])

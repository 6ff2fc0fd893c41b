# SPDX-License-Identifier: Apache-2.0
"""ONNX's own tests through its own interface: what onnxruntime passes, a card in front of it
passes too; and the interface itself."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import device.onnx_backend as backend
from device.errors import InputError, ModelError
from device.onnx_backend import TepiBackend

from .conformance.official import cases, host, on_onnxruntime


def spelled(ports: Iterable[Any]) -> list[tuple[str, str, list[Any]]]:
    return [(port.name, port.type, list(port.shape)) for port in ports]


@pytest.mark.parametrize("name", cases())
def test_what_onnxruntime_passes_passes(name: str) -> None:
    case = cases()[name]
    theirs = on_onnxruntime(case)
    if isinstance(theirs, str):
        pytest.skip(f"onnxruntime does not pass it: {theirs}")
    plain = host(case.model)
    rep = TepiBackend.prepare(case.model)
    try:
        assert spelled(rep.session.inputs) == spelled(plain.get_inputs())
        assert spelled(rep.session.outputs) == spelled(plain.get_outputs())
        for (given, expected), same in zip(case.data_sets, theirs, strict=True):
            outputs = rep.run(given)
            case.check(outputs, expected)
            for ours, other in zip(outputs, same, strict=True):
                assert type(ours) is type(other)
                if isinstance(ours, np.ndarray):
                    assert (ours.dtype, ours.shape) == (other.dtype, other.shape)
    finally:
        rep.session.close()


def quantized() -> onnx.ModelProto:
    """float32 [n, 4] -> Q -> DQ, Sigmoid -> float32."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Sigmoid", ["d"], ["g"]),
        helper.make_node("QuantizeLinear", ["g", "t", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "z"], ["y"]),
    ]
    constants = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [0.05]),
        helper.make_tensor("t", TensorProto.FLOAT, [], [0.01]),
        helper.make_tensor("z", TensorProto.UINT8, [], [100]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "sigmoid", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_models_share_one_card() -> None:
    first, second = backend.prepare(quantized()), backend.prepare(quantized())
    assert {row.where for row in first.session.placement} == {"card"}
    assert first.session.card is second.session.card
    x = np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4)
    (expected,) = host(quantized()).run(None, {"x": x})
    np.testing.assert_array_equal(first.run([x])[0], expected)
    np.testing.assert_array_equal(second.run({"x": x})[0], expected)
    np.testing.assert_array_equal(backend.run_model(quantized(), x)[0], expected)


def test_one_operator_runs_by_itself() -> None:
    node = helper.make_node("Add", ["a", "b"], ["c"])
    a, b = np.arange(6, dtype=np.int64).reshape(2, 3), np.array(5)
    (c,) = backend.run_node(node, [a, b])
    np.testing.assert_array_equal(c, a + b)
    (twice,) = backend.run_node(helper.make_node("Add", ["a", "a"], ["c"]), [a])
    np.testing.assert_array_equal(twice, 2 * a)


def test_an_operator_short_of_an_input() -> None:
    node = helper.make_node("Add", ["a", "b"], ["c"])
    with pytest.raises(InputError, match="Add reads a, b, got 1 array"):
        backend.run_node(node, [np.zeros(3, np.float32)])


def test_more_inputs_than_the_model_has() -> None:
    x = np.zeros((1, 4), np.float32)
    with pytest.raises(InputError, match=r"has 1 inputs \(x\), got 2"):
        backend.run_model(quantized(), [x, x])


def test_other_devices_are_refused() -> None:
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA:0")
    with pytest.raises(ValueError, match='"CUDA" is not supported'):
        backend.prepare(quantized(), "CUDA")


def test_a_model_nobody_can_run() -> None:
    model = quantized()
    model.graph.node[2].op_type = "Sigmund"
    with pytest.raises(ModelError, match="Sigmund"):
        backend.prepare(model)

# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models for the tests, made on the spot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR = 9


def model_bytes(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str]]],
    constants: Sequence[onnx.TensorProto] = (),
    opset: int = OPSET,
) -> bytes:
    """A serialized model; tensors are (name, TensorProto type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, t, list(s)) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, list(s)) for n, t, s in outputs],
        list(constants),
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=IR)
    return model.SerializeToString()


def identity(onnx_type: int, shape: Sequence[int | str] = ("n",)) -> bytes:
    """y = x."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return model_bytes([node], [("x", onnx_type, shape)], [("y", onnx_type, shape)])


def add() -> bytes:
    """sum = a + b and difference = a - b, FP32 [batch, 3]."""
    shape = ("batch", 3)
    return model_bytes(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        [("a", TensorProto.FLOAT, shape), ("b", TensorProto.FLOAT, shape)],
        [("sum", TensorProto.FLOAT, shape), ("difference", TensorProto.FLOAT, shape)],
    )


def scale(factor: float) -> bytes:
    """y = factor * x, FP32 [2]."""
    constant = numpy_helper.from_array(np.array([factor], np.float32), "factor")
    return model_bytes(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", TensorProto.FLOAT, (2,))],
        [("y", TensorProto.FLOAT, (2,))],
        [constant],
    )


def quantized_dense(seed: int = 0) -> bytes:
    """An int8 QDQ layer that the card can run whole: FP32 [1, 16] to FP32 [1, 8]."""
    generator = np.random.default_rng(seed)
    weights = generator.integers(-127, 128, (16, 8)).astype(np.int8)

    def constant(name: str, value: npt.NDArray[Any]) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    def scalar(name: str, value: float) -> onnx.TensorProto:
        return constant(name, np.array(value, np.float32))

    zero = constant("zero", np.array(0, np.int8))
    return model_bytes(
        [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "x_scale", "zero"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "zero"], ["wd"]),
            helper.make_node("MatMul", ["xd", "wd"], ["m"]),
            helper.make_node("QuantizeLinear", ["m", "y_scale", "zero"], ["yq"]),
            helper.make_node("DequantizeLinear", ["yq", "y_scale", "zero"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, (1, 16))],
        [("y", TensorProto.FLOAT, (1, 8))],
        [
            constant("w", weights),
            scalar("x_scale", 0.02),
            scalar("w_scale", 0.01),
            scalar("y_scale", 0.05),
            zero,
        ],
    )


def positions(length: int = 16) -> bytes:
    """x, FP32 [batch, sequence, 8], plus a table of `length` positions, quantized on the way."""
    table = np.random.default_rng(0).normal(0, 1, (1, length, 8)).astype(np.float32)
    constants: dict[str, npt.NDArray[Any]] = {
        "table": table,
        "scale": np.array(0.05, np.float32),
        "zero": np.array(0, np.int8),
    }
    nodes = []
    for name in ("x", "table"):
        nodes += [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}q"]),
            helper.make_node("DequantizeLinear", [f"{name}q", "scale", "zero"], [f"{name}d"]),
        ]
    nodes += [
        helper.make_node("Add", ["xd", "tabled"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "scale", "zero"], ["y"]),
    ]
    shape = ("batch", "sequence", 8)
    return model_bytes(
        nodes,
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def put(repository: Path, name: str, model: bytes, config: str = "", version: int = 1) -> Path:
    """Write `<name>/<version>/model.onnx` and config.pbtxt; returns the model's folder."""
    folder = repository / name
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / str(version) / "model.onnx").write_bytes(model)
    if config:
        (folder / "config.pbtxt").write_text(config, "utf-8")
    return folder

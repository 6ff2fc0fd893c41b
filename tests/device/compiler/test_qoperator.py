# SPDX-License-Identifier: Apache-2.0
"""QOperator models: QLinearConv, QLinearMatMul and com.microsoft's quantized operators."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from .building import Builder
from .running import compile_model, difference, off_card

KINDS = pytest.mark.parametrize("kind", ["u8", "s8"])
CHANNELS = pytest.mark.parametrize("channels", [False, True], ids=["tensor", "channel"])
MICROSOFT = "com.microsoft"


def check(b: Builder, worst: int = 0) -> None:
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    apart, count = difference(model, b.feeds, compiled)
    assert apart <= worst, f"{count} values differ by up to {apart} steps"


def triple(b: Builder, name: str, shape: Sequence[int], scale: float | None = None) -> list[str]:
    """A graph input with its scale and zero point."""
    return [b.input(name, shape), *b.parameters(name, scale)]


def weights(b: Builder, shape: Sequence[int], channels: int, kind: str = "s8") -> list[str]:
    """Weights with their scale and zero point; `channels` 0: one scale."""
    count = (channels,) if channels else ()
    if kind == "u8":
        values, zero = b.rng.integers(1, 256, shape, np.uint8), np.full(count, 128, np.uint8)
    else:
        values = b.rng.integers(-127, 128, shape).astype(np.int8)
        zero = np.zeros(count, np.int8)
    scale = b.rng.uniform(0.002, 0.02, count).astype(np.float32)
    return [b.const("w", values), b.const("w_scale", scale), b.const("w_zero", zero)]


def finish(b: Builder, scale: float = 0.3) -> list[str]:
    b.output("y")
    return list(b.parameters("y", scale))


@KINDS
@CHANNELS
@pytest.mark.parametrize("opset", [10, 13, 21])
def test_convolution(kind: str, channels: bool, opset: int) -> None:
    b = Builder(kind, opset)
    x, w = triple(b, "x", (2, 6, 9, 7)), weights(b, (8, 3, 3, 3), 8 if channels else 0)
    bias = b.const("b", b.rng.integers(-5000, 5000, 8).astype(np.int32))
    inputs = [*x, *w, *finish(b), bias]
    b.node("QLinearConv", inputs, "y", group=2, pads=[1, 0, 1, 2], strides=[2, 1])
    check(b)


@CHANNELS
def test_convolution_with_unsigned_weights(channels: bool) -> None:
    b = Builder()
    inputs = [*triple(b, "x", (1, 3, 9, 9)), *weights(b, (8, 3, 3, 3), 0, "u8"), *finish(b)]
    b.node("QLinearConv", inputs, "y")
    check(b)


@KINDS
@CHANNELS
@pytest.mark.parametrize("shape", [(5, 20), (2, 3, 20)], ids=str)
def test_matmul(kind: str, channels: bool, shape: tuple[int, ...]) -> None:
    b = Builder(kind)
    w = weights(b, (20, 7), 7 if channels else 0)
    b.node("QLinearMatMul", [*triple(b, "x", shape), *w, *finish(b)], "y")
    check(b)


@KINDS
@CHANNELS
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.7}], ids=str)
def test_gemm(kind: str, channels: bool, bias: bool, attributes: dict[str, Any]) -> None:
    b = Builder(kind)
    shape = (7, 20) if attributes.get("transB") else (20, 7)
    w = weights(b, shape, 7 if channels else 0)
    c = b.const("c", b.rng.integers(-5000, 5000, 7).astype(np.int32)) if bias else ""
    inputs = [*triple(b, "x", (3, 20)), *w, c, *finish(b)]
    b.node("QGemm", inputs, "y", MICROSOFT, **attributes)
    check(b)


@KINDS
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("second", [(2, 5, 6, 7), (1, 5, 1, 1), (7,)], ids=str)
def test_binary(kind: str, op: str, second: tuple[int, ...]) -> None:
    b = Builder(kind)
    a, c = triple(b, "x", (2, 5, 6, 7)), triple(b, "z", second)
    b.node(op, [*a, *c, *finish(b, 0.03)], "y", MICROSOFT)
    check(b)


@KINDS
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("QLinearSigmoid", {}),
        ("QLinearLeakyRelu", {"alpha": 0.3}),
        ("QLinearGlobalAveragePool", {}),
        ("QLinearAveragePool", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("QLinearSoftmax", {"axis": 1, "opset": 17}),
        ("QLinearSoftmax", {"axis": 2, "opset": 11}),
    ],
    ids=str,
)
def test_unary(kind: str, op: str, attributes: dict[str, Any]) -> None:
    b = Builder(kind)
    inputs = [*triple(b, "x", (2, 5, 6, 7)), *finish(b, 0.011)]
    b.node(op, inputs, "y", MICROSOFT, **attributes)
    check(b, worst=1 if op == "QLinearAveragePool" else 0)


@KINDS
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat(kind: str, axis: int) -> None:
    b = Builder(kind)
    parts = [name for i in range(3) for name in triple(b, f"x{i}", (2, 3, 4))]
    b.node("QLinearConcat", [*finish(b, 0.03), *parts], "y", MICROSOFT, axis=axis)
    check(b)


@KINDS
def test_chain(kind: str) -> None:
    """From float through convolution, quantized pool, reshape and matrix product to float."""
    b = Builder(kind)
    b.inputs.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8]))
    b.feeds["image"] = b.rng.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    x = b.parameters("x", 0.03)
    b.node("QuantizeLinear", ["image", *x], "x")
    mid = b.parameters("mid", 0.3)
    b.node("QLinearConv", ["x", *x, *weights(b, (8, 3, 3, 3), 8), *mid], "mid")
    b.node("MaxPool", ["mid"], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    b.node("Reshape", ["pooled", b.const("shape", np.array([1, -1]))], "rows")
    v = b.const("v", b.rng.integers(-127, 128, (72, 10)).astype(np.int8))
    y = b.parameters("y", 2.0)
    inputs = ["rows", *mid, v, b.const("v_scale", np.float32(0.01)), b.const("v_zero", np.int8(0))]
    b.node("QLinearMatMul", [*inputs, *y], "y")
    b.node("DequantizeLinear", ["y", *y], "scores")
    b.output("scores", TensorProto.FLOAT)
    check(b)


def test_parameters_that_are_not_constant_stay_on_onnxruntime() -> None:
    b = Builder()
    b.inputs.append(helper.make_tensor_value_info("x_scale", TensorProto.FLOAT, []))
    b.feeds["x_scale"] = np.array(0.02, np.float32)
    x = [b.input("x", (1, 3, 5, 5)), "x_scale", b.const("x_zero", np.uint8(7))]
    b.node("QLinearConv", [*x, *weights(b, (4, 3, 3, 3), 4), *finish(b)], "y")
    compiled = compile_model(b.model())
    assert [row.where for row in compiled.placement] == ["onnxruntime"]
    assert difference(b.model(), b.feeds, compiled) == (0, 0)

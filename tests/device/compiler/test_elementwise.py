# SPDX-License-Identifier: Apache-2.0
"""Add, Mul, tables, pools and Softmax against onnxruntime."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.compiler.elementwise import fused

from .building import Builder, unary
from .running import compile_model, difference, off_card

KINDS = pytest.mark.parametrize("kind", ["u8", "s8"])


def check(b: Builder, worst: int = 0) -> None:
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    apart, count = difference(model, b.feeds, compiled)
    assert apart <= worst, f"{count} values differ by up to {apart} steps"


def binary(
    op: str,
    kind: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    constant: int | None = None,
    seed: int = 0,
) -> Builder:
    """Both operands graph inputs, but for the one numbered `constant`."""
    b = Builder(kind, seed=seed)
    reals = []
    for index, shape in enumerate(shapes):
        name = f"x{index}"
        if index == constant:
            b.const(name, b.bytes(shape))
            inputs = (name, *b.parameters(name))
            reals.append(b.node("DequantizeLinear", inputs, f"{name}_real"))
        else:
            reals.append(b.dequantized(name, shape))
    b.quantized(b.node(op, reals, "value"), "y", float(b.rng.uniform(0.02, 0.06)))
    return b


@KINDS
@pytest.mark.parametrize("op", ["Add", "Mul"])
@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 5, 6, 7), (2, 5, 6, 7)),
        ((2, 5, 6, 7), (1, 5, 1, 1)),
        ((1, 5, 1, 1), (2, 5, 6, 7)),
        ((2, 5, 6, 7), (5, 1, 1)),
        ((2, 5, 6, 7), (7,)),
        ((7,), (2, 5, 6, 7)),
        ((4, 1), (1, 6)),
        ((2, 5, 6, 7), (1,)),
        ((1,), (2, 5, 6, 7)),
        ((2, 3, 4, 5, 6), (3, 1, 5, 1)),
        ((1, 1, 4, 1, 6), (2, 3, 4, 5, 1)),
        ((3,), (3,)),
        ((2, 17), (17,)),
    ],
    ids=str,
)
@pytest.mark.parametrize("constant", [None, 0, 1])
def test_binary(
    op: str, kind: str, shapes: tuple[tuple[int, ...], tuple[int, ...]], constant: int | None
) -> None:
    check(binary(op, kind, shapes, constant))


@pytest.mark.parametrize("op", ["Add", "Mul"])
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["u8", "s8"]))
@settings(max_examples=40, deadline=None)
def test_binary_over_scales(op: str, seed: int, kind: str) -> None:
    check(binary(op, kind, ((64, 64), (64, 64)), seed=seed))


@KINDS
def test_add_behind_convolutions(kind: str) -> None:
    """Channels last on both sides, one operand broadcast from a pooled branch."""
    b = Builder(kind)
    b.input("x", (1, 6, 8, 8))
    parameters = b.parameters("x")
    x = b.node("DequantizeLinear", ("x", *parameters), "x_real")
    w = b.weights("w", (20, 6, 3, 3), True)
    b.quantized(b.node("Conv", [x, w], "conv", pads=[1, 1, 1, 1]), "body", 0.3, output=False)
    body = b.again("body")
    pool = b.quantized(b.node("GlobalAveragePool", [body], "pool"), "gate", 0.1, output=False)
    gate = b.again(pool)
    b.quantized(b.node("Mul", [gate, body], "scaled"), "scaled_q", 0.4, output=False)
    b.quantized(b.node("Add", [b.again("scaled_q"), body], "sum"), "y", 0.5)
    check(b, worst=1 if kind == "s8" else 0)  # onnxruntime computes int8 in float here


FUNCTIONS: list[tuple[str, dict[str, Any]]] = [
    ("Relu", {}),
    ("LeakyRelu", {"alpha": 0.2}),
    ("HardSwish", {}),
    ("HardSigmoid", {"alpha": 0.17}),
    ("Sigmoid", {}),
    ("Tanh", {}),
    ("Elu", {}),
    ("Erf", {}),
    ("Exp", {}),
    ("Abs", {}),
    ("Neg", {}),
    ("Softplus", {}),
]


@KINDS
@pytest.mark.parametrize(("op", "attributes"), FUNCTIONS, ids=[op for op, _ in FUNCTIONS])
@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 4, 8, 8), (256,)], ids=str)
def test_table(kind: str, op: str, attributes: dict[str, Any], shape: tuple[int, ...]) -> None:
    check(unary(op, shape, kind, **attributes))


@KINDS
def test_clips(kind: str) -> None:
    bounds = {"lo": np.float32(-0.5), "hi": np.float32(1)}
    check(unary("Clip", (64,), kind, bounds))
    check(unary("Clip", (64,), kind, {"lo": None, "hi": np.float32(1)}))
    check(unary("Clip", (64,), kind, opset=10, min=-0.5, max=0.7))


@KINDS
def test_island_of_several_operators(kind: str) -> None:
    """x * sigmoid(1.7 * x) + 0.25 with nothing quantized in between."""
    b = Builder(kind)
    x = b.dequantized("x", (3, 100))
    steep = b.node("Mul", [x, b.const("steep", np.float32(1.7))], "steeper")
    value = b.node("Mul", [x, b.node("Sigmoid", [steep], "gate")], "swish")
    value = b.node("Add", [value, b.const("lift", np.array([0.25], np.float32))], "lifted")
    b.quantized(value, "y", 0.02)
    check(b, worst=1)


@KINDS
@pytest.mark.parametrize("op", ["HardSwish", "Sigmoid", "Relu"])
def test_table_after_convolution(kind: str, op: str) -> None:
    """The convolution applies the table as it stores."""
    b = Builder(kind)
    x, w = b.dequantized("x", (1, 6, 8, 8)), b.weights("w", (8, 6, 3, 3), True)
    value = b.node("Conv", [x, w], "conv", pads=[1, 1, 1, 1])
    b.quantized(value, "mid", 0.3, output=False)
    b.quantized(b.node(op, [b.again("mid")], "value"), "y", 0.05)
    check(b)


@KINDS
def test_requantize(kind: str) -> None:
    b = Builder(kind)
    b.quantized(b.dequantized("x", (3, 4)), "y", 0.05)
    check(b)


POOLS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 9, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 17, 8, 9), {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 5, 8, 9), {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 3, 19), {"kernel_shape": [3], "strides": [2]}),
]


@KINDS
@pytest.mark.parametrize(("shape", "attributes"), POOLS, ids=str)
@pytest.mark.parametrize("same", [False, True], ids=["requantized", "same"])
def test_maxpool(kind: str, shape: tuple[int, ...], attributes: dict[str, Any], same: bool) -> None:
    check(unary("MaxPool", shape, kind, same=same, **attributes))


@KINDS
def test_maxpool_dilated(kind: str) -> None:
    check(unary("MaxPool", (1, 3, 9, 9), kind, kernel_shape=[3, 3], dilations=[2, 2]))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_ceiling_as_onnxruntime_counts(op: str) -> None:
    """The last window would start behind the image: ONNX's inference counts it, onnxruntime does
    not; twice in a row, so that the second pool sees the first one's size."""
    b = Builder()
    more: dict[str, Any] = {"kernel_shape": [1, 2], "strides": [2, 3], "ceil_mode": 1}
    value = b.node(op, [b.dequantized("x", (1, 3, 8, 9))], "first", **more)
    b.quantized(value, "mid", 0.02, output=False)
    b.quantized(b.node(op, [b.again("mid")], "second", **more), "y", 0.02)
    check(b, worst=2 if op == "AveragePool" else 0)


def test_window_without_a_pixel_is_refused() -> None:
    b = Builder()
    more: dict[str, Any] = {"kernel_shape": [2], "dilations": [5], "pads": [3, 3]}
    b.quantized(b.node("MaxPool", [b.dequantized("x", (1, 3, 2))], "v", **more), "y")
    row = next(row for row in compile_model(b.model()).placement if row.op == "MaxPool")
    assert (row.where, row.reason) == (
        "onnxruntime",
        "a window of it lies wholly in the padding",
    )


@KINDS
def test_maxpool_of_quantized_tensors(kind: str) -> None:
    """Without DequantizeLinear and QuantizeLinear around it."""
    b = Builder(kind)
    b.input("x", (1, 3, 9, 9))
    b.node("MaxPool", ["x"], "y", kernel_shape=[3, 3], strides=[2, 2])
    b.output("y")
    check(b)


@KINDS
@pytest.mark.parametrize(("shape", "attributes"), POOLS, ids=str)
@pytest.mark.parametrize("same", [False, True], ids=["requantized", "same"])
@pytest.mark.parametrize("include", [0, 1])
def test_average_pool(
    kind: str, shape: tuple[int, ...], attributes: dict[str, Any], same: bool, include: int
) -> None:
    """onnxruntime sums float32, so that a mean half way between steps may round the other way."""
    check(unary("AveragePool", shape, kind, same=same, count_include_pad=include, **attributes), 1)


@KINDS
@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (1, 40, 7, 7), (2, 3, 9)], ids=str)
def test_global_average_pool(kind: str, shape: tuple[int, ...]) -> None:
    check(unary("GlobalAveragePool", shape, kind))


@KINDS
@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
@pytest.mark.parametrize("opset", [12, 13, 17])
def test_softmax(kind: str, axis: int, opset: int) -> None:
    check(unary("Softmax", (2, 3, 4, 5), kind, axis=axis, opset=opset))


@KINDS
def test_softmax_of_many_classes(kind: str) -> None:
    b = Builder(kind)
    x = b.dequantized("x", (2, 1000), 0.1)
    low = 0 if kind == "u8" else -128
    b.quantized(b.node("Softmax", [x], "p"), "y", 1 / 256, low)
    check(b)


@KINDS
def test_softmax_along_channels_of_an_image(kind: str) -> None:
    b = Builder(kind)
    x, w = b.dequantized("x", (1, 4, 6, 6)), b.weights("w", (5, 4, 1, 1), True)
    b.quantized(b.node("Conv", [x, w], "conv"), "mid", 0.3, output=False)
    b.quantized(b.node("Softmax", [b.again("mid")], "p", axis=1), "y", 1 / 200)
    check(b)


def test_fused_rounds_once() -> None:
    """Against exact fractions; the small integers among the values make ties."""
    chance = np.random.default_rng(0)
    small = chance.integers(-300, 300, (3, 4000)) * 2.0 ** chance.integers(-30, 30, (3, 4000))
    wide = chance.normal(0, 1, (3, 4000)) * 2.0 ** chance.integers(-60, 60, (3, 4000))
    values = np.concatenate([small, wide], axis=1).astype(np.float32)
    # a product that c almost, or just, takes away again
    values[2, ::5] = -(values[0, ::5] * values[1, ::5])
    found = fused(*values)
    for a, b, c, got in zip(*values, found, strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        unit = Fraction(2) ** max(math.frexp(float(exact))[1] - 24, -149)
        assert float(got) == float(round(exact / unit) * unit)

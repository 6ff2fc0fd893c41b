# SPDX-License-Identifier: Apache-2.0
"""MatMul of two activations, LayerNormalization, and the attention around them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .building import Builder
from .running import codes, compile_model, difference, off_card

KINDS = pytest.mark.parametrize("kind", ["u8", "s8"])
FORMS = pytest.mark.parametrize("qoperator", [False, True], ids=["qdq", "qoperator"])


def check(b: Builder, worst: int = 0) -> int:
    """How many values differ from onnxruntime's, at most by `worst` steps."""
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    apart, count = difference(model, b.feeds, compiled)
    assert apart <= worst, f"{count} values differ by up to {apart} steps"
    return count


SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((5, 7), (7, 9)),
    ((2, 5, 7), (2, 7, 9)),
    ((2, 5, 7), (1, 7, 9)),
    ((1, 5, 7), (2, 7, 9)),
    ((2, 3, 17, 20), (2, 3, 20, 33)),
    ((2, 3, 17, 20), (1, 3, 20, 33)),
    ((2, 1, 17, 20), (1, 3, 20, 33)),
    ((17, 20), (2, 3, 20, 33)),
    ((3, 17, 20), (20, 33)),
    ((1, 64), (64, 1)),
]


def product(
    kind: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    qoperator: bool,
    constant: bool = False,
    seed: int = 0,
) -> Builder:
    b = Builder(kind, seed=seed)
    if constant:
        b.const("a", b.bytes(shapes[0]))
    else:
        b.input("a", shapes[0])
    b.input("b", shapes[1])
    first, second = ("a", *b.parameters("a")), ("b", *b.parameters("b"))
    scale = 0.03 * float(np.sqrt(shapes[0][-1]))
    if qoperator:
        b.node("QLinearMatMul", [*first, *second, *b.parameters("y", scale)], "y")
        b.output("y")
        return b
    real = [b.node("DequantizeLinear", triple, f"{triple[0]}_real") for triple in (first, second)]
    b.quantized(b.node("MatMul", real, "value"), "y", scale)
    return b


@KINDS
@FORMS
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul(
    kind: str, qoperator: bool, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    check(product(kind, shapes, qoperator), worst=1 if kind == "s8" else 0)


@KINDS
@FORMS
def test_matmul_of_a_constant_by_an_activation(kind: str, qoperator: bool) -> None:
    shapes = (3, 17, 20), (3, 20, 9)
    check(product(kind, shapes, qoperator, constant=True), worst=1 if kind == "s8" else 0)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_matmul_over_scales(seed: int) -> None:
    check(product("u8", ((4, 32, 40), (4, 40, 24)), qoperator=True, seed=seed))


@KINDS
def test_clamped_and_scaled_product(kind: str) -> None:
    """A Relu becomes the clamp of the product, and a scalar Mul its table."""
    b = Builder(kind)
    x, y = b.dequantized("x", (2, 8, 12)), b.dequantized("z", (2, 12, 8))
    value = b.node("Relu", [b.node("MatMul", [x, y], "product")], "positive")
    b.quantized(value, "scores", 0.2, output=False)
    half = ("half", *b.parameters("half", 0.002, 0))
    b.const("half", np.array(90, b.bytes(()).dtype))
    scaled = [b.again("scores"), b.node("DequantizeLinear", half, "half_real")]
    b.quantized(b.node("Mul", scaled, "scaled"), "y", 0.04)
    assert codes(b.model()).count("matmul") == 1 and "mul" not in codes(b.model())
    check(b, worst=1 if kind == "s8" else 0)


def test_sums_that_could_leave_32_bits_stay_on_onnxruntime() -> None:
    compiled = compile_model(product("u8", ((1, 140_000), (140_000, 1)), qoperator=True).model())
    (row,) = (row for row in compiled.placement if row.op == "QLinearMatMul")
    assert (row.where, row.reason) == ("onnxruntime", "its sums could leave 32 bits")


def norm(kind: str, shape: tuple[int, ...], seed: int = 0, **more: Any) -> Builder:
    """`bias`, `quantized`, `epsilon`, `scale`."""
    b = Builder(kind, seed=seed)
    x = b.dequantized("x", shape, more.get("scale"))
    inputs = [x, b.const("gamma", b.rng.normal(1, 0.3, shape[-1:]).astype(np.float32))]
    if more.get("quantized"):
        inputs[1] = b.weights("gamma8", shape[-1:], channels=False)
    if more.get("bias", True):
        inputs.append(b.const("beta", b.rng.normal(0, 0.5, shape[-1:]).astype(np.float32)))
    epsilon = more.get("epsilon", 1e-5)
    value = b.node("LayerNormalization", inputs, "value", axis=-1, epsilon=epsilon)
    b.quantized(value, "y", 0.02)
    return b


@KINDS
@pytest.mark.parametrize("shape", [(2, 3, 96), (5, 384), (1, 2, 3, 17), (4, 1)], ids=str)
@pytest.mark.parametrize(
    "more",
    [{}, {"bias": False}, {"quantized": True}, {"epsilon": 0.5}, {"scale": 1e-4}],
    ids=str,
)
def test_layer_normalization(kind: str, shape: tuple[int, ...], more: dict[str, Any]) -> None:
    check(norm(kind, shape, **more), worst=1)


def test_layer_normalization_seldom_differs() -> None:
    """From onnxruntime, which sums and divides in float32."""
    assert (
        sum(check(norm("u8", (64, 384), seed), worst=1) for seed in range(8)) < 64 * 384 * 8 / 500
    )


def test_layer_normalization_over_two_axes_stays_on_onnxruntime() -> None:
    b = Builder()
    gamma = b.const("gamma", np.ones((3, 4), np.float32))
    x = b.dequantized("x", (2, 3, 4))
    b.quantized(b.node("LayerNormalization", [x, gamma], "value", axis=1), "y")
    (row,) = (r for r in compile_model(b.model()).placement if r.op == "LayerNormalization")
    assert row.where == "onnxruntime"
    assert row.reason == "it normalizes over more than the last axis"


def test_layer_normalization_beyond_the_integer_one_is_float_work() -> None:
    """An epsilon of 0 has no place in the integer instruction."""
    b = Builder()
    gamma = b.const("gamma", np.ones(24, np.float32))
    x = b.dequantized("x", (2, 3, 24))
    b.quantized(b.node("LayerNormalization", [x, gamma], "value", epsilon=0.0), "y")
    assert "vector" in codes(b.model())
    check(b, worst=1)


def attention(
    kind: str, batch: int, tokens: int, heads: int, depth: int, twice: bool = False
) -> Builder:
    """Self-attention as exporters write it; `twice`: keys transposed in two steps."""
    b = Builder(kind)
    width = heads * depth
    b.input("x", (batch, tokens, width))
    x = b.node("DequantizeLinear", ("x", *b.parameters("x", 0.03)), "x_real")
    parts: dict[str, str] = {}
    for name in ("q", "k", "v"):
        w = b.weights(f"w{name}", (width, width), channels=False)
        b.quantized(b.node("MatMul", [x, w], f"{name}_rows"), f"{name}8", 0.4, output=False)
        shape = b.const(f"{name}_shape", np.array([batch, tokens, heads, depth]))
        apart = b.node("Reshape", [b.again(f"{name}8"), shape], f"{name}_apart")
        order = [0, 2, 3, 1] if name == "k" and not twice else [0, 2, 1, 3]
        parts[name] = b.node("Transpose", [apart], f"{name}_heads", perm=order)
    if twice:
        parts["k"] = b.node("Transpose", [parts["k"]], "k_turned", perm=[0, 1, 3, 2])
    b.quantized(b.node("MatMul", [parts["q"], parts["k"]], "dots"), "scores", 4.0, output=False)
    shares = b.node("Softmax", [b.again("scores")], "shares", axis=-1)
    b.quantized(shares, "shares8", 1 / 255, 0 if kind == "u8" else -128, output=False)
    b.quantized(
        b.node("MatMul", [b.again("shares8"), parts["v"]], "mixed"), "mixed8", 0.3, output=False
    )
    joined = b.node("Transpose", [b.again("mixed8")], "mixed_rows", perm=[0, 2, 1, 3])
    shape = b.const("joined_shape", np.array([batch, tokens, width]))
    joined = b.node("Reshape", [joined, shape], "joined")
    b.quantized(b.node("MatMul", [joined, b.weights("wo", (width, 24), False)], "o"), "y", 2.0)
    return b


@KINDS
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("twice", [False, True])
def test_attention(kind: str, batch: int, twice: bool) -> None:
    """No byte is copied but at the edges."""
    b = attention(kind, batch, tokens=10, heads=3, depth=16, twice=twice)
    found = codes(b.model())
    assert found.count("matmul") == 2 and found.count("map") == 2
    check(b, worst=2 if kind == "s8" else 0)


@pytest.mark.parametrize("depth", [5, 20])
def test_attention_of_odd_depth(depth: int) -> None:
    check(attention("u8", 2, tokens=7, heads=4, depth=depth))


@KINDS
def test_gelu_in_quantized_steps_is_one_table(kind: str) -> None:
    """x / 2 * (1 + Erf(x / sqrt 2)), each step quantized, behind a Gemm that applies it."""
    b = Builder(kind)
    x, w = b.dequantized("x", (6, 20)), b.weights("w", (20, 48), False)
    b.quantized(b.node("MatMul", [x, w], "rows"), "rows8", 0.02, output=False)
    shape = b.const("shape", np.array([1, 6, 48]))
    b.quantized(b.node("Reshape", [b.again("rows8"), shape], "cube"), "cube8", 0.02, output=False)

    def step(op: str, value: str, factor: float | None, name: str, scale: float) -> str:
        operands = [value]
        if factor is not None:
            zero = 0 if kind == "u8" else -128
            b.const(name, np.array(127, b.bytes(()).dtype))
            constant = (name, *b.parameters(name, factor / (127 - zero), zero))
            operands.append(b.node("DequantizeLinear", constant, f"{name}_real"))
        b.quantized(b.node(op, operands, f"{name}_value"), f"{name}8", scale, output=False)
        return b.again(f"{name}8")

    cube = b.again("cube8")
    erf = step("Erf", step("Mul", cube, 0.7071, "steep", 0.015), None, "erf", 0.01)
    halves = step("Mul", cube, 0.5, "half", 0.01)
    gelu = b.node("Mul", [halves, step("Add", erf, 1.0, "lift", 0.01)], "gelu")
    b.quantized(gelu, "y", 0.012)
    assert codes(b.model()) == ["map", "conv", "map"]
    check(b, worst=1 if kind == "s8" else 0)


@pytest.mark.parametrize(
    ("shapes", "batchable"),
    [
        (((4, 5, 7), (4, 7, 9)), True),
        (((4, 2, 5, 7), (4, 2, 7, 9)), True),
        (((4, 4), (4, 4)), False),
        (((4, 5, 7), (1, 7, 9)), False),
    ],
    ids=str,
)
def test_a_batch_of_sequences_runs_item_by_item(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], batchable: bool
) -> None:
    compiled = compile_model(product("u8", shapes, qoperator=False).model())
    assert compiled.batchable is batchable

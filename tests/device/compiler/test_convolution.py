# SPDX-License-Identifier: Apache-2.0
"""Conv, Gemm and MatMul: every value equal to onnxruntime's, over shapes, types and geometry."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from .building import Builder
from .running import compile_model, difference, off_card

KINDS = pytest.mark.parametrize("kind", ["u8", "s8"])
CHANNELS = pytest.mark.parametrize("channels", [False, True], ids=["tensor", "channel"])


def check(b: Builder, worst: int = 0) -> None:
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    apart, count = difference(model, b.feeds, compiled)
    assert apart <= worst, f"{count} values differ by up to {apart} steps"


def conv(
    kind: str,
    channels: bool,
    x: tuple[int, ...],
    w: tuple[int, ...],
    bias: bool = True,
    seed: int = 0,
    scale: float = 0.3,
    **attributes: Any,
) -> Builder:
    b = Builder(kind, seed=seed)
    inputs = [b.dequantized("x", x), b.weights("w", w, channels)]
    if bias:
        inputs.append(b.bias("b", w[0], "x", "w"))
    b.quantized(b.node("Conv", inputs, "conv", **attributes), "y", scale)
    return b


@KINDS
@CHANNELS
@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ((1, 3, 9, 7), (8, 3, 1, 1), {}),
        ((1, 5, 9, 7), (8, 5, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((2, 20, 9, 7), (8, 10, 3, 3), {"group": 2, "strides": [2, 1], "pads": [0, 1, 2, 3]}),
        ((1, 4, 12, 11), (6, 4, 3, 2), {"dilations": [2, 3]}),
        ((1, 16, 9, 7), (16, 1, 3, 3), {"group": 16, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((1, 8, 8, 8), (16, 1, 5, 5), {"group": 8, "auto_pad": "SAME_LOWER"}),
        ((1, 5, 8, 8), (4, 5, 3, 3), {"auto_pad": "VALID"}),
        ((3, 6, 19), (8, 6, 4), {"strides": [2]}),
        ((1, 6, 19), (8, 6, 4), {"auto_pad": "SAME_LOWER"}),
        ((1, 6, 19), (6, 1, 3), {"group": 6, "pads": [0, 2], "dilations": [2]}),
    ],
)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
def test_conv(
    kind: str,
    channels: bool,
    x: tuple[int, ...],
    w: tuple[int, ...],
    attributes: dict[str, Any],
    bias: bool,
) -> None:
    check(conv(kind, channels, x, w, bias, **attributes))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_conv_of_any_geometry(data: st.DataObject) -> None:
    draw = data.draw
    rank = draw(st.integers(1, 2), "rank")

    def sizes(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    kernel, stride, dilation = sizes(1, 4), sizes(1, 3), sizes(1, 3)
    before, after, extra = sizes(0, 3), sizes(0, 3), sizes(0, 6)
    groups = draw(st.integers(1, 3), "groups")
    inside = draw(st.integers(1, 18), "channels of a group")
    outside = draw(st.integers(1, 9), "outputs of a group")
    size = [
        max((k - 1) * d + 1 - p - q, 1) + e
        for k, d, p, q, e in zip(kernel, dilation, before, after, extra, strict=True)
    ]
    x = (draw(st.integers(1, 2), "batch"), groups * inside, *size)
    attributes: dict[str, Any] = {"group": groups, "strides": stride, "dilations": dilation}
    if draw(st.booleans(), "automatic padding"):
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
        attributes["dilations"] = [1] * rank  # onnxruntime refuses others beside SAME
    else:
        attributes["pads"] = [*before, *after]
    w = (groups * outside, inside, *kernel)
    kind, channels = draw(st.sampled_from(["u8", "s8"])), draw(st.booleans(), "per channel")
    check(conv(kind, channels, x, w, seed=draw(st.integers(0, 99)), **attributes))


@KINDS
@CHANNELS
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    ("attributes", "bias"),
    [
        ({}, True),
        ({}, False),
        ({"transB": 1}, True),
        ({"alpha": 0.7}, False),
        ({"transB": 1, "alpha": 2.5}, False),
        ({"transA": 1}, True),
        ({"transA": 1, "transB": 1, "alpha": 0.7}, False),
    ],
    ids=str,
)
def test_gemm(kind: str, channels: bool, rows: int, attributes: dict[str, Any], bias: bool) -> None:
    b = Builder(kind)
    across = attributes.get("transB", 0)
    shape = (7, 20) if across else (20, 7)
    x = b.dequantized("x", (20, rows) if attributes.get("transA", 0) else (rows, 20))
    inputs = [x, b.weights("w", shape, channels, 0 if across else 1)]
    if bias:
        inputs.append(b.bias("b", 7, "x", "w"))
    b.quantized(b.node("Gemm", inputs, "gemm", **attributes), "y", 0.3)
    check(b)


def test_gemm_that_transposes_what_stays_float() -> None:
    """Off the card it is one Gemm again, whichever of its matrices is known."""
    for first, second in (("x", "w"), ("w", "x")):
        b = Builder()
        b.dequantized("x", (20, 7))
        b.const("w", b.rng.normal(0, 1, (20, 7)).astype(np.float32))
        names = [{"x": "x_real"}.get(name, name) for name in (first, second)]
        b.quantized(b.node("Gemm", names, "gemm", transA=1), "y", 0.3)
        compiled = compile_model(b.model())
        assert ("Gemm_gemm", "Gemm") in [row[:2] for row in off_card(compiled)]
        assert difference(b.model(), b.feeds, compiled) == (0, 0)


@KINDS
@CHANNELS
@pytest.mark.parametrize("shape", [(1, 33), (5, 16), (2, 3, 33), (2, 2, 3, 8)], ids=str)
def test_matmul(kind: str, channels: bool, shape: tuple[int, ...]) -> None:
    b = Builder(kind)
    inputs = [b.dequantized("x", shape), b.weights("w", (shape[-1], 17), channels, axis=1)]
    b.quantized(b.node("MatMul", inputs, "product"), "y", 0.3)
    check(b)


@KINDS
@pytest.mark.parametrize("clamp", ["Relu", "Clip"])
def test_clamp_that_cuts(kind: str, clamp: str) -> None:
    """A Relu or Clip that the quantization does not imply; onnxruntime computes it in float."""
    b = Builder(kind)
    x, w = b.dequantized("x", (1, 6, 9, 9)), b.weights("w", (8, 6, 3, 3), True)
    value = b.node("Conv", [x, w, b.bias("b", 8, "x", "w")], "conv")
    bounds = [b.const("lo", np.float32(-30)), b.const("hi", np.float32(20))]
    value = b.node(clamp, [value, *(bounds if clamp == "Clip" else [])], "clamped")
    b.quantized(value, "y", 0.4)
    check(b, worst=1)


@pytest.mark.parametrize("opset", [10, 13, 17, 21])
def test_chain_with_clamp_by_attribute(opset: int) -> None:
    b = Builder(opset=opset)
    x, w = b.dequantized("x", (1, 6, 9, 9)), b.weights("w", (8, 6, 1, 1), False)
    value = b.node("Conv", [x, w], "conv")
    if opset == 10:
        value = b.node("Clip", [value], "clip", min=0.0, max=6.0)
    b.quantized(value, "mid", 0.3, output=False)
    b.quantized(b.node("MaxPool", [b.again("mid")], "pool", kernel_shape=[2, 2]), "y", 0.3, 100)
    check(b, worst=1 if opset == 10 else 0)


def test_unsigned_weights() -> None:
    """uint8 weights whose distance from their zero point fits int8."""
    b = Builder()
    x = b.dequantized("x", (1, 6, 5, 5))
    values = b.rng.integers(10, 230, (4, 6, 3, 3), np.uint8)
    inputs = (
        b.const("w", values),
        b.const("w_scale", np.float32(0.01)),
        b.const("w_zero", np.uint8(120)),
    )
    w = b.node("DequantizeLinear", inputs, "w_real")
    b.quantized(b.node("Conv", [x, w], "conv"), "y", 0.2)
    check(b)


def test_weights_quantized_when_compiled() -> None:
    """float weights behind QuantizeLinear and DequantizeLinear, transposed, as exporters write."""
    b = Builder()
    x = b.dequantized("x", (3, 12))
    scale, zero = b.const("w_scale", np.float32(0.01)), b.const("w_zero", np.int8(0))
    b.const("w", b.rng.normal(0, 0.4, (5, 12)).astype(np.float32))
    b.node("QuantizeLinear", ("w", scale, zero), "w_int8")
    b.node("DequantizeLinear", ("w_int8", scale, zero), "w_real")
    w = b.node("Transpose", ("w_real",), "w_turned", perm=[1, 0])
    b.quantized(b.node("MatMul", [x, w], "product"), "y", 0.1)
    check(b)


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.9999, 1.0001, 1.01, 1.5, 30.0])
@CHANNELS
def test_bias_with_a_scale_of_its_own(factor: float, channels: bool) -> None:
    b = conv("u8", channels, (1, 6, 5, 5), (7, 6, 3, 3))
    for tensor in b.initializers:
        if tensor.name == "b_scale":
            scale = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(scale, np.float32), "b_scale"))
    check(b, worst=0 if abs(factor - 1) < 0.012 else 1)


@KINDS
@CHANNELS
@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul", "MatMul3"])
def test_float_bias(kind: str, channels: bool, op: str) -> None:
    """onnxruntime rounds it to int32 where it optimizes the model."""
    b = Builder(kind)
    bias = b.const("b", b.rng.normal(0, 2, 7).astype(np.float32))
    if op == "Conv":
        inputs = [b.dequantized("x", (1, 6, 5, 5)), b.weights("w", (7, 6, 3, 3), channels), bias]
        value = b.node("Conv", inputs, "value")
    elif op == "Gemm":
        inputs = [b.dequantized("x", (3, 20)), b.weights("w", (20, 7), channels, 1), bias]
        value = b.node("Gemm", inputs, "value")
    else:
        shape = (2, 3, 20) if op == "MatMul3" else (3, 20)
        inputs = [b.dequantized("x", shape), b.weights("w", (20, 7), channels, 1)]
        value = b.node("Add", [bias, b.node("MatMul", inputs, "product")], "value")
    b.quantized(value, "y", 0.3)
    check(b, worst=1 if kind == "s8" else 0)


def refused(b: Builder) -> str:
    compiled = compile_model(b.model())
    rows = {row.op: row for row in compiled.placement}
    found = next(rows[op] for op in ("Conv", "Gemm", "MatMul") if op in rows)
    assert found.where == "onnxruntime"
    assert difference(b.model(), b.feeds, compiled) == (0, 0)
    return found.reason


def test_refused_bias_of_another_scale() -> None:
    b = Builder()
    inputs = [b.dequantized("x", (2, 20)), b.weights("w", (20, 7), True, 1)]
    inputs.append(b.bias("b", 7, "x", "w"))
    b.quantized(b.node("Gemm", inputs, "gemm", alpha=0.5), "y", 0.3)
    assert "bias" in refused(b)


def test_refused_weights_wider_than_int8() -> None:
    b = Builder()
    x = b.dequantized("x", (1, 6, 5, 5))
    inputs = (
        b.const("w", b.bytes((4, 6, 3, 3))),
        b.const("w_scale", np.float32(0.01)),
        b.const("w_zero", np.uint8(3)),
    )
    w = b.node("DequantizeLinear", inputs, "w_real")
    b.quantized(b.node("Conv", [x, w], "conv"), "y", 0.9)
    assert "more than int8 holds" in refused(b)


def test_refused_float_weights() -> None:
    b = Builder()
    x = b.dequantized("x", (1, 6, 5, 5))
    w = b.const("w", b.rng.normal(0, 0.1, (4, 6, 3, 3)).astype(np.float32))
    b.quantized(b.node("Conv", [x, w], "conv"), "y", 0.05)
    assert "weights are not a quantized constant" in refused(b)


def test_refused_volume() -> None:
    b = Builder()
    x, w = b.dequantized("x", (1, 2, 4, 4, 4)), b.weights("w", (3, 2, 2, 2, 2), True)
    b.quantized(b.node("Conv", [x, w], "conv"), "y", 0.3)
    assert "rank 5" in refused(b)


def test_halo_read_with_two_zero_points() -> None:
    """Two convolutions pad one tensor with different zero points."""
    b = Builder()
    b.input("x", (1, 4, 6, 6))
    for index, zero in enumerate((3, 90)):
        parameters = b.parameters(f"x{index}", 0.02, zero)
        x = b.node("DequantizeLinear", ("x", *parameters), f"x{index}_real")
        w = b.weights(f"w{index}", (4, 4, 3, 3), True)
        value = b.node("Conv", [x, w], f"conv{index}", pads=[1, 1, 1, 1])
        b.quantized(value, f"y{index}", 0.3)
    check(b)

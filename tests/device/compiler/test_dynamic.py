# SPDX-License-Identifier: Apache-2.0
"""Models quantized as they run, as onnxruntime.quantization.quantize_dynamic writes them."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from device.binding import Card
from device.session import Session

from .arithmetic import Array
from .building import Builder
from .running import codes, compile_model, off_card, reference, run

FLOAT = int(TensorProto.FLOAT)


def product(
    b: Builder, x: str, name: str, weights: Array, scale: Array, bias: Array | None, **more: Any
) -> str:
    """DynamicQuantizeLinear, the product in whole numbers, Cast and Mul by both scales."""
    parts = [f"{x}_q", f"{x}_scale", f"{x}_zero"]
    if not any(parts[0] in node.output for node in b.nodes):
        b.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", [x], parts))
    op = "MatMulInteger" if weights.ndim == 2 else "ConvInteger"
    zero = b.const(f"{name}_zero", np.zeros((), weights.dtype))
    inputs = (parts[0], b.const(name, weights), parts[2], zero)
    sums = b.node(op, inputs, f"{name}_sums", **more)
    real = b.node("Cast", (sums,), f"{name}_real", to=FLOAT)
    scales = b.node("Mul", (parts[1], b.const(f"{name}_scale", scale)), f"{name}_scales")
    value = b.node("Mul", (real, scales), f"{name}_value")
    if bias is None:
        return value
    return b.node("Add", (value, b.const(f"{name}_bias", bias)), f"{name}_biased")


def floats(b: Builder, name: str, shape: tuple[int, ...], low: float, high: float) -> str:
    b.inputs.append(onnx.helper.make_tensor_value_info(name, FLOAT, list(shape)))
    b.feeds[name] = b.rng.uniform(low, high, shape).astype(np.float32)
    return name


def check(b: Builder) -> None:
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    expected, found = reference(model, b.feeds), run(compiled, b.feeds)
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, 1e-5, 1e-5 * float(np.abs(value).max()), err_msg=name
        )


RANGES = [(-1.0, 3.0), (0.0, 2.0), (-4.0, -1.0), (2.0, 5.0), (0.0, 0.0)]


@pytest.mark.parametrize("channels", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("bounds", RANGES, ids=str)
def test_matrix_product(bounds: tuple[float, float], channels: bool) -> None:
    b = Builder()
    x = floats(b, "x", (2, 9, 40), *bounds)
    weights = b.rng.integers(-127, 128, (40, 33)).astype(np.int8)
    scale = b.rng.uniform(0.002, 0.02, 33 if channels else ()).astype(np.float32)
    value = product(b, x, "w", weights, scale, b.rng.uniform(-1, 1, 33).astype(np.float32))
    b.output(value, FLOAT)
    check(b)


def test_products_share_one_quantization() -> None:
    b = Builder()
    x = floats(b, "x", (1, 9, 40), -2, 3)
    for name in ("q", "k", "v"):
        weights = b.rng.integers(-127, 128, (40, 24)).astype(np.int8)
        value = product(b, x, name, weights, np.array(0.01, np.float32), None)
        b.output(b.node("Tanh", (value,), f"{name}_tanh"), FLOAT)
    check(b)


@pytest.mark.parametrize("pads", [0, 1])
def test_convolution(pads: int) -> None:
    """Padding holds a zero point that is known only as the model runs."""
    b = Builder()
    x = floats(b, "x", (1, 6, 9, 8), -1, 2)
    weights = b.rng.integers(-127, 128, (12, 6, 3, 3)).astype(np.int8)
    bias = b.rng.uniform(-1, 1, (1, 12, 1, 1)).astype(np.float32)
    value = product(b, x, "w", weights, np.array(0.01, np.float32), bias, pads=[pads] * 4)
    b.output(b.node("Relu", (value,), "relu"), FLOAT)
    check(b)


def test_a_tensor_reshaped_for_each_reader_is_quantized_once() -> None:
    b = Builder()
    x = floats(b, "x", (1, 9, 40), -2, 3)
    for name in ("q", "k"):
        shape = b.const(f"{name}_shape", np.array([9, 40]))
        rows = b.node("Reshape", (x, shape), f"{name}_rows")
        weights = b.rng.integers(-127, 128, (40, 24)).astype(np.int8)
        b.output(product(b, rows, name, weights, np.array(0.01, np.float32), None), FLOAT)
    assert codes(b.model()).count("range") == 1
    check(b)


def test_a_batch_has_one_scale() -> None:
    """Items of a batch are not quantized one by one."""
    b = Builder()
    x = floats(b, "x", (3, 5, 16), -1, 1)
    b.feeds["x"][1] *= 10
    b.inputs[0].type.tensor_type.shape.dim[0].dim_param = "n"
    weights = b.rng.integers(-127, 128, (16, 8)).astype(np.int8)
    b.output(product(b, x, "w", weights, np.array(0.01, np.float32), None), FLOAT)
    model = b.model()
    (expected,) = reference(model, b.feeds).values()
    with Session(model.SerializeToString()) as session:
        (found,) = session.run(None, b.feeds)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-5)


def test_unsigned_weights_far_from_the_middle_stay_on_onnxruntime() -> None:
    b = Builder()
    x = floats(b, "x", (2, 16), -1, 1)
    weights = b.rng.integers(0, 256, (16, 8)).astype(np.uint8)
    b.output(product(b, x, "w", weights, np.array(0.01, np.float32), None), FLOAT)
    (row,) = (r for r in compile_model(b.model()).placement if r.op == "MatMulInteger")
    assert row.where == "onnxruntime" and "more than int8 holds" in row.reason


def test_threads_change_no_bit() -> None:
    """Vector programs, float results and ranges, cut for several threads."""
    b = Builder()
    x = floats(b, "x", (1, 256, 384), -2, 3)
    weights = b.rng.integers(-127, 128, (384, 768)).astype(np.int8)
    value = product(b, x, "w", weights, np.array(0.001, np.float32), None)
    b.output(b.node("Softmax", (b.node("Erf", (value,), "erf"),), "y", axis=-1), FLOAT)
    model = b.model().SerializeToString()
    found = []
    for threads in (1, 3):
        with Card.open(threads=threads) as card, Session(model, card, threads) as session:
            found += [session.run(None, b.feeds)[0] for _ in range(4)]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].view(np.uint32), other.view(np.uint32))

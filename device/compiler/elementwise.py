# SPDX-License-Identifier: Apache-2.0
"""Add, Mul, pools, Softmax and Resize on quantized tensors, with onnxruntime's numbers.

Sources for the arithmetic: com.microsoft QLinearAdd, QLinearMul, QLinearGlobalAveragePool,
QLinearAveragePool and QLinearSoftmax as onnxruntime computes them on x86-64.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from device.compiler.graph import Graph, Node, Shape
from device.compiler.quant import Quantization, Unplaced
from device.compiler.units import Add as AddWork
from device.compiler.units import AveragePool, Clamp, MaxPool, Multiply, Softmax, Window
from device.compiler.window import window_of

F32 = np.float32
FLOAT_MAX = float(np.finfo(np.float32).max)


def add(a: Quantization, b: Quantization, out: Quantization, clamp: Clamp) -> AddWork:
    if not (np.isfinite(F32(a.scale) / F32(out.scale) + F32(b.scale) / F32(out.scale))):
        raise Unplaced("its scales give a ratio that is not finite")
    return AddWork(a, b, out, clamp)


@dataclass(frozen=True)
class Sum:
    """float32 values of an addition: out = a * ratio_a + (b * ratio_b + fixed)."""

    ratio_a: float
    ratio_b: float
    fixed: float


def sum_of(a: Quantization, b: Quantization, out: Quantization) -> Sum:
    """As onnxruntime's compiler contracts it: zero - fma(ratio_a, zero_a, ratio_b * zero_b), with
    the model's own zero points. So it matters which operand comes first."""
    ratio_a, ratio_b = F32(a.scale) / F32(out.scale), F32(b.scale) / F32(out.scale)
    part = fused(ratio_a, F32(a.zero_point), ratio_b * F32(b.zero_point))
    return Sum(float(ratio_a), float(ratio_b), float(F32(out.zero_point) - part))


def fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c of finite float32, rounded to float32 once: a product of two is exact in float64,
    and a sum rounded to odd there (its lowest bit is set where anything was cut off) rounds to
    float32 as the exact one does."""
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    addend = np.asarray(c, np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)  # exact: Knuth's two-sum
    bits = np.array(total).view(np.int64)
    even = (error != 0) & (bits & 1 == 0)
    bits = bits + np.where(even, np.where((error > 0) == (total > 0), 1, -1), 0)
    return bits.view(np.float64).astype(F32) + F32(0)  # no zero below zero


def one_per_run(shape: Shape, out: Shape) -> bool:
    """Whether the last axis on which the result extends is one that this operand repeats: then
    onnxruntime adds with its operands exchanged."""
    lead = (1,) * (len(out) - len(shape)) + tuple(shape)
    for size, extent in zip(reversed(lead), reversed(out), strict=True):
        if extent != 1:
            return size == 1
    return True


def multiply(a: Quantization, b: Quantization, out: Quantization, clamp: Clamp) -> Multiply:
    ratio = F32(a.scale) * F32(b.scale) / F32(out.scale)
    if not np.isfinite(ratio):
        raise Unplaced("its scales give a ratio that is not finite")
    return Multiply(
        ratio=float(ratio),
        zero=float(out.zero_point),
        zero_a=a.stored_zero,
        zero_b=b.stored_zero,
        offset_out=out.offset,
        clamp=clamp,
    )


def _image(shape: Shape | None) -> Shape:
    if shape is None:
        raise Unplaced("its shape is not known before it runs")
    if len(shape) not in (3, 4):
        raise Unplaced(f"the card pools 1D and 2D images, not rank {len(shape)}")
    return shape


def maxpool(node: Node, graph: Graph) -> MaxPool:
    if node.attributes.get("storage_order", 0):
        raise Unplaced("it stores in column order")
    return MaxPool(_window(node, graph))


def average_pool(node: Node, graph: Graph, x: Quantization) -> AveragePool:
    window = _window(node, graph)
    return AveragePool(window, bool(node.attributes.get("count_include_pad", 0)), x)


def global_average_pool(node: Node, graph: Graph, x: Quantization) -> AveragePool:
    size = _image(graph.shape(node.inputs[0]))[2:]
    kernel = (1, size[0]) if len(size) == 1 else (size[0], size[1])
    if max(kernel) > 1024:
        raise Unplaced("its image is larger than the card's largest pooling window")
    window = Window(kernel, (1, 1), (1, 1), (0, 0, 0, 0))
    return AveragePool(window, False, x, is_global=True)


def _window(node: Node, graph: Graph) -> Window:
    size = _image(graph.shape(node.inputs[0]))[2:]
    out = _image(graph.shape(node.output))[2:]
    kernel = tuple(int(v) for v in node.attributes.get("kernel_shape", ()))
    window = window_of(node, size, out, kernel)
    lead = (1,) * (4 - len(size) - 2)
    for axis, (extent, count) in enumerate(zip((*lead, *size), (*lead, *out), strict=True)):
        starts = np.arange(count) * window.stride[axis] - window.padding[axis]
        taps = starts[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        if not ((taps >= 0) & (taps < extent)).any(axis=1).all():
            raise Unplaced("a window of it lies wholly in the padding")
    return window


def softmax(node: Node, graph: Graph, x: Quantization, y: Quantization) -> Softmax:
    """Table of exp as QLinearSoftmax builds it: in double, shifted so that a row's sum stays far
    below float32's largest."""
    shape = graph.shape(node.inputs[0])
    if not shape:
        raise Unplaced("its shape is not known before it runs")
    opset = int(node.attributes.get("_opset", graph.opset))
    axis = int(node.attributes.get("axis", -1 if opset >= 13 else 1)) % len(shape)
    flat = opset < 13 and math.prod(shape[axis + 1 :]) != 1
    length = math.prod(shape[axis:]) if flat else shape[axis]
    scale = x.scale
    headroom = math.log(FLOAT_MAX / F32(length))
    shift = max(0.0, headroom - 5.0) / scale
    with np.errstate(over="ignore"):
        table = np.exp((np.arange(256, dtype=np.float64) - 255 + shift) * scale).astype(F32)
    ratio = np.floor(F32(1.0) / F32(y.scale))
    if not (np.isfinite(table).all() and np.isfinite(ratio)):
        raise Unplaced("its scale gives a table that is not finite")
    return Softmax(axis, flat, table, float(ratio))

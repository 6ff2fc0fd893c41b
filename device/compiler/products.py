# SPDX-License-Identifier: Apache-2.0
"""MatMul of two activations and LayerNormalization on quantized tensors."""

import numpy as np

from device.compiler.convolution import ACCUMULATOR, MULTIPLIER_MAX
from device.compiler.graph import Graph, Node, Shape
from device.compiler.plan import Array
from device.compiler.quant import Quantization, Unplaced, dequantized
from device.compiler.units import Clamp, LayerNorm, Product

F32 = np.float32
RANK_MAX = 4


def product(
    node: Node, graph: Graph, a: Quantization, b: Quantization, out: Quantization, clamp: Clamp
) -> Product:
    """The same arithmetic as onnxruntime's QLinearMatMul."""
    shapes = [graph.shape(name) for name in node.inputs[:2]]
    first, second = shapes
    if first is None or second is None:
        raise Unplaced("its shape is not known before it runs")
    if min(len(first), len(second)) < 2:
        raise Unplaced("an operand is a vector")
    if max(len(first), len(second)) > RANK_MAX:
        raise Unplaced(f"the card multiplies matrices in up to {RANK_MAX - 2} further dimensions")
    if first[-1] * _reach(a) * _reach(b) >= ACCUMULATOR:
        raise Unplaced("its sums could leave 32 bits")
    multiplier = F32(a.scale) * F32(b.scale) / F32(out.scale)
    if not abs(multiplier) < MULTIPLIER_MAX:
        raise Unplaced("its scales lie too far apart")
    return Product(float(multiplier), a, b, clamp)


def _reach(tensor: Quantization) -> int:
    """The largest distance from the zero point."""
    return max(tensor.stored_zero, 255 - tensor.stored_zero)


def layer_norm(
    node: Node, graph: Graph, factors: tuple[Node | None, ...], x: Quantization, y: Quantization
) -> LayerNorm:
    """`factors`: what produces scale and bias, None where they are constants or left out."""
    shape = graph.shape(node.inputs[0])
    if not shape:
        raise Unplaced("its shape is not known before it runs")
    if int(node.attributes.get("axis", -1)) % len(shape) != len(shape) - 1:
        raise Unplaced("it normalizes over more than the last axis")
    if any(node.outputs[1:]):
        raise Unplaced("its mean or deviation is an output")
    epsilon = np.float64(node.attributes.get("epsilon", 1e-5)) / np.float64(x.scale) ** 2
    gamma = _row(node.input(1), factors[0], graph, shape, 1.0)
    beta = _row(node.input(2), factors[1], graph, shape, 0.0)
    with np.errstate(all="ignore"):
        gamma, beta = (_in_steps(row, y) for row in (gamma, beta))
        smallest = F32(epsilon)
    if not (np.isfinite(gamma).all() and np.isfinite(beta).all() and 0 < smallest < np.inf):
        raise Unplaced("its scale, bias or epsilon is out of range")
    return LayerNorm(float(smallest), gamma, beta)


def _in_steps(row: Array, out: Quantization) -> Array:
    return np.asarray((row.astype(np.float64) / out.scale).astype(F32))


def _row(name: str, dequantizer: Node | None, graph: Graph, shape: Shape, default: float) -> Array:
    """A constant of one float32 per channel, perhaps behind a DequantizeLinear."""
    if not name:
        return np.full(shape[-1:], default, F32)
    values = graph.constants.get(name)
    if values is None and dequantizer is not None and dequantizer.op == "DequantizeLinear":
        values = dequantized(dequantizer, graph)
    if values is None or values.dtype != F32 or values.size not in (1, shape[-1]):
        raise Unplaced("its scale or bias is not a float32 constant of its last axis")
    return np.broadcast_to(values.reshape(-1), shape[-1:])

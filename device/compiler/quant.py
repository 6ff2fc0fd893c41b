# SPDX-License-Identifier: Apache-2.0
"""Scales and zero points of 8-bit tensors, and how the card stores them: uint8, int8 plus 128."""

from dataclasses import dataclass

import numpy as np

from device.compiler.graph import INT8, UINT8, Graph, Node, numpy_dtype
from device.compiler.plan import Array


class Unplaced(Exception):
    """The card does not take this node; the text is the reason that placement shows."""


@dataclass(frozen=True)
class Quantization:
    """real = scale * (value - zero_point), the value uint8 or int8 as `type` (ONNX) says."""

    scale: float  # a float32's value
    zero_point: int
    type: int

    @property
    def offset(self) -> int:
        """What is added to a value of the model to get the byte on the card."""
        return 128 if self.type == INT8 else 0

    @property
    def stored_zero(self) -> int:
        return self.zero_point + self.offset

    def store(self, real: Array) -> Array:
        """float32 values as bytes on the card: ONNX QuantizeLinear in float32."""
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.rint(np.asarray(real, np.float32) / np.float32(self.scale))
        steps = np.where(np.isnan(steps), -np.inf, steps)
        return np.asarray(np.clip(steps + self.stored_zero, 0, 255).astype(np.uint8))

    def load(self, stored: Array) -> Array:
        """Bytes on the card as float32: ONNX DequantizeLinear."""
        steps = np.asarray(stored).astype(np.int32) - self.stored_zero
        return np.asarray(steps.astype(np.float32) * np.float32(self.scale))

    def bytes_of(self, values: Array) -> Array:
        """Values of the model (uint8 or int8) as bytes on the card."""
        values = np.asarray(values)
        return values if self.type == UINT8 else values.view(np.uint8) ^ np.uint8(128)


def parameters(node: Node, graph: Graph) -> tuple[Array, Array] | None:
    """Constant (scale, zero point) of a QuantizeLinear or DequantizeLinear; the zero point has
    the type of the quantized tensor. None where they are not constant or not float32."""
    scale = graph.constants.get(node.inputs[1])
    if scale is None or scale.dtype != np.float32:
        return None
    if node.input(2):
        zero = graph.constants.get(node.inputs[2])
        return None if zero is None else (scale, zero)
    if node.op == "DequantizeLinear":
        kind = graph.type(node.inputs[0])
    else:
        kind = node.attributes.get("output_dtype") or UINT8
    return (scale, np.zeros(scale.shape, numpy_dtype(kind))) if kind else None


def per_tensor(node: Node, graph: Graph) -> Quantization | None:
    """Of a QuantizeLinear or DequantizeLinear with one scale for a whole 8-bit tensor."""
    found = parameters(node, graph)
    if found is None or node.attributes.get("block_size", 0):
        return None
    scale, zero = found
    if scale.size != 1 or zero.size != 1 or zero.dtype not in (np.uint8, np.int8):
        return None
    value = float(scale.reshape(-1)[0])
    if not (np.isfinite(value) and value > 0):
        return None
    kind = INT8 if zero.dtype == np.int8 else UINT8
    return Quantization(value, int(zero.reshape(-1)[0]), kind)


def dequantized(node: Node, graph: Graph) -> Array:
    """The float32 values of a DequantizeLinear of constants."""
    values, found = graph.constants.get(node.inputs[0]), parameters(node, graph)
    if values is None or found is None or node.attributes.get("block_size", 0):
        raise Unplaced("a constant of it is dequantized in blocks or with a float16 scale")
    scale, zero = found
    if scale.size > 1:
        shape = [1] * values.ndim
        axis = int(node.attributes.get("axis", 1)) % values.ndim
        shape[axis] = scale.size
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    steps = values.astype(np.int64) - zero.astype(np.int64)
    return np.asarray(steps.astype(np.float32) * scale, np.float32)

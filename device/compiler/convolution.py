# SPDX-License-Identifier: Apache-2.0
"""Conv, Gemm and MatMul with constant 8-bit weights as int8 convolutions.

The numbers are those of ONNX QLinearConv and QLinearMatMul in onnxruntime's order of operations:
multiplier = (x_scale * w_scale) / y_scale in float32.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from device.compiler.graph import UINT8, Graph, Node
from device.compiler.plan import Array
from device.compiler.quant import Quantization, Unplaced, parameters
from device.compiler.units import Clamp, Convolution, Window
from device.compiler.window import window_of

ACCUMULATOR = 1 << 31
MULTIPLIER_MAX = float(1 << 24)  # one step of a sum already saturates far below it
BIAS_SCALE_TOLERANCE = 0.013


@dataclass(frozen=True)
class Weights:
    """`values` int8 as the card takes them, zero point 0; `scale` float32 [1] or per channel."""

    values: Array
    scale: Array


def weights_of(dequantizer: Node | None, graph: Graph, axis: int) -> Weights:
    """Weights behind a DequantizeLinear of a constant; scales may run along `axis`."""
    if dequantizer is None or dequantizer.inputs[0] not in graph.constants:
        raise Unplaced("its weights are not a quantized constant")
    values = graph.constants.get(dequantizer.inputs[0])
    found = parameters(dequantizer, graph)
    if values is None or found is None or dequantizer.attributes.get("block_size", 0):
        raise Unplaced("the scale of its weights is not a float32 constant per tensor or channel")
    scale, zero = found
    if values.dtype not in (np.int8, np.uint8):
        raise Unplaced(f"its weights are {values.dtype}, not 8 bits wide")
    along = int(dequantizer.attributes.get("axis", 1)) % max(values.ndim, 1)
    if scale.size > 1 and (scale.ndim != 1 or along != axis or scale.size != values.shape[axis]):
        raise Unplaced("the scales of its weights do not run along its output channels")
    if zero.size not in (1, scale.size):
        raise Unplaced("its weights have zero points and scales of different extents")
    return Weights(_recentered(values, zero, axis), scale.reshape(-1))


def _recentered(values: Array, zero: Array, axis: int) -> Array:
    """values - zero as int8."""
    if values.dtype == np.int8 and not zero.any():
        return values
    shape = [1] * values.ndim
    if zero.size > 1:
        shape[axis] = zero.size
    wide = values.astype(np.int16) - zero.astype(np.int16).reshape(shape)
    if wide.size and (wide.min() < -128 or wide.max() > 127):
        raise Unplaced(
            f"its {values.dtype} weights with a zero point span "
            f"{int(wide.min())}..{int(wide.max())}, more than int8 holds"
        )
    return wide.astype(np.int8)


def bias_of(
    producer: Node | None,
    name: str,
    graph: Graph,
    channels: int,
    scale: Array,
    rescale: bool = False,
) -> Array:
    """The bias as int64 [channels] in steps of `scale` (float32 [1] or [channels]); `name` "" is
    none. A float bias is rounded to such steps, as onnxruntime does when it optimizes a model; an
    int32 one counts them already, unless with `rescale` its own scale says otherwise."""
    if not name:
        return np.zeros(channels, np.int64)
    if name in graph.constants:
        values = _rounded_bias(graph.constants.get(name), scale)
    elif producer is None or producer.op != "DequantizeLinear":
        raise Unplaced("its bias is neither constant nor quantized to int32")
    else:
        values = _quantized_bias(producer, graph)
        if rescale:
            values = _rescaled_bias(values, producer, graph, scale)
    if values.size != channels:
        if values.size != 1:
            raise Unplaced(f"its bias has {values.size} values for {channels} channels")
        values = np.broadcast_to(values.reshape(-1), (channels,))
    return values.reshape(-1).astype(np.int64)


def _rounded_bias(values: Array | None, scale: Array) -> Array:
    if values is None or values.dtype != np.float32:
        raise Unplaced("its bias is neither float32 nor quantized to int32")
    steps = np.rint(values.reshape(-1) / scale)
    if not (np.abs(steps) < ACCUMULATOR).all():
        raise Unplaced("its bias does not fit 32 bits at the scale of its products")
    return steps.astype(np.int32)


def _quantized_bias(dequantizer: Node, graph: Graph) -> Array:
    values = graph.constants.get(dequantizer.inputs[0])
    if values is None or values.dtype != np.int32:
        raise Unplaced("its bias is not an int32 constant")
    zero = graph.constants.get(dequantizer.inputs[2]) if dequantizer.input(2) else None
    if zero is not None and zero.any():
        raise Unplaced("its bias has a zero point")
    return values


def _rescaled_bias(values: Array, dequantizer: Node, graph: Graph, scale: Array) -> Array:
    """onnxruntime adds an int32 bias to the sum of a Conv only where their scales agree to about
    1.3 %, else it computes in float."""
    found = parameters(dequantizer, graph)
    if found is None:
        raise Unplaced("the scale of its bias is not a float32 constant")
    with np.errstate(all="ignore"):
        ratio = found[0].reshape(-1).astype(np.float64) / scale.astype(np.float64)
        if (np.abs(ratio - 1) <= BIAS_SCALE_TOLERANCE).all():
            return values
        steps = np.rint(values.reshape(-1) * ratio)
    if not (np.abs(steps) < ACCUMULATOR).all():
        raise Unplaced("its bias does not fit 32 bits at the scale of its products")
    return steps.astype(np.int32)


def _check_bias_scale(dequantizer: Node | None, graph: Graph, expected: Array) -> None:
    """The int32 bias is added to the sum, so it has to count the same steps."""
    found = parameters(dequantizer, graph) if dequantizer is not None else None
    if found is None or not np.allclose(found[0].reshape(-1), expected, rtol=1e-5, atol=0):
        raise Unplaced("its bias does not have the scale of its products")


def _fits_accumulator(flat: Array, folded: Array) -> bool:
    """Whether `folded` and any uint8 times the weights of a row stay in int32."""
    if int(np.abs(folded).max()) + 255 * 128 * flat.shape[1] < ACCUMULATOR:
        return True  # whatever the weights are
    total = flat.sum(axis=1, dtype=np.int64)
    positive = np.abs(flat.astype(np.int16)).sum(axis=1, dtype=np.int64)
    highest = folded + 255 * ((positive + total) // 2)
    lowest = folded - 255 * ((positive - total) // 2)
    return bool(highest.max() < ACCUMULATOR and lowest.min() >= -ACCUMULATOR)


def _finished(
    weights: Array,
    bias: Array,
    scale: Array,
    x: Quantization,
    y: Quantization,
    window: Window,
    groups: int,
    clamp: Clamp,
    matrix: bool,
) -> Convolution:
    """`weights` int8 [out][kernel_h][kernel_w][in / groups]; checks that no sum leaves int32."""
    flat = weights.reshape(weights.shape[0], -1)
    folded = np.asarray(bias, np.int64)
    if x.stored_zero:  # after a Relu it is 0, and there are many weights to add up
        folded = folded - x.stored_zero * flat.sum(axis=1, dtype=np.int64)
    if flat.size and not _fits_accumulator(flat, folded):
        raise Unplaced("its sums could leave 32 bits")
    multiplier = (np.float32(x.scale) * scale.astype(np.float32)) / np.float32(y.scale)
    if not (np.abs(multiplier) < MULTIPLIER_MAX).all():
        raise Unplaced("its scales lie too far apart")
    return Convolution(
        window=window,
        groups=groups,
        weights=weights,
        bias=folded.astype(np.int32),
        multiplier=np.ascontiguousarray(np.broadcast_to(multiplier, (weights.shape[0],))),
        input_zero=x.stored_zero,
        clamp=clamp,
        matrix=matrix,
    )


Producer = Callable[[str], "Node | None"]


def float_product(
    node: Node, graph: Graph, producer: Producer, x: Quantization | None
) -> Convolution:
    """Conv, Gemm or MatMul of quantized operands whose result is float32; `x` None: the input is
    quantized as the program runs, and the weights are those of ConvInteger or MatMulInteger.

    An int32 bias joins the sum; a float one is added to the result."""
    known = x or Quantization(1.0, 0, UINT8)
    unit = Quantization(1.0, 0, UINT8)
    name = node.input(2)
    values = graph.constants.get(name) if name and x is not None else None
    bare = node if values is None else dataclasses.replace(node, inputs=node.inputs[:2])
    if node.op == "Gemm":
        if values is not None and node.attributes.get("beta", 1.0) != 1.0:
            raise Unplaced("its beta is not 1")
        work = gemm(bare, graph, producer, known, unit, Clamp())
    elif node.op == "Conv":
        work = convolution(bare, graph, producer, known, unit, Clamp())
    else:
        work = matmul(bare, graph, producer, known, unit, Clamp())
    channels = work.weights.shape[0]
    if values is not None and (values.dtype != np.float32 or values.size not in (1, channels)):
        raise Unplaced("its bias is no row of float32")
    addend = None if values is None else np.broadcast_to(values.reshape(-1), (channels,))
    return dataclasses.replace(work, floats=True, addend=addend, dynamic=x is None)


def convolution(
    node: Node, graph: Graph, producer: Producer, x: Quantization, y: Quantization, clamp: Clamp
) -> Convolution:
    shape, out = graph.shape(node.inputs[0]), graph.shape(node.output)
    if shape is None or out is None:
        raise Unplaced("its shape is not known before it runs")
    if len(shape) not in (3, 4):
        raise Unplaced(f"the card convolves 1D and 2D images, not rank {len(shape)}")
    weights = weights_of(producer(node.inputs[1]), graph, axis=0)
    values = weights.values
    if values.ndim != len(shape):
        raise Unplaced("its weights and input differ in rank")
    taps = values.shape[2:]
    if values.ndim == 3:
        values = values[:, :, None, :]
    groups = int(node.attributes.get("group", 1))
    channels = values.shape[0]
    if groups < 1 or channels % groups or values.shape[1] * groups != shape[1]:
        raise Unplaced("its groups do not divide its channels")
    window = window_of(node, shape[2:], out[2:], taps)
    steps = np.float32(x.scale) * weights.scale
    name = node.input(2)
    bias = bias_of(producer(name), name, graph, channels, steps, rescale=True)
    kernel = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
    return _finished(kernel, bias, weights.scale, x, y, window, groups, clamp, matrix=False)


POINT = Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0))


def _matrix(
    weights: Weights, bias: Array, x: Quantization, y: Quantization, clamp: Clamp
) -> Convolution:
    """Weights [out, in]."""
    rows, depth = weights.values.shape
    kernel = np.ascontiguousarray(weights.values).reshape(rows, 1, 1, depth)
    return _finished(kernel, bias, weights.scale, x, y, POINT, 1, clamp, matrix=True)


def gemm(
    node: Node, graph: Graph, producer: Producer, x: Quantization, y: Quantization, clamp: Clamp
) -> Convolution:
    if node.attributes.get("transA", 0):
        raise Unplaced("its first matrix is transposed")
    across = 0 if node.attributes.get("transB", 0) else 1
    weights = weights_of(producer(node.inputs[1]), graph, axis=across)
    values = weights.values if across == 0 else weights.values.T
    alpha = np.float32(node.attributes.get("alpha", 1.0))
    beta = float(node.attributes.get("beta", 1.0))
    if node.input(2) and beta != 1.0:
        raise Unplaced("its beta is not 1")
    if node.input(2):
        shape = graph.shape(node.inputs[2]) or ()
        if math.prod(shape[:-1]) != 1:
            raise Unplaced("its C is a matrix, not a bias")
    scaled = Weights(values, alpha * weights.scale)
    steps = np.float32(x.scale) * scaled.scale
    bias = bias_of(producer(node.input(2)), node.input(2), graph, values.shape[0], steps)
    if node.input(2) and alpha != 1:
        _check_bias_scale(producer(node.inputs[2]), graph, steps)
    return _matrix(scaled, bias, x, y, clamp)


def matmul(
    node: Node,
    graph: Graph,
    producer: Producer,
    x: Quantization,
    y: Quantization,
    clamp: Clamp,
    bias: str = "",
) -> Convolution:
    """`bias` names what an Add behind the MatMul adds to each row."""
    shape = graph.shape(node.inputs[1])
    if shape is None or len(shape) != 2:
        raise Unplaced("its second operand is not a constant matrix")
    if len(graph.shape(node.inputs[0]) or ()) < 2:
        raise Unplaced("its first operand is a vector")
    if bias and math.prod((graph.shape(bias) or (0,))[:-1]) != 1:
        raise Unplaced("what is added to it is no row")
    weights = weights_of(producer(node.inputs[1]), graph, axis=1)
    steps = np.float32(x.scale) * weights.scale
    added = bias_of(producer(bias), bias, graph, shape[1], steps)
    if bias and bias not in graph.constants:
        _check_bias_scale(producer(bias), graph, steps)
    return _matrix(Weights(weights.values.T, weights.scale), added, x, y, clamp)

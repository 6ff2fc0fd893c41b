# SPDX-License-Identifier: Apache-2.0
"""Moves of bytes: Reshape and its kin, Transpose, Concat, Pad, nearest Resize."""

import numpy as np

from device.compiler.elementwise import maxpool
from device.compiler.graph import Graph, Node, Shape
from device.compiler.plan import Array
from device.compiler.quant import Unplaced
from device.compiler.units import (
    Concat,
    Expand,
    MaxPool,
    Pad,
    Reshape,
    Resize,
    Slice,
    Transpose,
)

RESHAPES = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}


Movement = Concat | Expand | MaxPool | Pad | Reshape | Resize | Slice | Transpose


def movement(node: Node, graph: Graph) -> Movement:
    """The work of a move on quantized tensors, and of all but Pad, MaxPool and Resize on others."""
    shape, out = graph.shape(node.inputs[0]), graph.shape(node.output)
    if shape is None or out is None:
        raise Unplaced("its shape is not known before it runs")
    if node.op in RESHAPES:
        return Reshape()
    if node.op == "Transpose":
        order = node.attributes.get("perm") or list(reversed(range(len(shape))))
        return Transpose(tuple(int(axis) for axis in order))
    if node.op == "Concat":
        return Concat(int(node.attributes.get("axis", 1)) % len(out))
    if node.op == "Expand":
        return Expand()
    if node.op == "Slice":
        return _slice(node, graph, shape)
    if node.op == "Pad":
        return _pad(node, graph, shape, out)
    if node.op == "Resize":
        return _resize(node, graph, shape, out)
    return maxpool(node, graph)


def _slice(node: Node, graph: Graph, shape: Shape) -> Slice:
    """ONNX Slice: ends may lie outside, which its result's shape already tells."""
    rank = len(shape)
    if node.input(1):
        starts = [int(at) for at in _constant(node, graph, 1)]
        axes = _constant(node, graph, 3) if node.input(3) else np.arange(len(starts))
        steps = _constant(node, graph, 4) if node.input(4) else np.ones(len(starts), np.int64)
    else:
        starts = [int(at) for at in node.attributes.get("starts", ())]
        axes = np.array(node.attributes.get("axes", range(len(starts))))
        steps = np.ones(len(starts), np.int64)
    first, pace = [0] * rank, [1] * rank
    for start, axis, step in zip(starts, axes, steps, strict=True):
        size = shape[int(axis)]
        begin = start + size if start < 0 else start
        highest = size - 1 if step < 0 else size
        first[int(axis) % rank] = min(max(begin, 0), highest)
        pace[int(axis) % rank] = int(step)
    return Slice(tuple(first), tuple(pace))


def _pad(node: Node, graph: Graph, shape: Shape, out: Shape) -> Pad:
    rank = len(shape)
    if node.input(1):
        pads = _constant(node, graph, 1)
    else:
        pads = np.array(node.attributes.get("pads", node.attributes.get("paddings", ())), np.int64)
    axes = list(range(rank))
    if node.input(3):
        axes = [int(a) % rank for a in _constant(node, graph, 3)]
    if pads.size != 2 * len(axes):
        raise Unplaced("its pads do not fit its rank")
    if (pads < 0).any():
        raise Unplaced("it has negative padding")
    before = [0] * rank
    for axis, amount in zip(axes, pads, strict=False):
        before[axis] = int(amount)
    value = node.attributes.get("_byte")
    if value is None:
        value = _pad_byte(node, graph)
    return Pad(tuple(before), int(value))


def _pad_byte(node: Node, graph: Graph) -> int:
    """The value of a Pad that works on uint8 or int8 in the model itself, as a byte."""
    if not node.input(2):
        value = np.zeros((), graph_dtype(graph, node.inputs[0]))
    else:
        value = _constant(node, graph, 2).reshape(-1)[0]
    return int(value) + (128 if value.dtype == np.int8 else 0)


def graph_dtype(graph: Graph, name: str) -> type[np.int8] | type[np.uint8]:
    kind = graph.type(name)
    return np.int8 if kind == 3 else np.uint8


def _constant(node: Node, graph: Graph, position: int) -> Array:
    value = graph.constants.get(node.inputs[position])
    if value is None:
        raise Unplaced(f'its input "{node.inputs[position]}" is not constant')
    return value


def _resize(node: Node, graph: Graph, shape: Shape, out: Shape) -> Resize:
    """Index lists of ONNX Resize, mode nearest, axes 2 and 3 (rank 4) or 2 (rank 3)."""
    if len(shape) not in (3, 4):
        raise Unplaced(f"the card resizes 1D and 2D images, not rank {len(shape)}")
    if shape[:2] != out[:2]:
        raise Unplaced("it resizes batch or channels")
    scales = _scales(node, graph, shape, out)
    lists = [
        _nearest(node, graph, shape[axis], out[axis], scales[axis]) for axis in range(2, len(shape))
    ]
    rows = lists[0] if len(lists) == 2 else np.zeros(1, np.uint32)
    return Resize(rows, lists[-1])


def _scales(node: Node, graph: Graph, shape: Shape, out: Shape) -> list[np.float32]:
    """Per axis as float32, given or from the sizes."""
    position = 1 if graph.opset < 11 else 2
    name = node.input(position)
    given = graph.constants.get(name) if name else None
    if name and given is None:
        raise Unplaced("its scales are not constant")
    scales = [np.float32(o) / np.float32(s) for o, s in zip(out, shape, strict=True)]
    axes = [int(a) % len(shape) for a in node.attributes.get("axes") or range(len(shape))]
    if given is not None and given.size:
        for axis, scale in zip(axes, given.reshape(-1), strict=False):
            scales[axis] = np.float32(scale)
        return scales
    policy = node.attributes.get("keep_aspect_ratio_policy", b"stretch")
    if policy != b"stretch":  # one scale along all axes that have a size
        sizes = _constant(node, graph, 3).reshape(-1)
        ratios = [
            np.float32(size) / np.float32(shape[axis])
            for axis, size in zip(axes, sizes, strict=False)
        ]
        for axis in axes:
            scales[axis] = min(ratios) if policy == b"not_larger" else max(ratios)
    return scales


def _nearest(node: Node, graph: Graph, size: int, out: int, scale: np.float32) -> Array:
    """Source index of each output index, ONNX's formulas in float32."""
    mode = node.attributes.get("coordinate_transformation_mode", b"half_pixel")
    rounding = node.attributes.get("nearest_mode", b"round_prefer_floor")
    if graph.opset < 11:
        mode, rounding = b"asymmetric", b"floor"
    if scale == 1 and size == out:
        return np.arange(out, dtype=np.uint32)
    x = np.arange(out, dtype=np.float32)
    half = np.float32(0.5)
    if mode == b"asymmetric":
        position = x / scale
    elif mode == b"half_pixel" or (mode == b"pytorch_half_pixel" and out > 1):
        position = (x + half) / scale - half
    elif mode == b"pytorch_half_pixel":
        position = np.zeros(out, np.float32)
    elif mode == b"align_corners":
        position = (
            np.zeros(out, np.float32)
            if out == 1
            else x * np.float32(size - 1) / np.float32(out - 1)
        )
    else:
        raise Unplaced(f"its coordinate transformation is {mode.decode(errors='replace')}")
    index = _rounded(position, rounding, upscaled=bool(scale >= 1))
    return np.clip(index, 0, size - 1).astype(np.uint32)


def _rounded(position: Array, rounding: bytes, upscaled: bool) -> Array:
    if rounding == b"floor":
        return np.floor(position)
    if rounding == b"ceil":
        return np.ceil(position)
    if rounding == b"round_prefer_ceil":
        return np.floor(position + np.float32(0.5))
    if rounding == b"round_prefer_floor":
        return np.ceil(position - np.float32(0.5))
    raise Unplaced(f"its rounding is {rounding.decode(errors='replace')}")

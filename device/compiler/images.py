# SPDX-License-Identifier: Apache-2.0
"""Tensors on the card: buffers, images in them, and the two ways to lay a tensor out.

PIXELS puts channels last ([N, C, H, W] and [N, C, L]) with a halo for convolutions; ROWS keeps the
last axis together ([.., M, K] as M rows of K).
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from device.compiler.graph import Shape
from device.compiler.plan import Array
from device.compiler.quant import Quantization

ALIGNMENT = 64
Kind = Literal["u8", "i8", "f32", "i64", "i32", "bool"]
ITEM_BYTES: dict[Kind, int] = {"u8": 1, "i8": 1, "f32": 4, "i64": 8, "i32": 4, "bool": 1}
Halo = tuple[int, int, int, int]  # top, left, bottom, right, in pixels
NO_HALO: Halo = (0, 0, 0, 0)


class Layout(Enum):
    PIXELS = "pixels"
    ROWS = "rows"


@dataclass(eq=False)
class Buffer:
    """Memory of the arena, a port, or the constants (`data`, uint8). The plan sets `offset`."""

    place: Literal["arena", "input", "output", "constant"]
    bytes: int
    port: int = 0
    offset: int = 0
    data: Array | None = None


@dataclass(frozen=True)
class Image:
    """An entry of the program's tensor table. Strides in bytes; `offset` from the buffer's start
    to element (0, 0, 0, 0); `type` of abi/program.h."""

    buffer: Buffer
    n: int
    h: int
    w: int
    c: int
    stride_n: int
    stride_h: int
    stride_w: int
    offset: int = 0
    halo: Halo = NO_HALO
    type: Kind = "u8"
    scale: float = 0.0
    zero_point: int = 0

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return ITEM_BYTES[self.type]

    def quantized(self, quantization: Quantization) -> "Image":
        return dataclasses.replace(
            self, scale=quantization.scale, zero_point=quantization.stored_zero
        )


def quantized(image: Image, quantization: Quantization | None) -> Image:
    """The image of bytes; that of floats, which have none, as it is."""
    return image if quantization is None else image.quantized(quantization)


@dataclass(frozen=True)
class Held:
    """A model's tensor on the card. `strides` in elements, one per axis of `shape`."""

    shape: Shape
    layout: Layout
    image: Image
    strides: tuple[int, ...]


def padded(channels: int) -> int:
    """Bytes from pixel to pixel: whole vectors where there are enough channels for one."""
    return channels if channels < 16 else -(-channels // 16) * 16


def extents(shape: Shape, layout: Layout) -> tuple[int, int, int, int]:
    """(n, h, w, c) of a tensor."""
    if layout is Layout.PIXELS:
        n, c, *spatial = shape
        h, w = (1, *spatial) if len(spatial) == 1 else spatial
        return n, h, w, c
    return (1, 1, math.prod(shape[:-1]), shape[-1]) if shape else (1, 1, 1, 1)


def image_of(
    buffer: Buffer, shape: Shape, layout: Layout, halo: Halo = NO_HALO, kind: Kind = "u8"
) -> Held:
    """The tensor laid out from the start of a buffer, which is made as large as it needs. Float
    rows follow each other without a gap, so that the vector unit may take them as one."""
    n, h, w, c = extents(shape, layout)
    top, left, bottom, right = halo
    stride_w = padded(c) if kind == "u8" and (n * h * w > 1 or any(halo)) else c * ITEM_BYTES[kind]
    stride_h = (w + left + right) * stride_w
    stride_n = (h + top + bottom) * stride_h
    buffer.bytes = max(buffer.bytes, n * stride_n)
    start = top * stride_h + left * stride_w
    image = Image(buffer, n, h, w, c, stride_n, stride_h, stride_w, start, halo, kind)
    return Held(shape, layout, image, strides_of(image, shape, layout))


def strides_of(image: Image, shape: Shape, layout: Layout) -> tuple[int, ...]:
    """Elements from one index to the next along each axis."""
    step = image.stride_w // image.item
    if layout is Layout.PIXELS:
        row = image.stride_h // image.item
        spatial = (step,) if len(shape) == 3 else (row, step)
        return (image.stride_n // image.item, 1, *spatial)
    strides = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def port(buffer: Buffer, shape: Shape, kind: Kind) -> Held:
    """A host array, row-major; strides of the image in bytes."""
    count = math.prod(shape)
    buffer.bytes = whole = count * ITEM_BYTES[kind]
    image = Image(buffer, 1, 1, 1, count, whole, whole, whole, type=kind)
    return Held(shape, Layout.ROWS, image, row_major(shape))


def row_major(shape: Shape) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


@dataclass(frozen=True)
class Loop:
    """One level of a copy: `count` steps, so many elements each on either side."""

    count: int
    step: int
    out_step: int


def loops(dims: Sequence[int], steps: Sequence[int], out_steps: Sequence[int]) -> list[Loop]:
    """The levels of a copy, the densest written one last, neighbours merged where both sides run
    on."""
    levels = [Loop(*level) for level in zip(dims, steps, out_steps, strict=True) if level[0] != 1]
    levels.sort(key=lambda level: -level.out_step)
    merged: list[Loop] = []
    for level in levels:
        if merged:
            outer = merged[-1]
            span = level.count * level.step, level.count * level.out_step
            if (outer.step, outer.out_step) == span:
                merged[-1] = Loop(outer.count * level.count, level.step, level.out_step)
                continue
        merged.append(level)
    return merged or [Loop(1, 1, 1)]


def refined(
    shape: Shape, strides: Sequence[int], out: Shape, out_strides: Sequence[int]
) -> tuple[list[int], list[int], list[int]] | None:
    """A reshape as one set of levels: (dims, strides, out strides), from the last axis up; None
    where the axes of the two shapes do not nest."""
    source = [pair for pair in zip(shape, strides, strict=True) if pair[0] != 1]
    target = [pair for pair in zip(out, out_strides, strict=True) if pair[0] != 1]
    dims: list[int] = []
    steps: list[int] = []
    out_steps: list[int] = []
    while source and target:
        (size, step), (out_size, out_step) = source.pop(), target.pop()
        count = min(size, out_size)
        if size % count or out_size % count:
            return None
        dims.append(count)
        steps.append(step)
        out_steps.append(out_step)
        if size > count:
            source.append((size // count, step * count))
        if out_size > count:
            target.append((out_size // count, out_step * count))
    return dims, steps, out_steps


def expanded(held: Held) -> Image:
    """A row-major tensor of up to four axes as n, h, w, c, so that any of them may broadcast."""
    image, shape = held.image, (1,) * (4 - len(held.shape)) + tuple(held.shape)
    if len(shape) > 4:
        return image
    n, h, w, c = shape
    step = image.stride_w
    return dataclasses.replace(
        image, n=n, h=h, w=w, c=c, stride_w=step, stride_h=w * step, stride_n=h * w * step
    )

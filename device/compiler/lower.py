# SPDX-License-Identifier: Apache-2.0
"""Units of one card segment to instructions over images."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device.binding.abi import NONE, PARAMS
from device.compiler import layout
from device.compiler.elementwise import sum_of
from device.compiler.emit import Constant, Instruction
from device.compiler.graph import Shape
from device.compiler.images import (
    NO_HALO,
    Buffer,
    Halo,
    Held,
    Image,
    Kind,
    Layout,
    image_of,
    loops,
    port,
    refined,
    row_major,
    strides_of,
)
from device.compiler.plan import Array
from device.compiler.quant import Quantization, Unplaced
from device.compiler.units import Add, Clamp, Unit, Window

MAP_RANK_MAX = PARAMS["map"]["dims"].shape[0]


class Lowering:
    """Where each tensor is on the card so far, and the instructions that brought it there."""

    def __init__(
        self,
        segment: Sequence[Unit],
        shapes: Mapping[str, Shape],
        constants: Mapping[str, Array],
        kinds: Mapping[str, Kind],
    ) -> None:
        """`shapes` of every tensor that the units name, `kinds` of those that are not bytes;
        `constants` as bytes on the card, or float32."""
        self.shapes = shapes
        self._kinds = kinds
        self.ranges: dict[str, Image] = {}  # of tensors quantized as the program runs
        self._constants = constants
        self._homes = layout.choose(segment, shapes)
        self._halos = layout.halos(segment)
        self._slices = layout.slices(segment, shapes, self._homes)
        self._held: dict[tuple[str, Layout], Held] = {}
        self.instructions: list[Instruction] = []
        self.inputs: list[Buffer] = []
        self.outputs: list[Buffer] = []
        self._ports: dict[str, Held] = {}
        self.node = NONE  # what brings inputs in comes from no node

    def add_input(self, name: str, kind: Kind) -> None:
        """The next input port; bytes are brought into the arena at once."""
        buffer = Buffer("input", 0, port=len(self.inputs))
        self.inputs.append(buffer)
        held = port(buffer, self.shapes[name], kind)
        if kind in ("u8", "i8"):
            self.copy(held, self.allocate(name))
        else:
            self.hold(name, held)

    def add_output(self, name: str, kind: Kind) -> None:
        """The next output port, written by a Dequantize, or by `finish` where it takes bytes."""
        buffer = Buffer("output", 0, port=len(self.outputs))
        self.outputs.append(buffer)
        self._ports[name] = port(buffer, self.shapes[name], kind)

    def port_of(self, name: str) -> Held:
        return self._ports[name]

    def finish(self) -> None:
        """Sends outputs to their ports, but those that a Dequantize wrote there."""
        self.node = NONE
        for name, held in self._ports.items():
            if held.image.type != "f32" or any((name, kind) in self._held for kind in Layout):
                self.copy(self.get(name), held)

    def home(self, name: str) -> Layout:
        return self._homes.get(name, Layout.ROWS)

    def emit(
        self,
        code: str,
        /,
        out: Image,
        a: Image | None = None,
        b: Image | None = None,
        macs: int = 0,
        sources: tuple[Image, ...] = (),
        more: tuple[Image, ...] = (),
        **parameters: Any,
    ) -> None:
        self.instructions.append(
            Instruction(code, out, a, b, parameters, self.node, macs, sources, more)
        )

    def hold(self, name: str, held: Held) -> None:
        self._held[name, held.layout] = held

    def allocate(self, name: str, kind: Layout | None = None, fill: bool = True) -> Held:
        """Room for a tensor in the arena, in its home layout unless told, with its halo filled."""
        kind = kind or self.home(name)
        if name in self._slices and kind is self.home(name):
            return self._slice(name, kind)
        zero, halo = self._halos.get(name, (0, NO_HALO))
        if kind is not Layout.PIXELS:
            halo = NO_HALO
        held = image_of(Buffer("arena", 0), self.shapes[name], kind, halo, self.kind(name))
        self.hold(name, held)
        if fill:
            self.fill_halo(held.image, zero)
        return held

    def _slice(self, name: str, kind: Layout) -> Held:
        """Channels of the result that the tensor is a part of."""
        part = self._slices[name]
        parent = self._held.get((part.parent, kind)) or self.allocate(part.parent, kind)
        shape = self.shapes[name]
        channels = shape[1 if kind is Layout.PIXELS else -1]
        start = parent.image.offset + part.start * parent.image.item
        image = dataclasses.replace(parent.image, c=channels, offset=start, halo=NO_HALO)
        held = Held(shape, kind, image, strides_of(image, shape, kind))
        self.hold(name, held)
        return held

    def find(self, name: str) -> Held | None:
        """The tensor in its home layout, where there is room for it already."""
        return self._held.get((name, self.home(name)))

    def in_place(self, name: str, parent: str) -> bool:
        """Whether the tensor was written into the result of this concatenation."""
        part = self._slices.get(name)
        return part is not None and part.parent == parent

    def fill_halo(self, image: Image, zero: int) -> None:
        if any(image.halo):
            self.emit("fill", image, whole=0, value=zero)

    def halo_of(self, name: str) -> Halo:
        return self._halos[name][1] if name in self._halos else NO_HALO

    def bytes_of_constant(self, name: str) -> Array | None:
        return self._constants.get(name)

    def zero_of_halo(self, name: str) -> int | None:
        return self._halos[name][0] if name in self._halos else None

    def get(self, name: str, kind: Layout | None = None) -> Held:
        """The tensor in a layout (its home's unless told), converted where it is in another."""
        kind = kind or self.home(name)
        held = self._held.get((name, kind))
        if held is None and name in self._constants:
            held = self.constant(self._constants[name], kind)
            self.hold(name, held)
        if held is None:
            other = Layout.ROWS if kind is Layout.PIXELS else Layout.PIXELS
            source = self._held[name, other]
            held = self.allocate(name, kind)
            self.copy(source, held)
        return held

    def kind(self, name: str) -> Kind:
        return self._kinds.get(name, "u8")

    def floats(self, name: str) -> Held:
        """The tensor row by row in the arena or the constants; what lies at a float port is
        brought in."""
        held = self.get(name, Layout.ROWS)
        if held.image.buffer.place == "input":
            source, held = held, self.allocate(name, Layout.ROWS)
            self.copy(source, held)
        return held

    def table(self, name: str, shape: Shape) -> Held:
        """A constant as a matrix of this shape."""
        return self.constant(self._constants[name].reshape(shape), Layout.ROWS)

    def constant(self, values: Array, kind: Layout) -> Held:
        """Bytes or floats in the constant section, without channel padding."""
        data = np.moveaxis(values, 1, -1) if kind is Layout.PIXELS else values
        data = np.ascontiguousarray(data)
        item: Kind = "f32" if data.dtype == np.float32 else "u8"
        size = data.itemsize
        buffer = Buffer("constant", data.nbytes, data=data)
        n, h, w, c = (
            (data.shape[0], *((1,) * (4 - data.ndim)), *data.shape[1:])
            if kind is Layout.PIXELS
            else (1, 1, math.prod(data.shape[:-1]), data.shape[-1] if data.ndim else 1)
        )
        strides = (h * w * c * size, w * c * size, c * size)
        image = Image(buffer, n, h, w, c, *strides, type=item)
        return Held(values.shape, kind, image, strides_of(image, values.shape, kind))

    def copy(
        self, source: Held, target: Held, table: Array | None = None, b: Image | None = None
    ) -> None:
        """A MAP of a whole tensor between layouts or types."""
        self.map(source.shape, source, source.strides, target, target.strides, table=table, b=b)

    def map(
        self,
        dims: Sequence[int],
        source: Held,
        strides: Sequence[int],
        target: Held,
        out_strides: Sequence[int],
        start: int = 0,
        out_start: int = 0,
        table: Array | None = None,
        b: Image | None = None,
    ) -> None:
        levels = loops(dims, strides, out_strides)
        if len(levels) > MAP_RANK_MAX:
            raise Unplaced(f"it moves data along more than {MAP_RANK_MAX} axes")
        more: dict[str, Any] = {} if table is None else {"table": Constant(table)}
        self.emit(
            "map",
            target.image,
            source.image,
            b,
            rank=len(levels),
            dims=[level.count for level in levels],
            stride=[level.step for level in levels],
            out_stride=[level.out_step for level in levels],
            start=start,
            out_start=out_start,
            **more,
        )

    def reshape(self, source: Held, target: Held) -> None:
        """A MAP to another shape, the elements in row-major order."""
        levels = refined(source.shape, source.strides, target.shape, target.strides)
        if levels is None or len(loops(*levels)) > MAP_RANK_MAX:
            shape = (math.prod(source.shape),)
            flat = image_of(Buffer("arena", 0), shape, Layout.ROWS, kind=target.image.type)
            self.map(source.shape, source, source.strides, flat, row_major(source.shape))
            self.map(target.shape, flat, row_major(target.shape), target, target.strides)
        else:
            dims, steps, out_steps = levels
            self.map(dims, source, steps, target, out_steps)

    def view(self, source: Held, shape: Shape, kind: Layout) -> Held | None:
        """The bytes where they are as a tensor of another shape; None where they lie otherwise."""
        if any(source.image.halo):
            return None
        count = math.prod(shape)
        item = source.image.item
        probe = image_of(Buffer("arena", 0), shape, kind, kind=source.image.type)
        n, h, w, c = probe.image.n, probe.image.h, probe.image.w, probe.image.c
        steps = refined(source.shape, source.strides, (n * h * w, c), (c, 1))
        if kind is Layout.PIXELS and not (h * w == 1 or c == 1):
            return None
        if steps is None or count == 0:
            return None
        step = _row_step(*steps, columns=c)
        if step is None or (n * h * w > 1 and step < c):
            return None
        step = max(step, c) * item
        image = dataclasses.replace(
            source.image,
            n=n,
            h=h,
            w=w,
            c=c,
            stride_w=step,
            stride_h=w * step,
            stride_n=h * w * step,
            halo=NO_HALO,
        )
        return Held(shape, kind, image, strides_of(image, shape, kind))


def _row_step(
    dims: Sequence[int], steps: Sequence[int], out_steps: Sequence[int], columns: int
) -> int | None:
    """The one step from row to row with which levels of a dense matrix can be read in place, 0
    where there is but one row; None where there is none."""
    row: int | None = None
    for count, step, out_step in zip(dims, steps, out_steps, strict=True):
        if count == 1:
            continue
        if out_step < columns:
            if step != out_step:
                return None
        elif step * columns % out_step or (row is not None and row != step * columns // out_step):
            return None
        else:
            row = step * columns // out_step
    return row or 0


def result(image: Image, unit: Unit) -> Image:
    """The image with the quantization that the unit stores its result in."""
    assert unit.quantization is not None
    return image.quantized(unit.quantization)


def stored(clamp: Clamp, table: Array | None) -> dict[str, Any]:
    """Parameters of what happens to a result before it is stored."""
    found: dict[str, Any] = {"lo": clamp.lo, "hi": clamp.hi}
    if table is not None:
        found["table"] = Constant(table)
    return found


def window_fields(window: Window) -> dict[str, Any]:
    return {
        "kernel_h": window.kernel[0],
        "kernel_w": window.kernel[1],
        "stride_h": window.stride[0],
        "stride_w": window.stride[1],
        "dilation_h": window.dilation[0],
        "dilation_w": window.dilation[1],
        "pad_top": window.padding[0],
        "pad_left": window.padding[1],
    }


def sum_fields(work: Add, first: Quantization, second: Quantization) -> dict[str, Any]:
    """Parameters of an addition with its operands in this order."""
    numbers = sum_of(first, second, work.out)
    return {
        "ratio_a": numbers.ratio_a,
        "ratio_b": numbers.ratio_b,
        "fixed": numbers.fixed,
        "a_offset": first.offset,
        "b_offset": second.offset,
        "out_offset": work.out.offset,
    }

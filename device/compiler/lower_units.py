# SPDX-License-Identifier: Apache-2.0
"""One function per kind of work: a Unit to the instructions that do it."""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any

from device.compiler import units
from device.compiler.elementwise import one_per_run
from device.compiler.emit import Constant
from device.compiler.graph import Shape
from device.compiler.images import (
    NO_HALO,
    Buffer,
    Held,
    Image,
    Layout,
    expanded,
    image_of,
    row_major,
)
from device.compiler.layout import softmax_layout
from device.compiler.lower import Lowering, result, stored, sum_fields, window_fields
from device.compiler.lower_convolution import lower_convolution
from device.compiler.lower_floats import (
    lower_dynamic_quantize,
    lower_expand,
    lower_from_integer,
    lower_gather,
    lower_slice,
)
from device.compiler.lower_products import (
    lower_float_product,
    lower_layer_norm,
    lower_product,
)
from device.compiler.plan import Array
from device.compiler.quant import Quantization
from device.compiler.units import Unit


def lower_unit(unit: Unit, table: Array | None, lowering: Lowering) -> None:
    """`table`: applied to the stored result of a Convolution, Add, Multiply or Product."""
    lowering.node = unit.node.index
    _RULES[type(unit.work)](unit, lowering, table)


def _add(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Add)
    (a, b), swapped = _operands(unit, lowering, commutes=False)
    first, second = (work.b, work.a) if swapped else (work.a, work.b)
    lowering.emit(
        "add",
        result(_result(unit, lowering, a), unit),
        a,
        b,
        **sum_fields(work, first, second),
        **stored(work.clamp, table),
    )


def _multiply(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Multiply)
    (a, b), swapped = _operands(unit, lowering, commutes=True)
    zeros = (work.zero_b, work.zero_a) if swapped else (work.zero_a, work.zero_b)
    lowering.emit(
        "mul",
        result(_result(unit, lowering, a), unit),
        a,
        b,
        ratio=work.ratio,
        zero=work.zero,
        a_zero_point=zeros[0],
        b_zero_point=zeros[1],
        out_offset=work.offset_out,
        **stored(work.clamp, table),
    )


def _result(unit: Unit, lowering: Lowering, a: Image) -> Image:
    """Room for the result of Add or Mul with the extents that its first operand has."""
    held = lowering.allocate(unit.output)
    return expanded(held) if held.layout is Layout.ROWS else held.image


def _operands(unit: Unit, lowering: Lowering, commutes: bool) -> tuple[tuple[Image, Image], bool]:
    """(a, b) with a as large as the result, and whether they changed places.

    onnxruntime adds with its operands exchanged where the first is one value per run of the
    second; everywhere else the order stays, and a smaller first operand is copied out.
    """
    shapes = [lowering.shapes[name] for name in unit.inputs]
    full = [shape == unit.shape for shape in shapes]
    swap = full[1] and not full[0] and (commutes or one_per_run(shapes[0], unit.shape))
    names = unit.inputs[::-1] if swap else unit.inputs
    return (
        (_operand(names[0], unit, lowering, whole=True)),
        (_operand(names[1], unit, lowering, whole=len(unit.shape) > 4)),
    ), swap


def _operand(name: str, unit: Unit, lowering: Lowering, whole: bool) -> Image:
    """An operand in the layout of the result; as large as it where `whole`."""
    kind = lowering.home(unit.output)
    held = lowering.get(name, kind if len(lowering.shapes[name]) == len(unit.shape) else None)
    if held.layout is not kind or len(held.shape) != len(unit.shape):
        held = _lifted(name, unit.shape, kind, lowering)
    if whole and held.shape != unit.shape:
        copy = image_of(Buffer("arena", 0), unit.shape, kind)
        steps = [
            0 if size == 1 else step for size, step in zip(held.shape, held.strides, strict=True)
        ]
        lowering.map(unit.shape, held, steps, copy, copy.strides)
        held = copy
    return expanded(held) if kind is Layout.ROWS else held.image


def _lifted(name: str, out: Shape, kind: Layout, lowering: Lowering) -> Held:
    """An operand of lower rank with leading axes of 1, as broadcasting sees it."""
    shape = (1,) * (len(out) - len(lowering.shapes[name])) + tuple(lowering.shapes[name])
    values = lowering.bytes_of_constant(name)
    if values is not None:
        return lowering.constant(values.reshape(shape), kind)
    source = lowering.get(name)
    found = lowering.view(source, shape, kind)
    if found is None:
        found = image_of(Buffer("arena", 0), shape, kind)
        lowering.reshape(source, found)
    return found


def _table(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Table)
    source = lowering.get(unit.inputs[0], lowering.home(unit.output))
    target = lowering.allocate(unit.output)
    lowering.emit("table", target.image, source.image, table=Constant(work.values))


def _maxpool(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.MaxPool)
    source = lowering.get(unit.inputs[0], Layout.PIXELS)
    target = lowering.allocate(unit.output, Layout.PIXELS)
    bottom, right = work.window.padding[2:]
    window = {**window_fields(work.window), "pad_bottom": bottom, "pad_right": right}
    lowering.emit("maxpool", target.image, source.image, **window)


def _average_pool(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.AveragePool) and unit.quantization is not None
    source = lowering.get(unit.inputs[0], Layout.PIXELS)
    target = lowering.allocate(unit.output, Layout.PIXELS)
    bottom, right = work.window.padding[2:]
    shift = _shift_of_halves(work, unit.quantization)
    zero_in, zero_out = work.input.stored_zero + shift, unit.quantization.stored_zero + shift
    lowering.emit(
        "avgpool",
        dataclasses.replace(result(target.image, unit), zero_point=zero_out),
        dataclasses.replace(source.image.quantized(work.input), zero_point=zero_in),
        **window_fields(work.window),
        pad_bottom=bottom,
        pad_right=right,
        count_include_pad=int(work.count_include_pad),
        in_scale=work.input.scale,
        out_scale=unit.quantization.scale,
    )


def _shift_of_halves(work: units.AveragePool, out: Quantization) -> int:
    """What to add to both zero points so that a mean half way between two steps goes to the even
    one after the zero point is added, as in QLinearAveragePool; the card adds it after rounding.

    With one scale on both sides the mean moves by a whole step and nothing else changes; with two
    scales there are hardly any halves.
    """
    if work.is_global or work.count_include_pad or work.input.scale != out.scale:
        return 0
    if out.stored_zero % 2 == 0:
        return 0
    return -1 if work.input.stored_zero > 0 else int(out.stored_zero < 255)


def _resize(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Resize)
    source = lowering.get(unit.inputs[0], Layout.PIXELS)
    target = lowering.allocate(unit.output, Layout.PIXELS)
    lowering.emit(
        "resize",
        target.image,
        source.image,
        rows=Constant(work.rows),
        columns=Constant(work.columns),
    )


def _softmax(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Softmax)
    parameters: dict[str, Any] = {"table": Constant(work.table), "ratio": work.ratio}
    kind = softmax_layout(unit)
    if kind is not None:
        source = lowering.get(unit.inputs[0], kind)
        target = lowering.allocate(unit.output, kind)
        lowering.emit("softmax", result(target.image, unit), source.image, **parameters)
        return
    if work.flat:
        _flat_softmax(unit, lowering, parameters)
        return
    order = [axis for axis in range(len(unit.shape)) if axis != work.axis] + [work.axis]
    shape = tuple(unit.shape[axis] for axis in order)
    rows = [image_of(Buffer("arena", 0), shape, Layout.ROWS) for _ in range(2)]
    source = lowering.get(unit.inputs[0])
    lowering.map(shape, source, [source.strides[axis] for axis in order], rows[0], rows[0].strides)
    lowering.emit("softmax", result(rows[1].image, unit), rows[0].image, **parameters)
    target = lowering.allocate(unit.output)
    lowering.map(shape, rows[1], rows[1].strides, target, [target.strides[axis] for axis in order])


def _flat_softmax(unit: Unit, lowering: Lowering, parameters: dict[str, Any]) -> None:
    work = unit.work
    assert isinstance(work, units.Softmax)
    shape = (math.prod(unit.shape[: work.axis]), math.prod(unit.shape[work.axis :]))
    rows = [image_of(Buffer("arena", 0), shape, Layout.ROWS) for _ in range(2)]
    lowering.reshape(lowering.get(unit.inputs[0]), rows[0])
    lowering.emit("softmax", result(rows[1].image, unit), rows[0].image, **parameters)
    lowering.reshape(rows[1], lowering.allocate(unit.output))


def _reshape(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    kind = lowering.home(unit.output)
    source = lowering.get(unit.inputs[0])
    if source.image.buffer.place == "input":  # a host array has no gaps
        strides = row_major(unit.shape)
        lowering.hold(unit.output, Held(unit.shape, Layout.ROWS, source.image, strides))
        return
    if source.shape == unit.shape and source.layout is kind:
        same = dataclasses.replace(source, shape=unit.shape)
        if lowering.halo_of(unit.output) == NO_HALO:
            lowering.hold(unit.output, same)
            return
    bare = lowering.halo_of(unit.output) == NO_HALO or kind is Layout.ROWS
    found = lowering.view(source, unit.shape, kind) if bare else None
    if found is not None:
        lowering.hold(unit.output, found)
    else:
        lowering.reshape(source, lowering.allocate(unit.output, kind))


def _transpose(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Transpose)
    source = lowering.get(unit.inputs[0])
    target = lowering.allocate(unit.output)
    steps = [source.strides[axis] for axis in work.permutation]
    lowering.map(unit.shape, source, steps, target, target.strides)


def _concat(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Concat)
    target = lowering.find(unit.output) or lowering.allocate(unit.output)
    start = 0
    for name in unit.inputs:
        source = lowering.get(name)
        if not lowering.in_place(name, unit.output):
            at = start * target.strides[work.axis]
            lowering.map(source.shape, source, source.strides, target, target.strides, out_start=at)
        start += source.shape[work.axis]


def _pad(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Pad)
    source = lowering.get(unit.inputs[0])
    target = lowering.allocate(unit.output, fill=False)
    lowering.emit("fill", target.image, whole=1, value=work.value)
    zero = lowering.zero_of_halo(unit.output)
    if zero is not None:
        lowering.fill_halo(target.image, zero)
    at = sum(map(operator.mul, work.before, target.strides))
    lowering.map(source.shape, source, source.strides, target, target.strides, out_start=at)


def _edge(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    """Float to bytes and back, between a port and the arena."""
    assert unit.quantization is not None
    source = lowering.get(unit.inputs[0])
    if isinstance(unit.work, units.Quantize):
        target = lowering.allocate(unit.output)
        target = dataclasses.replace(target, image=target.image.quantized(unit.quantization))
    else:
        target = lowering.port_of(unit.output)
        source = dataclasses.replace(source, image=source.image.quantized(unit.quantization))
    lowering.copy(source, target)


Rule = Callable[[Unit, Lowering, Array | None], None]
_RULES: dict[type, Rule] = {
    units.Quantize: _edge,
    units.Dequantize: _edge,
    units.Table: _table,
    units.Convolution: lower_convolution,
    units.Add: _add,
    units.Multiply: _multiply,
    units.MaxPool: _maxpool,
    units.AveragePool: _average_pool,
    units.Resize: _resize,
    units.Softmax: _softmax,
    units.Reshape: _reshape,
    units.Transpose: _transpose,
    units.Concat: _concat,
    units.Pad: _pad,
    units.Product: lower_product,
    units.LayerNorm: lower_layer_norm,
    units.FloatProduct: lower_float_product,
    units.Gather: lower_gather,
    units.FromInteger: lower_from_integer,
    units.DynamicQuantize: lower_dynamic_quantize,
    units.Slice: lower_slice,
    units.Expand: lower_expand,
}

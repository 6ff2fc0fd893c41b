# SPDX-License-Identifier: Apache-2.0
"""Convolutions to instructions, alone and with an addition as their end."""

from typing import Any

from device.binding import abi
from device.compiler import units
from device.compiler.emit import Constant
from device.compiler.images import Buffer, Held, Image, Layout, image_of
from device.compiler.lower import Lowering, result, stored, sum_fields, window_fields
from device.compiler.plan import Array
from device.compiler.units import Unit

Ending = tuple[Unit, Array | None]
"""A unit and the table that is applied to what it stores."""


def lower_convolution(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Convolution)
    target = lowering.allocate(unit.output, Layout.ROWS if work.matrix else Layout.PIXELS)
    ending = stored(work.clamp, table)
    if work.floats:
        ending["addend"] = abi.NONE if work.addend is None else Constant(work.addend)
    _convolve(
        unit,
        lowering,
        target.image if work.floats else result(target.image, unit),
        b=lowering.ranges[unit.inputs[0]] if work.dynamic else None,
        **ending,
    )


def _convolve(unit: Unit, lowering: Lowering, out: Image, b: Image | None, **ending: Any) -> None:
    work = unit.work
    assert isinstance(work, units.Convolution)
    source = lowering.get(unit.inputs[0], Layout.ROWS if work.matrix else Layout.PIXELS)
    if any(work.window.padding) and lowering.zero_of_halo(unit.inputs[0]) != work.input_zero:
        source = _own_halo(source, work, lowering)
    lowering.emit(
        "conv",
        out,
        source.image,
        b,
        macs=out.n * out.h * out.w * out.c * work.weights[0].size,
        **window_fields(work.window),
        groups=work.groups,
        weights=Constant(work.weights),
        bias=Constant(work.bias),
        multiplier=Constant(work.multiplier),
        **ending,
    )


def _own_halo(source: Held, work: units.Convolution, lowering: Lowering) -> Held:
    """A copy for a convolution whose zero point is not that of the tensor's other readers."""
    copy = image_of(Buffer("arena", 0), source.shape, Layout.PIXELS, work.window.padding)
    lowering.fill_halo(copy.image, work.input_zero)
    lowering.copy(source, copy)
    return copy


def lower_residual(addition: Ending, convolution: Ending, lowering: Lowering) -> None:
    """An addition as the end of the convolution that gives one of its operands."""
    (unit, table), (made, between) = addition, convolution
    work = unit.work
    assert isinstance(work, units.Add)
    first = unit.inputs[1] == made.output
    other = lowering.get(unit.inputs[0 if first else 1], lowering.home(unit.output))
    target = lowering.allocate(unit.output)
    if _extents(other.image) != _extents(target.image):
        copy = image_of(Buffer("arena", 0), unit.shape, target.layout)
        lowering.copy(other, copy)
        other = copy
    lowering.node = made.node.index
    _convolve(
        made,
        lowering,
        result(target.image, made),
        b=other.image,
        residual_first=int(first),
        residual=sum_fields(work, work.a, work.b) | stored(work.clamp, table),
        **stored(_clamp_of(made), between),
    )


def _extents(image: Image) -> tuple[int, int, int, int]:
    return image.n, image.h, image.w, image.c


def _clamp_of(unit: Unit) -> units.Clamp:
    assert isinstance(unit.work, units.Convolution)
    return unit.work.clamp

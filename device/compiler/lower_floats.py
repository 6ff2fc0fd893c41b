# SPDX-License-Identifier: Apache-2.0
"""Float work to instructions: vector programs, products, gathers, and quantizations of a run."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from device.binding import abi
from device.compiler import units
from device.compiler.emit import Constant
from device.compiler.graph import Shape
from device.compiler.images import Buffer, Held, Image, Layout, image_of, quantized
from device.compiler.lower import Lowering
from device.compiler.lower_products import matrices
from device.compiler.plan import Array
from device.compiler.quant import Quantization
from device.compiler.units import Unit
from device.compiler.vector import OUTER_MAX
from device.compiler.vector_groups import Group


@dataclasses.dataclass
class _Operand:
    """A tensor as the domain's axes see it: elements from index to index, 0 where it repeats."""

    held: Held
    steps: list[int]
    quantization: Quantization | None


def lower_group(group: Group, lowering: Lowering) -> None:
    """One VECTOR."""
    domain, program = group.domain, group.program
    lowering.node = group.units[-1].node.index
    sources = [
        _operand(lowering.floats(name), domain, quantization)
        for name, quantization in program.sources
    ]
    targets = [
        _operand(lowering.allocate(unit.output, Layout.ROWS), domain, unit.quantization)
        for unit in program.targets
    ]
    operands = [*sources, *targets]
    outer = _joined(domain[:-1], operands)
    images = [_image(operand, outer, at, domain[-1]) for at, operand in enumerate(operands)]
    code = np.zeros(len(program.code), abi.VECTOR_STEP)
    for at, (name, out, args, value) in enumerate(program.code):
        code[at]["code"], code[at]["out"] = abi.VECTOR_CODES[name], out
        for field, arg in zip("abc", args, strict=False):
            code[at][field] = arg
        code[at]["value"] = value
    first, *more = images[len(sources) :]
    lowering.emit(
        "vector",
        first,
        sources=tuple(images[: len(sources)]),
        more=tuple(more),
        row=domain[-1],
        code=Constant(code),
        steps=len(code),
    )


def _operand(held: Held, domain: Shape, quantization: Quantization | None) -> _Operand:
    missing = len(domain) - len(held.shape)
    sizes = (1,) * missing + tuple(held.shape)
    strides = (0,) * missing + tuple(held.strides)
    steps = [0 if size == 1 else step for size, step in zip(sizes, strides, strict=True)]
    return _Operand(held, steps, quantization)


def _joined(sizes: Shape, operands: Sequence[_Operand]) -> list[tuple[int, list[int]]]:
    """The outer axes as (size, steps of each operand), neighbours joined where all run on."""
    found: list[tuple[int, list[int]]] = []
    for axis, size in enumerate(sizes):
        if size == 1:
            continue
        steps = [operand.steps[axis] for operand in operands]
        if found and found[-1][1] == [size * step for step in steps]:
            found[-1] = (found[-1][0] * size, steps)
        else:
            found.append((size, steps))
    assert len(found) <= OUTER_MAX, "seen when the group was made"
    return [(1, [0] * len(operands))] * (OUTER_MAX - len(found)) + found


def _image(
    operand: _Operand, outer: Sequence[tuple[int, list[int]]], number: int, row: int
) -> Image:
    """The entry of the tensor table for operand `number`."""
    image, item = operand.held.image, operand.held.image.item
    c = row if operand.steps[-1] else 1
    sizes, strides = [], []
    step = c * item
    for size, steps in reversed(outer):
        count = size if steps[number] else 1
        step = steps[number] * item if count > 1 else step
        sizes.append(count)
        strides.append(step)
        step *= count
    (w, h, n), (stride_w, stride_h, stride_n) = sizes, strides
    image = dataclasses.replace(
        image, n=n, h=h, w=w, c=c, stride_n=stride_n, stride_h=stride_h, stride_w=stride_w
    )
    return quantized(image, operand.quantization)


def lower_gather(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Gather)
    rows, *rest = lowering.shapes[unit.inputs[0]]
    c = math.prod(rest)
    source = lowering.table(unit.inputs[0], (rows, c))
    image = quantized(source.image, work.table)
    index = lowering.get(unit.inputs[1])
    target = lowering.allocate(unit.output, Layout.ROWS).image
    w, step = math.prod(index.shape), c * target.item
    out = dataclasses.replace(
        target, n=1, h=1, w=w, c=c, stride_w=step, stride_h=w * step, stride_n=w * step
    )
    lowering.emit("gather", out, image, index.image)


def lower_from_integer(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    lowering.copy(lowering.get(unit.inputs[0]), lowering.allocate(unit.output, Layout.ROWS))


def lower_dynamic_quantize(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    source = lowering.floats(unit.inputs[0])
    found = image_of(Buffer("arena", 0), (2,), Layout.ROWS, kind="f32").image
    lowering.emit("range", found, matrices(source, split=False, batch=1))
    lowering.ranges[unit.output] = found
    target = lowering.allocate(unit.output, fill=False)
    if any(target.image.halo):
        lowering.emit("fill", target.image, b=found, whole=0, value=0)
    lowering.copy(source, target, b=found)


def lower_slice(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Slice)
    source, target = lowering.get(unit.inputs[0]), lowering.allocate(unit.output)
    start = sum(at * step for at, step in zip(work.starts, source.strides, strict=True))
    steps = [pace * step for pace, step in zip(work.steps, source.strides, strict=True)]
    lowering.map(unit.shape, source, steps, target, target.strides, start=start)


def lower_expand(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    source, target = lowering.get(unit.inputs[0], Layout.ROWS), lowering.allocate(unit.output)
    missing = len(unit.shape) - len(source.shape)
    sizes = (1,) * missing + tuple(source.shape)
    strides = (0,) * missing + tuple(source.strides)
    steps = [0 if size == 1 else step for size, step in zip(sizes, strides, strict=True)]
    lowering.map(unit.shape, source, steps, target, target.strides)

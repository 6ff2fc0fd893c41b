# SPDX-License-Identifier: Apache-2.0
"""Units that map byte to byte, composed: a chain of tables, sums and products with one constant,
or of two functions of the same tensor, is one table, exactly."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from device.compiler.elementwise import fused, one_per_run, sum_of
from device.compiler.graph import Shape
from device.compiler.plan import Array
from device.compiler.units import Add, Clamp, Multiply, Reshape, Table, Unit

F32 = np.float32
IDENTITY = np.arange(256, dtype=np.uint8)


def compose(
    units: Sequence[Unit],
    shapes: Mapping[str, Shape],
    constants: Mapping[str, Array],
) -> list[Unit]:
    """The units with every function of one tensor's bytes as a Table of it; what nobody reads then
    is still there. `constants` as bytes on the card."""
    functions: dict[str, tuple[str, Array]] = {}
    found: list[Unit] = []
    for unit in units:
        function = _function(unit, functions, shapes, constants)
        if function is not None:
            functions[unit.output] = function
            root, values = function
            unit = dataclasses.replace(unit, work=Table(values), inputs=(root,))
        found.append(unit)
    return found


def _function(
    unit: Unit,
    functions: Mapping[str, tuple[str, Array]],
    shapes: Mapping[str, Shape],
    constants: Mapping[str, Array],
) -> tuple[str, Array] | None:
    """The tensor whose bytes decide the unit's, and how."""
    work = unit.work
    if isinstance(work, Table):
        root, values = functions.get(unit.inputs[0], (unit.inputs[0], IDENTITY))
        return root, work.values[values]
    if not isinstance(work, Add | Multiply):
        return None
    operands: list[Array] = []
    roots: set[str] = set()
    for name in unit.inputs:
        constant = constants.get(name)
        if constant is not None and constant.size == 1:
            operands.append(np.full(256, constant.reshape(-1)[0], np.uint8))
        elif constant is None and shapes[name] == unit.shape:
            root, values = functions.get(name, (name, IDENTITY))
            roots.add(root)
            operands.append(values)
        else:
            return None
    if len(roots) != 1:
        return None
    first = shapes[unit.inputs[0]]
    swap = first != unit.shape and one_per_run(first, unit.shape)
    return roots.pop(), _table_of(work, operands, swap)


def _table_of(work: Add | Multiply, operands: Sequence[Array], swap: bool) -> Array:
    """ADD and MUL of device/abi/program.h, byte by byte."""
    a, b = (values.astype(np.int32) for values in operands)
    if isinstance(work, Multiply):
        product = ((a - work.zero_a) * (b - work.zero_b)).astype(F32)
        return _stored(product * F32(work.ratio) + F32(work.zero), work.offset_out, work.clamp)
    first, second = (work.b, work.a) if swap else (work.a, work.b)
    if swap:
        a, b = b, a
    numbers = sum_of(first, second, work.out)
    ratio_a, ratio_b, fixed = F32(numbers.ratio_a), F32(numbers.ratio_b), F32(numbers.fixed)
    sums = fused(a - first.offset, ratio_a, fused(b - second.offset, ratio_b, fixed))
    return _stored(sums, work.out.offset, work.clamp)


def _stored(values: Array, offset: int, clamp: Clamp) -> Array:
    low, high = F32(0 - offset), F32(255 - offset)
    steps = np.rint(np.minimum(np.maximum(values, low), high)).astype(np.int32) + offset
    return np.clip(steps, clamp.lo, clamp.hi).astype(np.uint8)


def lift_tables(
    units: Sequence[Unit], outputs: Collection[str], shapes: Mapping[str, Shape]
) -> list[Unit]:
    """A Table behind Reshapes that nobody else reads comes before them, so that what made the
    bytes may apply it."""
    reads: dict[str, int] = {}
    for unit in units:
        for name in unit.inputs:
            reads[name] = reads.get(name, 0) + 1
    reshapes = {unit.output: unit for unit in units if isinstance(unit.work, Reshape)}
    found: list[Unit] = []
    gone: set[Unit] = set()
    for unit in units:
        source = unit.inputs[0]
        while (
            isinstance(unit.work, Table)
            and source in reshapes
            and reads[source] == 1
            and source not in outputs
        ):
            gone.add(reshapes[source])
            source = reshapes[source].inputs[0]
        if source == unit.inputs[0]:
            found.append(unit)
            continue
        above = f"{unit.output}/table"
        shape = shapes[source]
        found.append(dataclasses.replace(unit, inputs=(source,), output=above, shape=shape))
        found.append(dataclasses.replace(unit, work=Reshape(), inputs=(above,)))
    return [unit for unit in found if unit not in gone]

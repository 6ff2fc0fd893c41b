# SPDX-License-Identifier: Apache-2.0
"""Additions that a convolution does as it stores: the shortcuts of residual networks."""

from collections.abc import Callable, Collection, Mapping, Sequence

from device.compiler.graph import Shape
from device.compiler.images import Layout
from device.compiler.units import Add, Convolution, Unit


def residuals(
    segment: Sequence[Unit],
    outputs: Collection[str],
    tables: Mapping[Unit, Unit],
    shapes: Mapping[str, Shape],
    home: Callable[[str], Layout],
) -> dict[Unit, Unit]:
    """For additions of two tensors as large as the result, the convolution that made one of them
    and whose result nobody else reads: of two the later one, so that none waits for the other
    operand. `tables`: what a unit applies as it stores; `shapes` of all tensors."""
    made: dict[str, tuple[int, Unit]] = {}
    readers: dict[str, int] = {}
    for index, unit in enumerate(segment):
        made[tables[unit].output if unit in tables else unit.output] = (index, unit)
        for name in unit.inputs:
            readers[name] = readers.get(name, 0) + 1
    found: dict[Unit, Unit] = {}
    for unit in segment:
        if not isinstance(unit.work, Add):
            continue
        known = [made[name] for name in unit.inputs if name in made]
        index, latest = max(known, key=lambda entry: entry[0], default=(0, None))
        if latest is None or not _plain(latest, home(unit.output)):
            continue
        name = tables[latest].output if latest in tables else latest.output
        alone = readers[name] == 1 and name not in outputs
        if alone and all(shapes.get(name) == unit.shape for name in unit.inputs):
            found[unit] = latest
    return found


def _plain(unit: Unit, layout: Layout) -> bool:
    work = unit.work
    if not isinstance(work, Convolution) or work.floats:
        return False
    return layout is (Layout.ROWS if work.matrix else Layout.PIXELS)

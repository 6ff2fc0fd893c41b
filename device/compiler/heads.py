# SPDX-License-Identifier: Apache-2.0
"""Attention heads without copies: a MatMul reads the heads of [.., T, H * D] where they lie, and
writes them side by side, so that the Reshape and Transpose around it need not run."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from device.compiler.graph import Shape
from device.compiler.units import Matrices, Reshape, Transpose, Unit

SPLIT = (0, 2, 1, 3)  # [B, T, H, D] -> [B, H, T, D], and back


@dataclasses.dataclass(frozen=True)
class _View:
    """An operand as it lies in `source`; `heads` 0 where it is not split."""

    source: str
    transposed: bool
    heads: int = 0
    batch: int = 1


def fold_heads(
    units: Sequence[Unit], outputs: Collection[str], shapes: Mapping[str, Shape]
) -> list[Unit]:
    """The units with MatMuls that look through transposes; what nobody reads then is still there.
    `shapes` of every tensor that the units name."""
    producers = {unit.output: unit for unit in units}
    readers: dict[str, list[Unit]] = {}
    for unit in units:
        for name in dict.fromkeys(unit.inputs):
            readers.setdefault(name, []).append(unit)
    folded: list[Unit] = []
    gone: set[Unit] = set()
    for unit in units:
        if isinstance(unit.work, Matrices):
            unit = _reading(unit, producers, shapes)
            path = _joined(unit, readers, outputs)
            if path:
                unit = _writing(unit, path[-1])
                gone |= set(path)
        folded.append(unit)
    return [unit for unit in folded if unit not in gone]


def _reading(unit: Unit, producers: Mapping[str, Unit], shapes: Mapping[str, Shape]) -> Unit:
    work = unit.work
    assert isinstance(work, Matrices)
    first = _view(unit.inputs[0], producers, shapes)
    second = _view(unit.inputs[1], producers, shapes)
    if first is not None and not first.transposed:
        unit = dataclasses.replace(unit, inputs=(first.source, unit.inputs[1]))
        if first.heads:
            work = dataclasses.replace(work, heads=first.heads, a_split=True, batch=first.batch)
    if second is not None and (not second.heads or work.heads in (0, second.heads)):
        unit = dataclasses.replace(unit, inputs=(unit.inputs[0], second.source))
        work = dataclasses.replace(work, b_transposed=second.transposed)
        if second.heads:
            work = dataclasses.replace(work, heads=second.heads, b_split=True, batch=second.batch)
    return dataclasses.replace(unit, work=work)


def _view(name: str, producers: Mapping[str, Unit], shapes: Mapping[str, Shape]) -> _View | None:
    """What a MatMul can read instead of this tensor; None where it is not transposed."""
    unit = producers.get(name)
    if unit is None or not isinstance(unit.work, Transpose):
        return None
    order, source = unit.work.permutation, unit.inputs[0]
    rank = len(order)
    if order in (SPLIT, (0, 2, 3, 1)):
        found = _side_by_side(source, shapes[source], producers, shapes)
        if found is not None:
            batch, _, heads, _ = shapes[source]
            return _View(found, order != SPLIT, heads, batch)
    if rank >= 2 and order == (*range(rank - 2), rank - 1, rank - 2):
        inner = _view(source, producers, shapes) or _View(source, transposed=False)
        return dataclasses.replace(inner, transposed=not inner.transposed)
    return None


def _side_by_side(
    name: str, shape: Shape, producers: Mapping[str, Unit], shapes: Mapping[str, Shape]
) -> str | None:
    """The tensor with all heads in its last axis that reshapes to [B, T, H, D]."""
    while shapes[name][-1] != shape[2] * shape[3]:
        unit = producers.get(name)
        if unit is None or not isinstance(unit.work, Reshape):
            return None
        name = unit.inputs[0]
        if not shapes[name]:
            return None
    return name


def _joined(
    unit: Unit, readers: Mapping[str, Sequence[Unit]], outputs: Collection[str]
) -> list[Unit]:
    """The Transpose behind a MatMul and the Reshapes up to the one that puts heads side by side;
    empty where others read in between."""
    work = unit.work
    assert isinstance(work, Matrices)
    if len(unit.shape) != 4 or (work.heads and work.heads != unit.shape[1]):
        return []
    wanted = unit.shape[1] * unit.shape[3]
    path: list[Unit] = []
    name = unit.output
    while name not in outputs and len(readers.get(name, ())) == 1:
        reader = readers[name][0]
        expected = isinstance(reader.work, Reshape) if path else _splits(reader)
        if not expected:
            return []
        path.append(reader)
        if len(path) > 1 and reader.shape and reader.shape[-1] == wanted:
            return path
        name = reader.output
    return []


def _splits(unit: Unit) -> bool:
    return isinstance(unit.work, Transpose) and unit.work.permutation == SPLIT


def _writing(unit: Unit, last: Unit) -> Unit:
    work = unit.work
    assert isinstance(work, Matrices)
    batch, heads = unit.shape[:2]
    work = dataclasses.replace(work, heads=heads, out_split=True, batch=batch)
    return dataclasses.replace(unit, work=work, output=last.output, shape=last.shape)

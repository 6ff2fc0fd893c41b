# SPDX-License-Identifier: Apache-2.0
"""Chooses how each quantized tensor is laid out, and how much halo convolutions want around it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device.compiler.graph import Shape
from device.compiler.images import Halo, Layout
from device.compiler.units import (
    Add,
    AveragePool,
    Concat,
    Convolution,
    MaxPool,
    Multiply,
    Pad,
    Reshape,
    Resize,
    Softmax,
    Table,
    Unit,
)


class Groups:
    """Union-find over tensors that elementwise work ties to one layout."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        parent = self._parent.setdefault(name, name)
        while parent != self._parent[parent]:
            self._parent[parent] = self._parent[self._parent[parent]]
            parent = self._parent[parent]
        self._parent[name] = parent
        return parent

    def join(self, a: str, b: str) -> None:
        self._parent[self.root(a)] = self.root(b)


def choose(units: Sequence[Unit], shapes: Mapping[str, Shape]) -> dict[str, Layout]:
    """PIXELS for tensors tied to a convolution, pool or resize, ROWS for all others."""
    groups = Groups()
    pixels: list[str] = []
    for unit in units:
        work = unit.work
        if isinstance(work, Add | Multiply | Table | Concat | Pad):
            for name in unit.inputs:
                if name in shapes and len(shapes[name]) == len(unit.shape):
                    groups.join(name, unit.output)
        anchored = isinstance(work, MaxPool | AveragePool | Resize) or (
            isinstance(work, Convolution) and not work.matrix
        )
        if anchored or softmax_layout(unit) is Layout.PIXELS:
            pixels += [unit.inputs[0], unit.output]
    anchors = {groups.root(name) for name in pixels}
    names = {name for unit in units for name in (*unit.inputs, unit.output)}
    return {name: Layout.PIXELS if groups.root(name) in anchors else Layout.ROWS for name in names}


def softmax_layout(unit: Unit) -> Layout | None:
    """The layout that puts the axis of a Softmax last; None for other work or another axis."""
    if not isinstance(unit.work, Softmax) or unit.work.flat:
        return None
    if unit.work.axis == len(unit.shape) - 1:
        return Layout.ROWS
    return Layout.PIXELS if unit.work.axis == 1 and len(unit.shape) in (3, 4) else None


def halos(units: Sequence[Unit]) -> dict[str, tuple[int, Halo]]:
    """Per tensor the zero point and extent of its halo: the largest padding of the convolutions
    that read it with the zero point of the first."""
    found: dict[str, tuple[int, Halo]] = {}
    for unit in units:
        work = unit.work
        if not isinstance(work, Convolution) or not any(work.window.padding):
            continue
        name = unit.inputs[0]
        zero, halo = found.get(name, (work.input_zero, (0, 0, 0, 0)))
        if zero == work.input_zero:
            top, left, bottom, right = map(max, zip(halo, work.window.padding, strict=True))
            found[name] = (zero, (top, left, bottom, right))
    return found


@dataclass(frozen=True)
class Slice:
    """A tensor that is written straight into channels of a Concat's result, from `start` on."""

    parent: str
    start: int


def slices(
    units: Sequence[Unit], shapes: Mapping[str, Shape], homes: Mapping[str, Layout]
) -> dict[str, Slice]:
    """Inputs of concatenations along channels that their producers can write in place. One with
    a halo of its own, or that shares the bytes of another tensor, is copied instead."""
    producers = {unit.output: unit for unit in units}
    bordered = halos(units)
    found: dict[str, Slice] = {}
    for unit in units:
        if not isinstance(unit.work, Concat):
            continue
        home = homes[unit.output]
        channels = 1 if home is Layout.PIXELS else len(unit.shape) - 1
        start = 0
        for name in unit.inputs:
            producer = producers.get(name)
            if (
                unit.work.axis == channels
                and producer is not None
                and not isinstance(producer.work, Reshape | Pad)
                and homes[name] is home
                and unit.inputs.count(name) == 1
                and name not in bordered
                and name not in found
            ):
                found[name] = Slice(unit.output, start)
            start += shapes[name][unit.work.axis]
    return found

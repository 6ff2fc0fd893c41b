# SPDX-License-Identifier: Apache-2.0
"""Shapes to compile for, and whether a model treats the items of a batch one by one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from device.compiler.graph import Graph, Shape
from device.compiler.reader import check_size
from device.compiler.units import (
    Add,
    Concat,
    DynamicQuantize,
    LayerNorm,
    Matrices,
    Multiply,
    Slice,
    Softmax,
    Transpose,
    Unit,
    Vector,
)
from device.errors import ModelError

TRIAL_SIZES = (32, 64, 224, 16, 8)  # for the placement of a model whose sizes only a feed settles


@dataclass(frozen=True)
class Declared:
    """What the model says of its inputs.

    `shapes` has a size for every dimension: the given or declared one, 1 for a symbolic batch,
    `trial` for others that are symbolic. `dynamic`: there are such others. `batch`: dimension 0 of
    every input is the batch (symbolic, or the same number above 1). `complete`: every input is a
    tensor of known rank.
    """

    shapes: dict[str, Shape]
    dynamic: bool
    batch: bool
    complete: bool

    def at(self, items: int) -> dict[str, Shape]:
        """The shapes with a batch of so many items."""
        return {name: (items, *shape[1:]) for name, shape in self.shapes.items()}


def declared(
    proto: onnx.ModelProto,
    given: Mapping[str, Sequence[int]],
    name: str,
    trial: int = TRIAL_SIZES[0],
) -> Declared:
    """Raises ModelError where `given` contradicts what the model declares."""
    initializers = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in initializers]
    unknown = set(given) - {value.name for value in inputs}
    if unknown:
        names = ", ".join(value.name for value in inputs)
        raise ModelError(f"{name}: has no input {sorted(unknown)[0]!r}; its inputs are {names}")
    shapes: dict[str, Shape] = {}
    leads: list[int | None] = []
    dynamic = False
    for value in inputs:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            return Declared({}, dynamic=False, batch=False, complete=False)
        sizes = [int(d.dim_value) if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if any(size is not None and size < 0 for size in sizes):
            raise ModelError(f'{name}: input "{value.name}" has a negative dimension: {sizes}')
        if value.name in given:
            shapes[value.name] = _fitting(value.name, sizes, given[value.name], name)
            leads.append(1)
            continue
        dynamic = dynamic or None in sizes[1:]
        leads.append(sizes[0] if sizes else 1)
        shapes[value.name] = tuple(
            (trial if axis else 1) if size is None else size for axis, size in enumerate(sizes)
        )
    for key, shape in shapes.items():
        check_size(key, shape, name)
    batch = bool(leads) and len(set(leads)) == 1 and leads[0] not in (0, 1)
    return Declared(shapes, dynamic, batch, complete=True)


def _fitting(tensor: str, sizes: Sequence[int | None], given: Sequence[int], name: str) -> Shape:
    fits = len(sizes) == len(given) and all(
        size is None or size == want for size, want in zip(sizes, given, strict=True)
    )
    if not fits or any(size < 0 for size in given):
        shown = [("?" if size is None else size) for size in sizes]
        raise ModelError(f'{name}: input "{tensor}" takes shape {shown}, got {list(given)}')
    return tuple(int(size) for size in given)


def separable(
    units: Iterable[Unit], one: Graph, others: Iterable[Unit], two: Graph, edges: Iterable[str]
) -> bool:
    """Whether units found at batch 1 work on each item alone, seen from the same units at batch 2:
    every tensor's dimension 0 doubles, and nothing runs along it. `edges` are further tensors that
    cross between segments."""
    pairs = list(zip(units, others, strict=False))
    if len(pairs) != len(list(others)):
        return False
    for unit, other in pairs:
        if (unit.inputs, unit.output) != (other.inputs, other.output) or _mixes(unit, one):
            return False
        for name in (*unit.inputs, unit.output):
            if not _scales(name, one, two):
                return False
    return all(_scales(name, one, two) for name in edges)


def _scales(name: str, one: Graph, two: Graph) -> bool:
    if name in one.constants:
        first, second = one.constants.get(name), two.constants.get(name)
        return first is not None and second is not None and np.array_equal(first, second)
    first_shape, second_shape = one.shape(name), two.shape(name)
    if not first_shape or not second_shape:
        return False
    return second_shape == (2 * first_shape[0], *first_shape[1:])


def _mixes(unit: Unit, graph: Graph) -> bool:
    """Whether the work runs along dimension 0, or lines it up with another axis."""
    work = unit.work
    if isinstance(work, DynamicQuantize):
        return True  # one scale for the whole batch
    if isinstance(work, Vector) and len(unit.shape) < 2:
        return True
    if isinstance(work, Add | Multiply | Vector):
        return any(
            len(graph.shape(name) or ()) != len(unit.shape)
            for name in unit.inputs
            if name not in graph.constants
        )
    if isinstance(work, Matrices):
        # A matrix's own rows may be the batch only in the first operand.
        varying = [n for n in unit.inputs if n not in graph.constants]
        return any(len(graph.shape(name) or ()) != len(unit.shape) for name in varying) or (
            len(unit.shape) == 2 and varying != [unit.inputs[0]]
        )
    if isinstance(work, LayerNorm):
        return len(unit.shape) == 1
    if isinstance(work, Softmax | Concat):
        return work.axis == 0
    if isinstance(work, Slice):
        return (work.starts[0], work.steps[0]) != (0, 1)
    return isinstance(work, Transpose) and work.permutation[0] != 0

# SPDX-License-Identifier: Apache-2.0
"""Segments ready to run: card programs from Units, onnxruntime models from the model's nodes."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import numpy_helper

from device.compiler.bytewise import compose, lift_tables
from device.compiler.emit import emit
from device.compiler.graph import FLOAT, INT8, Graph, Shape, numpy_dtype, outer_names
from device.compiler.heads import fold_heads
from device.compiler.images import Kind
from device.compiler.lower import Lowering
from device.compiler.lower_convolution import lower_residual
from device.compiler.lower_floats import lower_group
from device.compiler.lower_units import lower_unit
from device.compiler.plan import Array, CardSegment, HostSegment, Port
from device.compiler.residual import residuals
from device.compiler.units import (
    FLOATING,
    MOVING,
    Add,
    Convolution,
    DynamicQuantize,
    FromInteger,
    Multiply,
    Product,
    Quantize,
    Reshape,
    Slice,
    Table,
    Transpose,
    Unit,
)
from device.compiler.vector_groups import Group, scheduled

REPEATED = (DynamicQuantize, FromInteger, Reshape, Slice, Transpose)
"""Work that may be merged where it is alike: it has no numbers but those that it compares by."""

_KINDS: dict[int, Kind] = {
    FLOAT: "f32",
    INT8: "i8",
    int(onnx.TensorProto.INT64): "i64",
    int(onnx.TensorProto.INT32): "i32",
    int(onnx.TensorProto.BOOL): "bool",
}


def card_segment(
    segment: Sequence[Unit],
    graph: Graph,
    inputs: Sequence[str],
    outputs: Sequence[str],
    batchable: bool,
) -> CardSegment:
    """The program of units in running order. Raises Unplaced where the card has no room for it."""
    segment = _simplified(segment, graph, outputs)
    constants = _constants(segment, graph)
    shapes = _shapes(segment, graph)
    lowering = Lowering(segment, shapes, constants, _kinds(segment, graph))
    for name in inputs:
        lowering.add_input(name, _kind(graph, name))
    for name in outputs:
        lowering.add_output(name, _kind(graph, name))
    fused = _fused_tables(segment, outputs)
    sums = residuals(segment, outputs, fused, shapes, lowering.home)
    absorbed = {*fused.values(), *sums.values()}
    for unit in scheduled(segment, outputs, constants, shapes):
        if isinstance(unit, Group):
            lower_group(unit, lowering)
        elif unit in sums:
            lower_residual(_ending(unit, fused), _ending(sums[unit], fused), lowering)
        elif unit not in absorbed:
            lower_unit(*_ending(unit, fused), lowering)
    lowering.finish()
    return CardSegment(
        emit(lowering.instructions, lowering.inputs, lowering.outputs),
        tuple(_port(graph, name) for name in inputs),
        tuple(_port(graph, name) for name in outputs),
        batchable,
    )


def _simplified(segment: Sequence[Unit], graph: Graph, outputs: Sequence[str]) -> list[Unit]:
    """The same results with fewer units."""
    segment = _without_copies(segment, graph, outputs)
    shapes, constants = _shapes(segment, graph), _constants(segment, graph)
    segment = _needed(compose(segment, shapes, constants), outputs)
    segment = lift_tables(segment, outputs, shapes)
    shapes = _shapes(segment, graph)
    segment = _needed(compose(segment, shapes, constants), outputs)
    return _needed(fold_heads(segment, outputs, shapes), outputs)


def _needed(segment: Sequence[Unit], outputs: Sequence[str]) -> list[Unit]:
    """The units whose results somebody reads."""
    read = set(outputs)
    kept: list[Unit] = []
    for unit in reversed(segment):
        if unit.output in read:
            kept.append(unit)
            read.update(unit.inputs)
    return kept[::-1]


def _without_copies(segment: Sequence[Unit], graph: Graph, outputs: Sequence[str]) -> list[Unit]:
    """The units without those that only give a tensor a second name, and those that do again what
    another has done: exporters reshape one tensor for each of its readers."""
    names: dict[str, str] = {}
    done: dict[tuple[object, ...], str] = {}
    kept: list[Unit] = []
    for unit in segment:
        if any(name in names for name in unit.inputs):
            inputs = tuple(names.get(name, name) for name in unit.inputs)
            unit = dataclasses.replace(unit, inputs=inputs)
        same = isinstance(unit.work, Reshape) and graph.shape(unit.inputs[0]) == unit.shape
        before = unit.inputs[0] if same else None
        if isinstance(unit.work, REPEATED):
            made = done.setdefault((unit.work, unit.inputs, unit.shape), unit.output)
            before = before or (made if made != unit.output else None)
        if before is not None and unit.output not in outputs:
            names[unit.output] = before
        else:
            kept.append(unit)
    return kept


def _kind(graph: Graph, name: str) -> Kind:
    return _KINDS.get(graph.types.get(name, 0), "u8")


def _kinds(segment: Iterable[Unit], graph: Graph) -> dict[str, Kind]:
    """What each tensor that is not bytes is made of, on the card."""
    found: dict[str, Kind] = {}
    for unit in segment:
        work = unit.work
        for name in unit.inputs:
            if name not in found and _kind(graph, name) not in ("u8", "i8"):
                found[name] = _kind(graph, name)
        floating = isinstance(work, FLOATING) and not isinstance(work, DynamicQuantize)
        if floating or (isinstance(work, Convolution) and work.floats):
            made: Kind = "f32" if unit.quantization is None else "u8"
        else:
            made = found.get(unit.inputs[0], "u8") if isinstance(work, MOVING) else "u8"
        made = "u8" if isinstance(work, Quantize) else made
        if made == "u8":
            found.pop(unit.output, None)
        else:
            found[unit.output] = made
    return found


def _port(graph: Graph, name: str) -> Port:
    shape = graph.shapes[name]
    return Port(name, numpy_dtype(graph.types[name]), shape)


def _shapes(segment: Iterable[Unit], graph: Graph) -> dict[str, Shape]:
    names = {name for unit in segment for name in (*unit.inputs, unit.output)}
    known = {name: shape for name in names if (shape := graph.shape(name)) is not None}
    return known | {unit.output: unit.shape for unit in segment}


def _constants(segment: Iterable[Unit], graph: Graph) -> dict[str, Array]:
    """Constant operands as bytes on the card, or float32."""
    found: dict[str, Array] = {}
    for unit in segment:
        for name in unit.inputs:
            values = graph.constants.get(name)
            if values is not None and values.itemsize == 1:
                stored = values.view("u1")
                found[name] = stored ^ 128 if values.dtype.kind == "i" else stored
            elif values is not None:
                found[name] = values
    return found


def _fused_tables(segment: Sequence[Unit], outputs: Sequence[str]) -> dict[Unit, Unit]:
    """Tables that the producer of their input applies as it stores, where nobody else reads it."""
    producers = {unit.output: unit for unit in segment}
    readers: dict[str, int] = {}
    for unit in segment:
        for name in unit.inputs:
            readers[name] = readers.get(name, 0) + 1
    fused: dict[Unit, Unit] = {}
    for unit in segment:
        if not isinstance(unit.work, Table):
            continue
        source = unit.inputs[0]
        producer = producers.get(source)
        if (
            producer is not None
            and isinstance(producer.work, Convolution | Add | Multiply | Product)
            and readers[source] == 1
            and source not in outputs
        ):
            fused[producer] = unit
    return fused


def _ending(unit: Unit, fused: Mapping[Unit, Unit]) -> tuple[Unit, Array | None]:
    """The unit with the table that it applies as it stores."""
    table = fused.get(unit)
    if table is None:
        return unit, None
    assert isinstance(table.work, Table)
    members = (*unit.members, *table.members)
    return dataclasses.replace(unit, members=members, output=table.output), table.work.values


def host_segment(
    proto: onnx.ModelProto,
    indices: Iterable[int],
    graph: Graph,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> HostSegment:
    """The model's nodes of these indices, with the constants they read."""
    nodes = [_renamed(proto.graph.node[index], graph.aliases) for index in sorted(indices)]
    read = {name for node in nodes for name in (*node.input, *outer_names(node))}
    model = onnx.ModelProto(ir_version=proto.ir_version)
    model.opset_import.extend(proto.opset_import)
    model.functions.extend(proto.functions)
    model.graph.name = proto.graph.name or "graph"
    model.graph.node.extend(nodes)
    stored = {t.name for t in proto.graph.initializer}
    model.graph.initializer.extend(t for t in proto.graph.initializer if t.name in read)
    produced = {name for node in nodes for name in node.output}
    for name in sorted(read - stored - produced):
        value = graph.constants.get(name)
        if value is not None:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.sparse_initializer.extend(
        t for t in proto.graph.sparse_initializer if t.values.name in read
    )
    declared = {v.name: v for v in (*proto.graph.input, *proto.graph.output)}
    for names, values in ((inputs, model.graph.input), (outputs, model.graph.output)):
        for name in names:
            values.append(declared.get(name) or _value_info(name, graph))
    return HostSegment(model.SerializeToString(), tuple(inputs), tuple(outputs))


def _value_info(name: str, graph: Graph) -> onnx.ValueInfoProto:
    """Type without sizes: the batch, and with it any dimension, may differ from run to run."""
    shape = graph.shape(name)
    dims = None if shape is None else [f"{name}/{axis}" for axis in range(len(shape))]
    return onnx.helper.make_tensor_value_info(name, graph.type(name) or FLOAT, dims)


def _renamed(node: onnx.NodeProto, aliases: Mapping[str, str]) -> onnx.NodeProto:
    if not any(name in aliases for name in node.input):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for position, name in enumerate(node.input):
        copy.input[position] = resolved(name, aliases)
    return copy


def resolved(name: str, aliases: Mapping[str, str]) -> str:
    while name in aliases:
        name = aliases[name]
    return name

# SPDX-License-Identifier: Apache-2.0
"""The placement table: one row for each node of the model, with where it runs and why."""

from collections.abc import Mapping

import onnx

from device.compiler.graph import Graph
from device.compiler.place import Placer
from device.compiler.plan import Placement, Where
from device.compiler.units import Convolution, Table, Unit


def placement_rows(proto: onnx.ModelProto, graph: Graph, placer: Placer) -> tuple[Placement, ...]:
    """Rows in the model's own order."""
    card: dict[int, str] = {}
    for unit in placer.units:
        for node in unit.members:
            card.setdefault(node.index, _role(unit, node.op))
        for node in unit.dequantizers:
            card.setdefault(node.index, "its quantized input goes straight to the operator")
    for index, dequantizer in graph.transposed.items():
        if index in card:
            card[index] = card[dequantizer] = "the weights are stored transposed"
    for index, twin in graph.merged.items():
        if twin in card:
            card[index] = "does what another node does; runs once"
    for index in graph.folded:
        if card:
            card.setdefault(index, "known before any input; computed when the model is compiled")
    for index in graph.dead:
        if card:
            card.setdefault(index, "nobody reads its result; it is left out")
    return tuple(
        _row(index, node, card, placer.reasons) for index, node in enumerate(proto.graph.node)
    )


def _row(
    index: int, node: onnx.NodeProto, card: Mapping[int, str], reasons: Mapping[int, str]
) -> Placement:
    label = node.name or f"{node.op_type}_{next((o for o in node.output if o), index)}"
    where: Where = "card" if index in card else "onnxruntime"
    return Placement(label, node.op_type, where, card.get(index) or _why(index, node, reasons))


def _why(index: int, node: onnx.NodeProto, reasons: Mapping[int, str]) -> str:
    if index in reasons:
        return reasons[index]
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return "the operator beside it runs on onnxruntime"
    return "its inputs or its result are not quantized"


def _role(unit: Unit, op: str) -> str:
    if op == "QuantizeLinear" and unit.node.op != "QuantizeLinear":
        return f"the result of {unit.node.op} is stored quantized"
    if isinstance(unit.work, Table):
        return "a table of 256 entries"
    if isinstance(unit.work, Convolution) and op != unit.node.op:
        return f"a clamp as {unit.node.op} stores"
    return "runs on the card"


def host_rows(proto: onnx.ModelProto, reason: str) -> tuple[Placement, ...]:
    """Every node on onnxruntime for one reason."""
    return tuple(
        _row(index, node, {}, {index: reason}) for index, node in enumerate(proto.graph.node)
    )

# SPDX-License-Identifier: Apache-2.0
"""QOperator nodes (QLinearConv, com.microsoft QGemm, …) as units of DequantizeLinear, the float
operator and QuantizeLinear, so that everything after sees one form. A node whose parameters are
not constants stays as it is, for onnxruntime. A Gemm that transposes its first matrix becomes a
Transpose and a Gemm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from device.compiler.graph import MICROSOFT, Constants, Graph, Node

Triple = tuple[str, str, str]  # tensor, scale, zero point


@dataclass
class _Unit:
    """Writes the nodes that stand for one QOperator node."""

    node: Node
    constants: Constants
    taken: set[str]
    nodes: list[Node]

    def fresh(self, role: str) -> str:
        name = f"{self.node.output}/{role}"
        while name in self.taken:
            name += "'"
        self.taken.add(name)
        return name

    def add(
        self, op: str, inputs: tuple[str, ...], output: str, attributes: Mapping[str, Any]
    ) -> str:
        self.nodes.append(
            Node(self.node.index, op, "", inputs, (output,), attributes, self.node.name)
        )
        return output

    def dequantize(self, triple: Triple, role: str, axis: int = 0) -> str:
        inputs = triple if triple[2] else triple[:2]
        return self.add("DequantizeLinear", inputs, self.fresh(role), {"axis": axis})

    def quantize(self, value: str, scale: str, zero_point: str) -> None:
        self.add("QuantizeLinear", (value, scale, zero_point), self.node.output, {})

    def constant(self, role: str, array: Any) -> str:
        name = self.fresh(role)
        self.constants[name] = np.asarray(array)
        return name


def expand(graph: Graph) -> None:
    """Splits in place."""
    taken = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    producers = graph.producers()
    nodes: list[Node] = []
    for node in graph.nodes:
        if _transposes(node, producers.get(node.input(0)), graph.constants):
            unit = _Unit(node, graph.constants, taken, nodes)
            turned = unit.add("Transpose", node.inputs[:1], unit.fresh("turned"), {"perm": [1, 0]})
            attributes = {key: value for key, value in node.attributes.items() if key != "transA"}
            unit.add("Gemm", (turned, *node.inputs[1:]), node.output, attributes)
            continue
        if node.domain == MICROSOFT and node.op in ("QuantizeLinear", "DequantizeLinear"):
            nodes.append(Node(node.index, node.op, "", *_io(node), node.attributes, node.name))
            continue
        rule = _RULES.get((node.domain, node.op))
        if rule is None or not _ready(node, graph.constants):
            nodes.append(node)
            continue
        unit = _Unit(node, graph.constants, taken, [])
        nodes += unit.nodes if rule(unit) else [node]
    graph.nodes = nodes


def split(graph: Graph) -> None:
    """Each Split as Slices, in place, once shapes are known."""
    nodes: list[Node] = []
    for node in graph.nodes:
        shapes = [graph.shape(name) for name in node.outputs]
        if node.op != "Split" or node.domain or any(not shape for shape in shapes):
            nodes.append(node)
            continue
        axis, start = int(node.attributes.get("axis", 0)), 0
        for name, shape in zip(node.outputs, shapes, strict=True):
            assert shape is not None
            end = start + shape[axis]
            bounds = []
            for role, value in (("start", start), ("end", end), ("axis", axis)):
                graph.constants[f"{name}/{role}"] = np.array([value], np.int64)
                bounds.append(f"{name}/{role}")
            inputs = (node.inputs[0], *bounds)
            nodes.append(Node(node.index, "Slice", "", inputs, (name,), {}, node.name))
            start = end
    graph.nodes = nodes


def _transposes(node: Node, before: Node | None, constants: Constants) -> bool:
    """A Gemm that transposes a quantized tensor: the card does so ahead of it."""
    if node.op != "Gemm" or node.domain or not node.attributes.get("transA", 0):
        return False
    if before is None or before.op != "DequantizeLinear":
        return False
    return before.inputs[0] not in constants


def _io(node: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return node.inputs, node.outputs


def _ready(node: Node, constants: Constants) -> bool:
    """Every scale and zero point is constant; those inputs start and repeat by operator."""
    activations: tuple[int, ...] = _ACTIVATIONS.get(node.op, (0,))
    if node.op == "QLinearConcat":
        activations = tuple(range(2, len(node.inputs), 3))
    return all(
        not name or name in constants or position in activations
        for position, name in enumerate(node.inputs)
    ) and not node.attributes.get("channels_last", 0)


_ACTIVATIONS = {"QLinearAdd": (0, 3), "QLinearMul": (0, 3), "QLinearMatMul": (0, 3)}


def _triple(node: Node, at: int) -> Triple:
    return node.input(at), node.input(at + 1), node.input(at + 2)


def _bias(unit: _Unit, bias: str, factor: float = 1.0) -> str:
    """The int32 bias dequantized with the scale that its operator implies."""
    x_scale = unit.constants.get(unit.node.inputs[1])
    w_scale = unit.constants.get(unit.node.inputs[4])
    assert x_scale is not None and w_scale is not None
    scale = np.float32(factor) * x_scale.reshape(()) * w_scale.reshape(-1)
    name = unit.constant("bias_scale", scale if scale.size > 1 else scale.reshape(()))
    return unit.dequantize((bias, name, ""), "bias")


def _convolution(unit: _Unit) -> bool:
    node = unit.node
    if not node.input(7):
        return False
    inputs = [
        unit.dequantize(_triple(node, 0), "x"),
        unit.dequantize(_triple(node, 3), "w", axis=0),
    ]
    if node.input(8):
        inputs.append(_bias(unit, node.input(8)))
    value = unit.add("Conv", tuple(inputs), unit.fresh("real"), node.attributes)
    unit.quantize(value, node.inputs[6], node.inputs[7])
    return True


def _matmul(unit: _Unit) -> bool:
    node = unit.node
    b = node.inputs[3]
    axis = len(unit.constants.shape(b)) - 1 if b in unit.constants else 0
    inputs = (
        unit.dequantize(_triple(node, 0), "a"),
        unit.dequantize(_triple(node, 3), "b", axis=max(axis, 0)),
    )
    value = unit.add("MatMul", inputs, unit.fresh("real"), {})
    unit.quantize(value, node.inputs[6], node.inputs[7])
    return True


def _gemm(unit: _Unit) -> bool:
    node = unit.node
    if not (node.input(7) and node.input(8)):
        return False
    axis = 0 if node.attributes.get("transB", 0) else 1
    inputs = [
        unit.dequantize(_triple(node, 0), "a"),
        unit.dequantize(_triple(node, 3), "b", axis=axis),
    ]
    if node.input(6):
        inputs.append(_bias(unit, node.input(6), float(node.attributes.get("alpha", 1.0))))
    value = unit.add("Gemm", tuple(inputs), unit.fresh("real"), node.attributes)
    unit.quantize(value, node.inputs[7], node.inputs[8])
    return True


def _binary(op: str) -> Callable[[_Unit], bool]:
    def rule(unit: _Unit) -> bool:
        node = unit.node
        if not node.input(7):
            return False
        inputs = (
            unit.dequantize(_triple(node, 0), "a"),
            unit.dequantize(_triple(node, 3), "b"),
        )
        value = unit.add(op, inputs, unit.fresh("real"), {})
        unit.quantize(value, node.inputs[6], node.inputs[7])
        return True

    return rule


def _unary(op: str) -> Callable[[_Unit], bool]:
    def rule(unit: _Unit) -> bool:
        node = unit.node
        if not node.input(4):
            return False
        attributes = {
            ("_opset" if key == "opset" else key): value
            for key, value in node.attributes.items()
            if key != "channels_last"
        }
        x = unit.dequantize(_triple(node, 0), "x")
        value = unit.add(op, (x,), unit.fresh("real"), attributes)
        unit.quantize(value, node.inputs[3], node.inputs[4])
        return True

    return rule


def _concat(unit: _Unit) -> bool:
    node = unit.node
    parts = tuple(
        unit.dequantize(_triple(node, at), f"part{at}") for at in range(2, len(node.inputs), 3)
    )
    value = unit.add("Concat", parts, unit.fresh("real"), node.attributes)
    unit.quantize(value, node.inputs[0], node.inputs[1])
    return True


_RULES: dict[tuple[str, str], Callable[[_Unit], bool]] = {
    ("", "QLinearConv"): _convolution,
    ("", "QLinearMatMul"): _matmul,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _binary("Add"),
    (MICROSOFT, "QLinearMul"): _binary("Mul"),
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu"),
    (MICROSOFT, "QLinearAveragePool"): _unary("AveragePool"),
    (MICROSOFT, "QLinearGlobalAveragePool"): _unary("GlobalAveragePool"),
    (MICROSOFT, "QLinearSoftmax"): _unary("Softmax"),
    (MICROSOFT, "QLinearConcat"): _concat,
}

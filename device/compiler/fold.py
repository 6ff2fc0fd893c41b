# SPDX-License-Identifier: Apache-2.0
"""Nodes whose value is known before any input: constants, shape arithmetic, dead ends.

Dequantized weights stay as they are, since the card wants them quantized.
"""

import dataclasses

import numpy as np
import onnx
from onnx import numpy_helper

from device.compiler.evaluate import NotEvaluated, evaluate
from device.compiler.graph import Graph, Node, proto_of
from device.compiler.plan import Array

_RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}


def fold(graph: Graph, proto: onnx.ModelProto) -> bool:
    """Folds in place and notes the folded nodes in graph.folded; whether that may have settled
    shapes which inference did not know."""
    before = len(graph.nodes)
    _drop_identities(graph)
    graph.nodes = [node for node in graph.nodes if not _fold_alone(node, graph)]
    _fold_together(graph, proto)
    unknown = any(name not in graph.shapes for node in graph.nodes for name in node.outputs if name)
    return unknown and len(graph.nodes) < before


def _drop_identities(graph: Graph) -> None:
    """Identity, and Dropout as at inference, by renaming what reads them."""
    aliases, fixed = graph.aliases, graph.fixed_names()
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(aliases.get(name, name) for name in node.inputs)
        if inputs != node.inputs:
            node = dataclasses.replace(node, inputs=inputs)
        if _is_identity(node, graph) and not fixed & set(node.outputs):
            aliases[node.output] = node.inputs[0]
            graph.folded.add(node.index)
        else:
            kept.append(node)
    graph.nodes = kept


def _is_identity(node: Node, graph: Graph) -> bool:
    if node.domain or not node.inputs:
        return False
    if node.op == "Dropout":
        training = node.input(2)
        mode = graph.constants.get(training) if training in graph.constants else None
        inference = not training or (mode is not None and not mode.any())
        used = {name for other in graph.nodes for name in other.inputs} | set(graph.outputs)
        return inference and not any(mask in used for mask in node.outputs[1:])
    return node.op == "Identity"


def drop_dead(graph: Graph) -> None:
    """Drops nodes whose results nobody reads, and notes them in graph.dead."""
    used = graph.fixed_names()
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if used & set(node.outputs):
            kept.append(node)
            used.update(node.inputs)
        else:
            graph.dead.add(node.index)
    graph.nodes = kept[::-1]
    graph.dead -= {node.index for node in kept}


def _fold_alone(node: Node, graph: Graph) -> bool:
    value = _constant(node) if node.op == "Constant" else _extent(node, graph)
    if node.domain or value is None:
        return False
    graph.constants[node.output] = value
    graph.folded.add(node.index)
    return True


def _constant(node: Node) -> Array | None:
    for key, value in node.attributes.items():
        if key == "value":
            return numpy_helper.to_array(value)
        if key in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if key in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    return None


def _extent(node: Node, graph: Graph) -> Array | None:
    """The value of Shape or Size of a tensor whose shape is known."""
    if node.op not in ("Shape", "Size"):
        return None
    shape = graph.shape(node.inputs[0])
    if shape is None:
        return None
    if node.op == "Size":
        return np.array(np.prod(shape, dtype=np.int64), np.int64)
    return np.array(shape[slice(node.attributes.get("start"), node.attributes.get("end"))], "i8")


def _fold_together(graph: Graph, proto: onnx.ModelProto) -> None:
    """All nodes that read only constants, in one run."""
    known: set[str] = set()
    chosen: list[Node] = []
    padding = _padding(graph)
    for node in graph.nodes:
        if _foldable(node, graph, known, padding):
            chosen.append(node)
            known |= {name for name in node.outputs if name}
    if not chosen:
        return
    kinds = [(name, graph.types.get(name, 0)) for node in chosen for name in node.outputs if name]
    if not all(kind for _, kind in kinds):
        return
    try:
        values = evaluate(
            [proto_of(node, proto) for node in chosen], proto.opset_import, graph.constants, kinds
        )
    except NotEvaluated:
        return  # they run where everything else does that the card does not take
    for (name, _), value in zip(kinds, values, strict=True):
        graph.constants[name] = value
    graph.folded |= {node.index for node in chosen}
    graph.nodes = [node for node in graph.nodes if node not in chosen]


def _padding(graph: Graph) -> set[str]:
    """What is read as the value that a Pad writes, and as nothing else."""
    found: set[str] = set()
    others = graph.fixed_names()
    for node in graph.nodes:
        value = node.input(2) if node.op == "Pad" and not node.domain else ""
        found.add(value)
        others.update(name for name in node.inputs if name != value)
    return found - others - {""}


def _foldable(node: Node, graph: Graph, known: set[str], padding: set[str]) -> bool:
    if node.op in _RANDOM or not node.inputs:
        return False
    if node.op == "DequantizeLinear" and node.output not in padding:
        return False
    if any(isinstance(value, onnx.GraphProto) for value in node.attributes.values()):
        return False
    return all(not name or name in graph.constants or name in known for name in node.inputs)

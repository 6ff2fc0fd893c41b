# SPDX-License-Identifier: Apache-2.0
"""Brings operators that only move data to the quantized side of their Q and DQ nodes.

A move commutes with both, since they work element by element (and rise with their input, which
MaxPool needs). Move then Quantize becomes Quantize then move; where that cannot be, Dequantize
then move becomes move then Dequantize. The results are the same bit for bit.
"""

import dataclasses

import numpy as np

from device.compiler.graph import FLOAT, Graph, Node
from device.compiler.quant import Quantization, per_tensor

MOVES = {
    "Concat",
    "Expand",
    "Flatten",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


def sources(node: Node) -> tuple[str, ...]:
    """The inputs that a move takes its data from."""
    return node.inputs if node.op == "Concat" else node.inputs[:1]


def is_move(node: Node) -> bool:
    if node.domain or node.op not in MOVES or any(node.outputs[1:]):
        return False
    mode = node.attributes.get("mode")
    if node.op == "Pad":
        return mode in (None, b"constant")
    return node.op != "Resize" or mode in (None, b"nearest")


def unmoved(node: Node) -> str | None:
    """Why an operator of this name is no move on the card; None for operators that are none."""
    if node.domain or node.op not in MOVES:
        return None
    if any(node.outputs[1:]):
        return "its second result, the indices, is read too"
    if not is_move(node):
        mode = node.attributes["mode"].decode(errors="replace")
        return f"the card has no {node.op} in mode {mode}"
    return "its input or its result is not quantized alike"


class Rewriter:
    """The graph's nodes while moves wander. `invented` collects tensors that the model lacks."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.invented: set[str] = set()
        self._instead: dict[Node, list[Node]] = {}

    def run(self) -> None:
        self._merge_quantizers()
        for node in reversed(self.graph.nodes):
            if is_move(node) and self.graph.types.get(node.output) == FLOAT:
                self._sink(node)
        self._settle()
        for node in self.graph.nodes:
            if is_move(node) and self.graph.types.get(node.output) == FLOAT:
                self._push(node)
        self._settle()

    def _settle(self) -> None:
        """Puts the replacements where the replaced nodes stood."""
        nodes: list[Node] = []
        pending = list(reversed(self.graph.nodes))
        while pending:
            node = pending.pop()
            instead = self._instead.get(node)
            if instead is None:
                nodes.append(node)
            else:
                pending += reversed(instead)
        self._instead.clear()
        self.graph.nodes = in_order(nodes)
        self._index()

    def _index(self) -> None:
        self.readers = self.graph.consumers()
        self.producer = self.graph.producers()

    def _replace(self, gone: list[Node], added: list[Node]) -> None:
        """`added` in place of the first of `gone`, once settled; readers and producers at once."""
        for node in gone:
            self._instead[node] = []
            for name in dict.fromkeys(node.inputs):
                if name:
                    self.readers[name].remove(node)
        self._instead[gone[0]] = added
        for node in added:
            self.producer[node.output] = node
            for name in dict.fromkeys(node.inputs):
                if name:
                    self.readers.setdefault(name, []).append(node)

    def _fresh(self, near: str, like: str, kind: int) -> str:
        name = f"{near}/moved"
        while name in self.producer or name in self.readers or name in self.invented:
            name += "'"
        self.invented.add(name)
        shape = self.graph.shape(like)
        if shape is not None:
            self.graph.shapes[name] = shape
        self.graph.types[name] = kind
        return name

    def _merge_quantizers(self) -> None:
        """One QuantizeLinear where several quantize a tensor alike."""
        seen: dict[tuple[str, Quantization], Node] = {}
        renamed, fixed = self.graph.aliases, self.graph.fixed_names()
        kept: list[Node] = []
        for node in self.graph.nodes:
            if any(name in renamed for name in node.inputs):
                inputs = tuple(renamed.get(name, name) for name in node.inputs)
                node = dataclasses.replace(node, inputs=inputs)
            found = per_tensor(node, self.graph) if node.op == "QuantizeLinear" else None
            if found is not None:
                first = seen.setdefault((node.inputs[0], found), node)
                if first is not node and node.output not in fixed:
                    renamed[node.output] = first.output
                    self.graph.merged[node.index] = first.index
                    continue
            kept.append(node)
        self.graph.nodes = kept
        self._index()

    def _sink(self, move: Node) -> None:
        readers = self.readers.get(move.output, [])
        if len(readers) != 1 or move.output in self.graph.outputs or readers[0].captures:
            return
        quantizer = readers[0]
        if quantizer.op != "QuantizeLinear" or quantizer.inputs[0] != move.output:
            return
        found = per_tensor(quantizer, self.graph)
        if found is None:
            return
        pad = _pad_value(move, self.graph)
        if pad is None:
            return
        moved: dict[str, str] = {}
        added: list[Node] = []
        for source in dict.fromkeys(sources(move)):
            constant = self.graph.constants.get(source)
            name = self._fresh(f"{move.output}/{source}", source, found.type)
            moved[source] = name
            if constant is not None:
                values = found.store(constant) ^ np.uint8(found.offset)
                self.graph.constants[name] = values.view("i1" if found.offset else "u1")
            else:
                inputs = (source, *quantizer.inputs[1:])
                added.append(dataclasses.replace(quantizer, inputs=inputs, outputs=(name,)))
        stored = int(found.store(np.array(pad)))
        added.append(_moved(move, moved, quantizer.output, stored))
        self._replace([move, quantizer], added)

    def _push(self, move: Node) -> None:
        origins = [self.producer.get(source) for source in sources(move)]
        if not origins or any(o is None or o.op != "DequantizeLinear" for o in origins):
            return
        dequantizers = [node for node in origins if node is not None]
        if dequantizers[0].inputs[0] in self.graph.constants:
            self._transpose_weights(move, dequantizers[0])
            return
        found = {per_tensor(node, self.graph) for node in dequantizers}
        quantization = next(iter(found))
        pad = _pad_value(move, self.graph)
        if len(found) != 1 or quantization is None or pad is None:
            return
        stored = int(quantization.store(np.array(pad)))
        if float(quantization.load(np.array(stored))) != pad:
            return
        first = dequantizers[0]
        moved = {node.output: node.inputs[0] for node in dequantizers}
        name = self._fresh(move.output, move.output, quantization.type)
        self._replace(
            [move],
            [
                _moved(move, moved, name, stored),
                dataclasses.replace(
                    first, inputs=(name, *first.inputs[1:]), outputs=(move.output,)
                ),
            ],
        )

    def _transpose_weights(self, move: Node, dequantizer: Node) -> None:
        """Transpose of dequantized constants: transposed constants, dequantized."""
        values = self.graph.constants.get(dequantizer.inputs[0])
        if move.op != "Transpose" or values is None:
            return
        order = list(move.attributes.get("perm") or reversed(range(values.ndim)))
        kind = self.graph.constants.type(dequantizer.inputs[0])
        name = self._fresh(move.output, move.output, kind)
        self.graph.constants[name] = np.ascontiguousarray(values.transpose(order))
        axis = int(dequantizer.attributes.get("axis", 1)) % max(values.ndim, 1)
        made = dataclasses.replace(
            dequantizer,
            index=move.index,
            inputs=(name, *dequantizer.inputs[1:]),
            outputs=(move.output,),
            attributes={**dequantizer.attributes, "axis": order.index(axis)},
        )
        self.graph.transposed[move.index] = dequantizer.index
        self._replace([move], [made])


def _moved(move: Node, renamed: dict[str, str], output: str, pad: int) -> Node:
    """The move on bytes. A Pad carries the byte it pads with as attribute "_byte"."""
    data = len(sources(move))
    inputs = tuple(renamed[name] for name in move.inputs[:data]) + move.inputs[data:]
    attributes = {**move.attributes, "_byte": pad} if move.op == "Pad" else move.attributes
    return dataclasses.replace(move, inputs=inputs, outputs=(output,), attributes=attributes)


def _pad_value(move: Node, graph: Graph) -> float | None:
    """The real value that a float Pad writes (0 for other moves); None where it is not constant."""
    if move.op != "Pad":
        return 0.0
    if not move.input(2):
        return float(move.attributes.get("value", 0.0))
    value = graph.constants.get(move.inputs[2])
    return None if value is None or value.size != 1 else float(value.reshape(-1)[0])


def in_order(nodes: list[Node]) -> list[Node]:
    """The nodes sorted so that producers come before readers, else as they stand."""
    producer = {out: node for node in nodes for out in node.outputs if out}
    ordered: list[Node] = []
    done: set[int] = set()
    for root in nodes:
        stack = [(root, iter(root.inputs))]
        while stack:
            node, pending = stack[-1]
            if id(node) in done:
                stack.pop()
                continue
            source = next(pending, None)
            if source is None:
                done.add(id(node))
                ordered.append(node)
                stack.pop()
            elif source in producer and id(producer[source]) not in done:
                before = producer[source]
                stack.append((before, iter(before.inputs)))
    return ordered

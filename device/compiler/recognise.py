# SPDX-License-Identifier: Apache-2.0
"""Finds what the card can do: DequantizeLinear .. operator .. QuantizeLinear as Units, and moves of
quantized tensors. What it refuses it gives a reason for."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from device.compiler import convolution, elementwise, products
from device.compiler.graph import FLOAT, INT8, UINT8, Graph, Node
from device.compiler.movement import movement
from device.compiler.moves import is_move, unmoved
from device.compiler.quant import Quantization, Unplaced, per_tensor
from device.compiler.tables import Tables, clamp_bounds, requantize
from device.compiler.units import Clamp, Dequantize, Quantize, Reshape, Table, Unit, Work

ELEMENTWISE = {
    "": {
        *("Abs", "Add", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Erf", "Exp", "Floor"),
        *("Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul"),
        *("Neg", "Pow", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin"),
        *("Softplus", "Softsign", "Sqrt", "Sub", "Swish", "Tanh", "ThresholdedRelu"),
    },
    "com.microsoft": {"FastGelu", "Gelu", "QuickGelu"},
}
CORES = {
    "Add",
    "AveragePool",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "LayerNormalization",
    "MatMul",
    "Mul",
    "Softmax",
}
DAG_MAX = 64  # nodes of one table


class Recogniser:
    """`units` in running order; `reasons` by node index, for nodes that were tried and refused."""

    def __init__(self, graph: Graph, tables: Tables) -> None:
        self._graph = graph
        self._tables = tables
        self._producers = graph.producers()
        self._order = {node: position for position, node in enumerate(graph.nodes)}
        self.units: list[Unit] = []
        self.reasons: dict[int, str] = {}

    def run(self) -> None:
        for node in self._graph.nodes:
            try:
                unit = self._unit(node)
            except Unplaced as reason:
                self.reasons.setdefault(self._blamed(node).index, str(reason))
                continue
            if unit is not None:
                self.units.append(unit)

    def _blamed(self, node: Node) -> Node:
        """The operator whose work failed, for a failure at the QuantizeLinear after it."""
        while node.op == "QuantizeLinear" or clamp_bounds(node, self._graph) is not None:
            before = self._producers.get(node.inputs[0])
            if before is None or before.op == "DequantizeLinear":
                break
            node = before
        return node

    def _unit(self, node: Node) -> Unit | None:
        if is_move(node) and self._graph.types.get(node.output) in (UINT8, INT8):
            work = movement(node, self._graph)
            data = node.inputs if node.op == "Concat" else node.inputs[:1]
            return self._made(work, node, (node,), data, node.output, None)
        if node.op == "QuantizeLinear" and not node.domain:
            return self._quantizer(node)
        if node.op == "DequantizeLinear" and node.output in self._graph.outputs:
            found = per_tensor(node, self._graph)
            if found is None:
                raise Unplaced("its scale is not one float32 constant for an 8-bit tensor")
            return self._made(Dequantize(), node, (node,), node.inputs[:1], node.output, found)
        return None

    def _made(
        self,
        work: Work,
        node: Node,
        members: Sequence[Node],
        inputs: Sequence[str],
        output: str,
        quantization: Quantization | None,
        dequantizers: Sequence[Node] = (),
    ) -> Unit:
        shape = self._graph.shape(output)
        known = [self._graph.shape(name) for name in inputs]
        if shape is None or any(given is None for given in known):
            raise Unplaced("its shape is not known before it runs")
        if any(0 in given for given in (shape, *known) if given is not None):
            raise Unplaced("a tensor of it is empty")
        return Unit(
            work,
            node,
            tuple(members),
            tuple(inputs),
            output,
            shape,
            quantization,
            tuple(dequantizers),
        )

    def _quantizer(self, node: Node) -> Unit | None:
        out = per_tensor(node, self._graph)
        if out is None:
            raise Unplaced("its scale is not one float32 constant for an 8-bit tensor")
        value = node.inputs[0]
        if self._graph.types.get(value) != FLOAT:
            raise Unplaced("it quantizes a tensor that is not float32")
        if value in self._graph.inputs:
            return self._made(Quantize(), node, (node,), (value,), node.output, out)
        clamps, clamp, core = self._clamped(value, out)
        if core is None:
            return None
        if core.op == "DequantizeLinear":
            return self._table(node, value, out)
        product = self._biased_product(core)
        if product is not None:
            return self._product(product, core, (node, *clamps, core, product), out, clamp)
        members = (node, *clamps, core)
        if core.op in CORES and not core.domain and self._quantized(core):
            return self._core(core, node, members, out, clamp)
        return self._table(node, value, out)

    def _clamped(self, value: str, out: Quantization) -> tuple[list[Node], Clamp, Node | None]:
        """Clamps above a QuantizeLinear, what they leave of a stored result, and the operator
        before them."""
        clamps: list[Node] = []
        producer = self._producers.get(value)
        while producer is not None and clamp_bounds(producer, self._graph) is not None:
            clamps.append(producer)
            producer = self._producers.get(producer.inputs[0])
        ends = np.array([-np.inf, np.inf], np.float32)
        for clamp in reversed(clamps):
            bounds = clamp_bounds(clamp, self._graph)
            assert bounds is not None
            ends = np.minimum(np.maximum(ends, bounds[0]), bounds[1])
        lo, hi = out.store(ends)
        return clamps, Clamp(int(lo), int(hi)), producer

    def _quantized(self, core: Node) -> bool:
        """Every activation that the operator reads comes from a DequantizeLinear."""
        count = 2 if core.op in ("Add", "Mul") else 1
        return all(self._dequantizer(name) is not None for name in core.inputs[:count])

    def _multiplies_constants(self, core: Node) -> bool:
        """Whether the second operand is one constant matrix, which becomes weights."""
        node = self._dequantizer(core.inputs[1])
        if node is None:
            return core.inputs[1] in self._graph.constants
        shape = self._graph.shape(core.inputs[1])
        return node.inputs[0] in self._graph.constants and len(shape or ()) == 2

    def _dequantizer(self, name: str) -> Node | None:
        producer = self._producers.get(name)
        return producer if producer is not None and producer.op == "DequantizeLinear" else None

    def _operand(self, name: str) -> tuple[Node, Quantization]:
        node = self._dequantizer(name)
        found = per_tensor(node, self._graph) if node is not None else None
        if node is None or found is None:
            raise Unplaced("an operand is not quantized with one scale to 8 bits")
        return node, found

    def _biased_product(self, core: Node) -> Node | None:
        """The MatMul whose rows this Add adds a constant to."""
        if core.op != "Add" or core.domain:
            return None
        found = [self._producers.get(name) for name in core.inputs]
        products = [p for p in found if p is not None and p.op == "MatMul" and not p.domain]
        return products[0] if len(products) == 1 else None

    def _product(
        self, product: Node, add: Node, members: Sequence[Node], out: Quantization, clamp: Clamp
    ) -> Unit:
        (bias,) = (name for name in add.inputs if name != product.output)
        first, x = self._operand(product.inputs[0])
        work = convolution.matmul(product, self._graph, self._producers.get, x, out, clamp, bias)
        names = (*product.inputs, bias)
        dequantizers = [n for n in map(self._dequantizer, names) if n is not None]
        output = members[0].output
        return self._made(work, product, members, first.inputs[:1], output, out, dequantizers)

    def _core(
        self,
        core: Node,
        quantizer: Node,
        members: Sequence[Node],
        out: Quantization,
        clamp: Clamp,
    ) -> Unit:
        graph = self._graph
        first, x = self._operand(core.inputs[0])
        dequantizers = [n for n in map(self._dequantizer, core.inputs) if n is not None]
        sources = [first.inputs[0]]
        work: Work
        if core.op in ("Add", "Mul"):
            second, y = self._operand(core.inputs[1])
            sources.append(second.inputs[0])
            make = elementwise.add if core.op == "Add" else elementwise.multiply
            work = make(x, y, out, clamp)
        elif core.op == "Conv":
            work = convolution.convolution(core, graph, self._producers.get, x, out, clamp)
        elif core.op == "Gemm":
            work = convolution.gemm(core, graph, self._producers.get, x, out, clamp)
        elif core.op == "MatMul" and self._multiplies_constants(core):
            work = convolution.matmul(core, graph, self._producers.get, x, out, clamp)
        elif core.op == "MatMul":
            second, y = self._operand(core.inputs[1])
            sources.append(second.inputs[0])
            work = products.product(core, graph, x, y, out, clamp)
        else:
            if clamp != Clamp():
                raise Unplaced("a clamp follows it")
            if core.op == "Softmax":
                work = elementwise.softmax(core, graph, x, out)
            elif core.op == "LayerNormalization":
                factors = tuple(self._producers.get(core.input(at)) for at in (1, 2))
                work = products.layer_norm(core, graph, factors, x, out)
            elif core.op == "AveragePool":
                work = elementwise.average_pool(core, graph, x)
            else:
                work = elementwise.global_average_pool(core, graph, x)
        if all(name in graph.constants for name in sources):
            raise Unplaced("it reads only constants")
        return self._made(work, core, members, sources, quantizer.output, out, dequantizers)

    def _table(self, quantizer: Node, value: str, out: Quantization) -> Unit:
        """What one quantized tensor becomes element by element."""
        nodes, leaves = self._island(value)
        if not nodes:
            leaf, x = self._operand(value)
            if x == out:
                members = (quantizer,)
                return self._made(
                    Reshape(), quantizer, members, leaf.inputs[:1], quantizer.output, out, (leaf,)
                )
            table = requantize(x, out)
            main = quantizer
        else:
            leaf, x = self._operand(leaves[0].output)
            renamed = {other.output: leaf.output for other in leaves}
            canonical = [
                dataclasses.replace(n, inputs=tuple(renamed.get(i, i) for i in n.inputs))
                for n in nodes
            ]
            table = self._tables.of(canonical, leaf.output, value, x, out)
            main = nodes[-1]
        return self._made(
            Table(table),
            main,
            (quantizer, *nodes),
            leaf.inputs[:1],
            quantizer.output,
            out,
            leaves or (leaf,),
        )

    def _island(self, value: str) -> tuple[list[Node], list[Node]]:
        """Elementwise nodes between one quantized tensor and `value` in running order, and the
        DequantizeLinear nodes they start from, which dequantize that tensor alike."""
        nodes: dict[Node, None] = {}
        leaves: dict[Node, None] = {}
        shape = self._graph.shape(value)
        stack = [value]
        while stack:
            name = stack.pop()
            if name in self._graph.constants:
                if np.prod(self._graph.constants.shape(name)) != 1:
                    raise Unplaced("it combines a quantized tensor with a float one")
                continue
            node = self._producers.get(name)
            if node is None:
                raise Unplaced("it computes in float: its input is not quantized")
            if node.op == "DequantizeLinear" and not node.domain:
                if node.inputs[0] in self._graph.constants:
                    raise Unplaced("it combines a quantized tensor with dequantized constants")
                leaves[node] = None
            elif node.op in ELEMENTWISE.get(node.domain, ()) and len(nodes) < DAG_MAX:
                if self._graph.shape(name) != shape or any(node.outputs[1:]):
                    raise Unplaced("it broadcasts")
                nodes[node] = None
                stack += [source for source in node.inputs if source]
            else:
                raise Unplaced(_not_quantized(node))
        found = {(leaf.inputs[0], per_tensor(leaf, self._graph)) for leaf in leaves}
        if len(found) > 1:
            raise Unplaced("it computes in float from several quantized tensors")
        if leaves and self._graph.shape(next(iter(leaves)).output) != shape:
            raise Unplaced("it broadcasts")
        return sorted(nodes, key=self._order.__getitem__), list(leaves)


def _not_quantized(node: Node) -> str:
    if node.op in CORES and not node.domain:
        return "its float result or operands are not quantized"
    return unmoved(node) or f"the card has no {node.op}"

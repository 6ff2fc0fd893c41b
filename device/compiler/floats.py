# SPDX-License-Identifier: Apache-2.0
"""Float islands: what the integer instructions leave between quantized tensors becomes work of the
card's float32 vector unit, node by node; vector_groups.py joins it again."""

import math
from collections.abc import Callable, Sequence

import onnx

from device.compiler import vector
from device.compiler.convolution import float_product
from device.compiler.float_operands import BOOL, Operands, Wanted
from device.compiler.graph import FLOAT, Graph, Node, Shape
from device.compiler.movement import RESHAPES, movement
from device.compiler.quant import Quantization, Unplaced, per_tensor
from device.compiler.recognise import CORES
from device.compiler.units import (
    FloatProduct,
    FromInteger,
    Gather,
    Reshape,
    Transpose,
    Unit,
    Vector,
)

INTEGERS = (int(onnx.TensorProto.INT64), int(onnx.TensorProto.INT32))
MOVES = RESHAPES | {"Concat", "Expand", "Slice", "Transpose"}
PRODUCTS = {"Conv", "Gemm", "MatMul"}
RANK_MAX = 4


class FloatRecogniser(Operands):
    """`units`: those given, as far as their inner tensors stay their own, and the vector unit's.
    `invented` collects tensors that the model lacks."""

    def __init__(
        self, graph: Graph, units: Sequence[Unit], reasons: dict[int, str], invented: set[str]
    ) -> None:
        super().__init__(graph, invented)
        self._reasons = reasons
        self._whole = list(units)

    def run(self) -> None:
        while True:
            try:
                self._attempt()
                return
            except Wanted as found:
                self._whole.remove(found.unit)

    def _attempt(self) -> None:
        self.units = list(self._whole)
        self._made = set()
        self._refused: dict[Node, str] = {}
        self._inner = {
            name: unit
            for unit in self._whole
            for node in unit.members
            for name in node.outputs
            if name and name != unit.output
        }
        covered = {node for unit in self._whole for node in unit.members}
        for node in self._graph.nodes:
            if node in covered or node.captures or any(node.outputs[1:]):
                continue
            before = len(self.units)
            try:
                self._recognise(node)
            except Unplaced as reason:
                self._made -= {unit.output for unit in self.units[before:]}
                del self.units[before:]
                self._refused[node] = str(reason)
        for node, why in self._refused.items():
            elementwise = (node.domain, node.op) in vector.ELEMENTWISE
            if elementwise or node.op not in CORES:
                self._reasons[node.index] = why  # that it is not quantized does not matter
            else:
                self._reasons.setdefault(node.index, why)

    def _recognise(self, node: Node) -> None:
        kind = self._graph.types.get(node.output)
        rule = vector.ELEMENTWISE.get((node.domain, node.op))
        if node.op == "QuantizeLinear" and not node.domain:
            self._quantizer(node)
        elif kind in INTEGERS and node.op in RESHAPES and not node.domain:
            self._unit(Reshape(), node, (node.inputs[0],))
        elif kind not in (FLOAT, BOOL):
            return
        elif node.op == "Cast" and self._graph.type(node.inputs[0]) in INTEGERS:
            self._from_integer(node)
        elif rule is not None:
            self._elementwise(node, rule)
        elif not node.domain and kind == FLOAT:
            self._other(node)

    def _other(self, node: Node) -> None:
        if node.op in vector.ROWWISE:
            self._rowwise(node, vector.ROWWISE[node.op])
        elif node.op in vector.REDUCTIONS:
            self._reduction(node, vector.REDUCTIONS[node.op])
        elif node.op in MOVES:
            self._move(node)
        elif node.op == "Gather":
            self._gather(node)
        elif node.op in PRODUCTS:
            self._product(node)

    def _vector(
        self, node: Node, rule: vector.Rule, names: Sequence[str], domain: Shape, out: Shape
    ) -> None:
        operands = [self._operand(name) for name in names]
        shapes = tuple(self._graph.shape(name) for name, _, _ in operands)
        if any(shape is None for shape in shapes):
            raise Unplaced("its shape is not known before it runs")
        known = tuple(shape or (1,) for shape in shapes)
        if any(not _reaches(shape, domain) for shape in known):
            raise Unplaced("its operands do not broadcast to it")
        line = vector.Line(node, self._graph, known)
        result = rule(line)
        line.check(domain)
        work = Vector(tuple(line.steps), result, domain, tuple(q for _, q, _ in operands))
        if all(name in self._graph.constants for name, _, _ in operands):
            raise Unplaced("it reads only constants")
        dequantizers = [n for _, _, found in operands for n in found]
        self._unit(
            work, node, [name for name, _, _ in operands], shape=out, dequantizers=dequantizers
        )

    def _elementwise(self, node: Node, rule: vector.Rule) -> None:
        out = self._graph.shape(node.output)
        if out is None:
            raise Unplaced("its shape is not known before it runs")
        names = [name for name in node.inputs if name]
        if node.op in vector.FIRST_ONLY:
            names = names[:1]
        self._vector(node, rule, names, out or (1,), out)

    def _rowwise(self, node: Node, rule: vector.Rule) -> None:
        shape = self._graph.shape(node.output)
        if not shape:
            raise Unplaced("its shape is not known before it runs")
        default = -1 if node.op == "LayerNormalization" or self._graph.opset >= 13 else 1
        axis = int(node.attributes.get("axis", default)) % len(shape)
        if axis != len(shape) - 1:
            raise Unplaced("it does not run along the last axis")
        names = [name for name in node.inputs if name]
        self._vector(node, rule, names, shape, shape)

    def _reduction(self, node: Node, rule: vector.Rule) -> None:
        """Along any axes: they are brought to the end first."""
        shape, out = self._graph.shape(node.inputs[0]), self._graph.shape(node.output)
        if not shape or out is None:
            raise Unplaced("its shape is not known before it runs")
        axes = self._axes(node, len(shape))
        kept = [axis for axis in range(len(shape)) if axis not in axes]
        source, order = node.inputs[0], (*kept, *sorted(axes))
        if order != tuple(range(len(shape))) or len(axes) > 1:
            source = self._float_tensor(source)
        if order != tuple(range(len(shape))):
            turned = self._fresh(f"{node.output}/turned", tuple(shape[axis] for axis in order))
            self._unit(Transpose(order), node, (source,), turned)
            source = turned
        row = math.prod(shape[axis] for axis in axes)
        flat: Shape = (*(shape[axis] for axis in kept), row)
        if self._graph.shape(source) != flat:
            joined = self._fresh(f"{node.output}/joined", flat)
            self._unit(Reshape(), node, (source,), joined)
            source = joined
        narrow = (*flat[:-1], 1)
        target = node.output if out == narrow else self._fresh(f"{node.output}/row", narrow)
        operand, found, dequantizers = self._operand(source)
        line = vector.Line(node, self._graph, (flat,))
        result = rule(line)
        line.check(flat)
        work = Vector(tuple(line.steps), result, flat, (found,))
        self._unit(work, node, (operand,), target, narrow, dequantizers=dequantizers)
        if target != node.output:
            self._unit(Reshape(), node, (target,))

    def _axes(self, node: Node, rank: int) -> set[int]:
        given = node.attributes.get("axes")
        if node.input(1):
            given = self._graph.constants.get(node.inputs[1])
            if given is None:
                raise Unplaced("its axes are not constant")
        if given is None or len(given) == 0:
            if node.attributes.get("noop_with_empty_axes", 0):
                raise Unplaced("it reduces nothing")
            return set(range(rank))
        return {int(axis) % rank for axis in given}

    def _quantizer(self, node: Node) -> None:
        """A QuantizeLinear behind float work on the card."""
        source, out = node.inputs[0], per_tensor(node, self._graph)
        if out is None or source not in self._made:
            return
        shape = self._graph.shape(source)
        assert shape is not None
        work = Vector((), 0, shape or (1,), (None,))
        self._unit(work, node, (source,), quantization=out)

    def _from_integer(self, node: Node) -> None:
        if node.attributes.get("to") == 1:
            self._unit(FromInteger(), node, (node.inputs[0],))
            return
        plain = self._as_float(node.inputs[0])
        shape = self._graph.shape(plain) or (1,)
        line = vector.Line(node, self._graph, (shape,))
        result = line.do("ne", 0, line.value(0))
        self._unit(Vector(tuple(line.steps), result, shape, (None,)), node, (plain,))

    def _move(self, node: Node) -> None:
        data = node.inputs if node.op == "Concat" else node.inputs[:1]
        if all(name in self._graph.constants for name in data):
            raise Unplaced("it reads only constants")
        work = movement(node, self._graph)
        self._unit(work, node, [self._float_tensor(name) for name in data])

    def _gather(self, node: Node) -> None:
        graph = self._graph
        shape, index = graph.shape(node.inputs[0]), node.inputs[1]
        if index in graph.constants or graph.types.get(index) not in INTEGERS:
            raise Unplaced("its indices are not integers that a request brings")
        if not shape or len(shape) < 2 or int(node.attributes.get("axis", 0)) % len(shape):
            raise Unplaced("it does not gather rows of a matrix")
        table, found, dequantizers = self._table(node.inputs[0])
        if table not in graph.constants:
            raise Unplaced("its table is not constant")
        self._unit(Gather(found), node, (table, index), dequantizers=dequantizers)

    def _table(self, name: str) -> tuple[str, Quantization | None, tuple[Node, ...]]:
        """An embedding's table; one that is quantized as a whole stays bytes."""
        producer = self._producers.get(name)
        if producer is not None and producer.op == "DequantizeLinear":
            found = per_tensor(producer, self._graph)
            if found is not None and producer.inputs[0] in self._graph.constants:
                return producer.inputs[0], found, (producer,)
        return self._operand(name)

    def _product(self, node: Node) -> None:
        if node.index in self._reasons and all(self._quantized(n) for n in node.inputs[:2]):
            raise Unplaced(self._reasons[node.index])  # in float it would not be the same
        weights = self._producers.get(node.inputs[1])
        constants = self._graph.constants
        if weights and weights.op == "DequantizeLinear" and weights.inputs[0] in constants:
            self._quantized_product(node)
            return
        if node.op != "MatMul":
            raise Unplaced("its weights are float, which is onnxruntime's part")
        if any(name in self._graph.constants for name in node.inputs):
            raise Unplaced("its weights are float, which is onnxruntime's part")
        ranks = [len(self._graph.shape(name) or ()) for name in node.inputs]
        if min(ranks) < 2 or max(ranks) > RANK_MAX:
            raise Unplaced("the card multiplies matrices of rank 2 to 4")
        self._unit(FloatProduct(), node, [self._float_tensor(name) for name in node.inputs])

    def _quantized_product(self, node: Node) -> None:
        """Quantized operands whose result stays float."""
        source, found, dequantizers = self._operand(node.inputs[0])
        if found is None:
            raise Unplaced("an operand is not quantized with one scale to 8 bits")
        if source in self._graph.constants:
            raise Unplaced("it reads only constants")
        producer: Callable[[str], Node | None] = self._producers.get
        work = float_product(node, self._graph, producer, found)
        others = [self._producers.get(name) for name in node.inputs[1:]]
        more = [n for n in others if n is not None and n.op == "DequantizeLinear"]
        self._unit(work, node, (source,), dequantizers=(*dequantizers, *more))


def _reaches(shape: Shape, domain: Shape) -> bool:
    """Whether the shape broadcasts to the domain."""
    if len(shape) > len(domain):
        return False
    pairs = zip(shape[::-1], domain[::-1], strict=False)
    return all(size in (1, wide) for size, wide in pairs)

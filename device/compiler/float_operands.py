# SPDX-License-Identifier: Apache-2.0
"""What float work reads: tensors of the model, the bytes behind a DequantizeLinear, constants and
whole numbers as float32."""

from collections.abc import Sequence

import numpy as np
import onnx

from device.binding.abi import NONE
from device.compiler.graph import FLOAT, Graph, Node, Shape
from device.compiler.quant import Quantization, Unplaced, dequantized, per_tensor
from device.compiler.units import FromInteger, Unit, Vector, Work

BOOL = int(onnx.TensorProto.BOOL)


class Wanted(Exception):
    """A float tensor inside this unit is needed by another."""

    def __init__(self, unit: Unit) -> None:
        super().__init__(unit.output)
        self.unit = unit


class Operands:
    """Makes Units. `invented` collects tensors that the model lacks, `_inner` names tensors inside
    other Units, `_made` those that float work makes."""

    def __init__(self, graph: Graph, invented: set[str]) -> None:
        self._graph = graph
        self._invented = invented
        self._producers = graph.producers()
        self._inner: dict[str, Unit] = {}
        self._made: set[str] = set()
        self.units: list[Unit] = []

    def _unit(
        self,
        work: Work,
        node: Node,
        inputs: Sequence[str],
        output: str | None = None,
        shape: Shape | None = None,
        quantization: Quantization | None = None,
        dequantizers: Sequence[Node] = (),
    ) -> None:
        name = node.output if output is None else output
        shape = self._graph.shape(name) if shape is None else shape
        if shape is None or any(self._graph.shape(n) is None for n in inputs):
            raise Unplaced("its shape is not known before it runs")
        if 0 in shape or any(0 in (self._graph.shape(name) or ()) for name in inputs):
            raise Unplaced("a tensor of it is empty")
        unit = Unit(
            work,
            node,
            (node,),
            tuple(inputs),
            name,
            shape,
            quantization,
            tuple(dequantizers),
        )
        self._made.add(name)
        self.units.append(unit)

    def _fresh(self, near: str, shape: Shape) -> str:
        name = near
        while name in self._graph.shapes or name in self._graph.constants:
            name += "'"
        self._invented.add(name)
        self._graph.shapes[name] = shape
        self._graph.types[name] = FLOAT
        return name

    def _operand(self, name: str) -> tuple[str, Quantization | None, tuple[Node, ...]]:
        """What to read for a float tensor: the tensor, or the bytes that it is dequantized from."""
        graph = self._graph
        if name in self._inner:
            raise Wanted(self._inner[name])
        if name in graph.constants:
            return self._constant(name), None, ()
        producer = self._producers.get(name)
        if producer is not None and producer.op == "DequantizeLinear":
            if producer.inputs[0] in graph.constants:
                return self._dequantized(producer), None, (producer,)
            found = per_tensor(producer, graph)
            if found is not None:
                if producer.inputs[0] in self._inner:
                    raise Wanted(self._inner[producer.inputs[0]])
                return producer.inputs[0], found, (producer,)
        kind = graph.types.get(name)
        if kind == BOOL and name not in self._made:
            return self._as_float(name), None, ()
        if kind not in (FLOAT, BOOL):
            raise Unplaced("an operand of it is neither float32 nor quantized to 8 bits")
        return name, None, ()

    def _constant(self, name: str) -> str:
        """A constant as float32, under a name of its own where it was something else."""
        values = self._graph.constants.get(name)
        assert values is not None
        if values.dtype == np.float32:
            return name
        if values.dtype != np.bool_ and not np.issubdtype(values.dtype, np.integer):
            raise Unplaced(f"a constant of it is {values.dtype}")
        made = f"{name}/float"
        self._graph.constants[made] = values.astype(np.float32)
        return made

    def _dequantized(self, node: Node) -> str:
        """Constants behind a DequantizeLinear, as float32."""
        made = f"{node.output}/float"
        if made not in self._graph.constants:
            self._graph.constants[made] = dequantized(node, self._graph)
        return made

    def _as_float(self, name: str) -> str:
        """Integers or truth values from the segment's edge as float32; once for all readers."""
        made = f"{name}/float"
        if made not in self._made:
            shape = self._graph.shape(name)
            if shape is None:
                raise Unplaced("its shape is not known before it runs")
            self._graph.shapes.setdefault(made, shape)
            self._graph.types.setdefault(made, FLOAT)
            self._invented.add(made)
            edge = Node(NONE, "Cast", "", (name,), (made,), {}, name)
            self._unit(FromInteger(), edge, (name,), made)
        return made

    def _float_tensor(self, name: str) -> str:
        """A float tensor that lies in the arena as such, for work that cannot dequantize."""
        source, found, dequantizers = self._operand(name)
        if found is None:
            return source
        shape = self._graph.shape(source)
        assert shape is not None
        made = f"{name}/float"
        if made not in self._made:
            self._graph.shapes.setdefault(made, shape)
            self._graph.types.setdefault(made, FLOAT)
            self._invented.add(made)
            work = Vector((), 0, shape or (1,), (found,))
            edge = Node(NONE, "DequantizeLinear", "", (source,), (made,), {}, name)
            self._unit(work, edge, (source,), made, dequantizers=dequantizers)
        return made

    def _quantized(self, name: str) -> bool:
        producer = self._producers.get(name)
        return producer is not None and producer.op == "DequantizeLinear"

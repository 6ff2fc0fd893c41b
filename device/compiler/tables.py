# SPDX-License-Identifier: Apache-2.0
"""256-entry tables for what is computed element by element between one DequantizeLinear and one
QuantizeLinear. Clamps and requantization take a few lines of float32; everything else is run on
onnxruntime over all 256 inputs, so that the table holds its bits."""

from collections.abc import Sequence

import numpy as np
import onnx

from device.compiler.evaluate import OPTIMIZED, NotEvaluated, evaluate
from device.compiler.graph import Graph, Node, numpy_dtype
from device.compiler.plan import Array
from device.compiler.quant import Quantization, Unplaced

CODES = np.arange(256, dtype=np.uint8)


def requantize(x: Quantization, y: Quantization) -> Array:
    return y.store(x.load(CODES))


class Tables:
    """Builds tables and keeps them, since models repeat the same activation with the same scale."""

    def __init__(self, graph: Graph, opsets: Sequence[onnx.OperatorSetIdProto]) -> None:
        self._graph = graph
        self._opsets = opsets
        self._kept: dict[tuple[object, ...], Array] = {}

    def of(
        self, nodes: Sequence[Node], source: str, result: str, x: Quantization, y: Quantization
    ) -> Array:
        """The table of `nodes`, in running order, from the dequantized `source` to `result`."""
        names = {source: 0}
        for node in nodes:
            names[node.output] = len(names)
        key = (x, y, *(self._signature(node, names) for node in nodes))
        if key not in self._kept:
            self._kept[key] = self._build(nodes, source, result, x, y)
        return self._kept[key]

    def _signature(self, node: Node, names: dict[str, int]) -> tuple[object, ...]:
        """What a node computes, free of tensor names."""
        inputs = []
        for name in node.inputs:
            constant = self._graph.constants.get(name)
            inputs.append(names.get(name) if constant is None else constant.tobytes())
        return (node.domain, node.op, *inputs, *sorted(map(str, node.attributes.items())))

    def _build(
        self, nodes: Sequence[Node], source: str, result: str, x: Quantization, y: Quantization
    ) -> Array:
        real = x.load(CODES)
        for node in nodes:
            bounds = clamp_bounds(node, self._graph)
            if bounds is None:
                return self._run(nodes, source, result, x, y)
            real = np.minimum(np.maximum(real, bounds[0]), bounds[1])
        return y.store(real)

    def _run(
        self, nodes: Sequence[Node], source: str, result: str, x: Quantization, y: Quantization
    ) -> Array:
        """DequantizeLinear, the nodes, QuantizeLinear on onnxruntime, optimized as it optimizes a
        whole model, over all stored values."""
        constants = self._graph.constants.copy()
        values = CODES ^ np.uint8(x.offset)
        constants["tepi/codes"] = values.view(numpy_dtype(x.type))
        for role, q in (("x", x), ("y", y)):
            constants[f"tepi/{role}_scale"] = np.array(q.scale, np.float32)
            constants[f"tepi/{role}_zero"] = np.array(q.zero_point, numpy_dtype(q.type))
        make = onnx.helper.make_node
        protos = [
            make("DequantizeLinear", ["tepi/codes", "tepi/x_scale", "tepi/x_zero"], [source]),
            *(
                make(n.op, n.inputs, n.outputs, None, domain=n.domain, **n.attributes)
                for n in nodes
            ),
            make("QuantizeLinear", [result, "tepi/y_scale", "tepi/y_zero"], ["tepi/table"]),
        ]
        try:
            (table,) = evaluate(
                protos, self._opsets, constants, [("tepi/table", y.type)], OPTIMIZED
            )
        except NotEvaluated as error:
            raise Unplaced(f"onnxruntime cannot tabulate it: {error}") from error
        return y.bytes_of(table)


def clamp_bounds(node: Node, graph: Graph) -> tuple[np.float32, np.float32] | None:
    """(lowest, highest) of a Relu or Clip; None where the node is something else."""
    lowest, highest = np.float32(-np.inf), np.float32(np.inf)
    if node.domain:
        return None
    if node.op == "Relu":
        return np.float32(0), highest
    if node.op != "Clip":
        return None
    if "min" in node.attributes:
        lowest = np.float32(node.attributes["min"])
    if "max" in node.attributes:
        highest = np.float32(node.attributes["max"])
    for position in (1, 2):
        name = node.input(position)
        if not name:
            continue
        value = graph.constants.get(name)
        if value is None or value.size != 1 or value.dtype != np.float32:
            return None
        if position == 1:
            lowest = np.float32(value.reshape(-1)[0])
        else:
            highest = np.float32(value.reshape(-1)[0])
    if np.isnan(lowest) or np.isnan(highest):
        return None
    return lowest, highest

# SPDX-License-Identifier: Apache-2.0
"""Models quantized as they run: DynamicQuantizeLinear, MatMulInteger and ConvInteger, and the Cast
and Mul that bring their sums back to float32, as onnxruntime.quantization.quantize_dynamic writes
them."""

import dataclasses

import numpy as np

from device.compiler.convolution import float_product
from device.compiler.graph import FLOAT, Graph, Node
from device.compiler.quant import Unplaced
from device.compiler.units import Convolution, DynamicQuantize, Unit

_FLOAT_FORM = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


class DynamicRecogniser:
    """`units` of the products that it finds, `invented` the bytes between them: their scale exists
    on the card only."""

    def __init__(self, graph: Graph, reasons: dict[int, str], invented: set[str]) -> None:
        self._graph = graph
        self._reasons = reasons
        self._invented = invented
        self._producers = graph.producers()
        self._readers = graph.consumers()
        self.units: list[Unit] = []

    def run(self) -> None:
        quantizers: dict[str, Node] = {}
        for node in self._graph.nodes:
            if node.domain or node.op not in _FLOAT_FORM:
                continue
            try:
                unit, quantizer = self._product(node)
            except Unplaced as reason:
                self._reasons.setdefault(node.index, str(reason))
                continue
            quantizers[quantizer.output] = quantizer
            self.units.append(unit)
        self.units[:0] = [self._quantize(node) for node in quantizers.values()]

    def _quantize(self, node: Node) -> Unit:
        self._invented.add(node.output)
        shape = self._graph.shape(node.output)
        assert shape is not None
        return Unit(DynamicQuantize(), node, (node,), node.inputs[:1], node.output, shape, None, ())

    def _product(self, node: Node) -> tuple[Unit, Node]:
        graph = self._graph
        quantizer = self._producers.get(node.inputs[0])
        if quantizer is None or quantizer.op != "DynamicQuantizeLinear":
            raise Unplaced("its input is not quantized as it runs")
        if node.input(2) != quantizer.outputs[2]:
            raise Unplaced("its zero point is not that of its input")
        if graph.type(quantizer.inputs[0]) != FLOAT or not graph.shape(quantizer.output):
            raise Unplaced("its shape is not known before it runs")
        cast = self._only_reader(node)
        if cast.op != "Cast" or cast.attributes.get("to") != FLOAT:
            raise Unplaced("its sums are not cast to float32")
        scaled = self._only_reader(cast)
        factor = next((name for name in scaled.inputs if name != cast.output), "")
        scales = self._producers.get(factor)
        if scaled.op != "Mul" or scales is None or scales.op != "Mul":
            raise Unplaced("its sums are not multiplied by both scales")
        if scales.inputs[0] == quantizer.outputs[1]:
            weight_scale = scales.inputs[1]
        elif scales.inputs[1] == quantizer.outputs[1]:
            weight_scale = scales.inputs[0]
        else:
            raise Unplaced("its sums are not multiplied by both scales")
        work = self._work(node, weight_scale)
        out = graph.shape(scaled.output)
        if not out or out != graph.shape(node.output):
            raise Unplaced("its shape is not known before it runs")
        members = (scaled, scales, cast, node)
        unit = Unit(work, node, members, (quantizer.output,), scaled.output, out, None, ())
        return unit, quantizer

    def _only_reader(self, node: Node) -> Node:
        readers = self._readers.get(node.output, ())
        if len(readers) != 1 or node.output in self._graph.outputs:
            raise Unplaced("its sums are read by more than one operator")
        return readers[0]

    def _work(self, node: Node, weight_scale: str) -> Convolution:
        """The product as if its weights stood behind a DequantizeLinear."""
        graph = self._graph
        weights, scale = node.inputs[1], graph.constants.get(weight_scale)
        if scale is None or scale.dtype != np.float32 or weights not in graph.constants:
            raise Unplaced("its weights or their scale are not constant")
        rank = len(graph.constants.shape(weights))
        axis = 1 if node.op == "MatMulInteger" else 0
        if node.op == "ConvInteger":
            scale = scale.reshape(-1)
        if scale.size > 1 and scale.ndim != 1:
            raise Unplaced("the scales of its weights do not run along its output channels")
        name = f"{weight_scale}/flat"
        graph.constants[name] = scale.reshape(-1) if scale.size > 1 else scale.reshape(())
        zero = node.input(3)
        if zero and zero not in graph.constants:
            raise Unplaced("the zero point of its weights is not constant")
        inputs = (weights, name, zero) if zero else (weights, name)
        attributes = {"axis": axis % rank}
        behind = Node(node.index, "DequantizeLinear", "", inputs, ("",), attributes, node.name)
        form = dataclasses.replace(node, op=_FLOAT_FORM[node.op], inputs=node.inputs[:2])
        return float_product(form, graph, lambda _: behind, None)

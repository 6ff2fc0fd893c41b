# SPDX-License-Identifier: Apache-2.0
"""The official node tests of the card's operators, quantized by onnxruntime.quantization.

The tests give weights, shapes and bounds as inputs; here they become initializers, as in a model.
Operators that only move data, and those that the quantizer leaves in float where nothing before
them is quantized, get a LeakyRelu in front.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from device.binding import Card
from device.compiler import Placement
from device.session import Session

from .official import Case, cases, excuse, host

Array = npt.NDArray[Any]

MOVES = {"Concat", "Flatten", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
LED = {*MOVES, "AveragePool", "Clip", "MaxPool", "Relu", "Resize"}
PAIRS = {"Add", "Concat", "Mul"}  # every input is an activation
QUANTIZED = {"DequantizeLinear", "QLinearConv", "QLinearMatMul", "QuantizeLinear"}
OPERATORS = {
    *("AveragePool", "Clip", "Conv", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish"),
    *("LeakyRelu", "MatMul", "MaxPool", "Relu", "Resize", "Sigmoid", "Softmax", "Tanh"),
    *(*MOVES, *PAIRS, *QUANTIZED),
}
TYPES = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
OPSET_MAX = 25  # of the variants: onnxruntime has kernels for all of these operators


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized model of one operator (`op`) and what to feed it."""

    op: str
    model: onnx.ModelProto
    feeds: Mapping[str, Array]


@dataclass(frozen=True)
class Comparison:
    """The card against onnxruntime: largest difference in steps, values that differ, of how
    many."""

    op: str
    placement: Sequence[Placement]
    steps: int
    differing: int
    values: int

    @property
    def where(self) -> str:
        return where(self.placement)

    @property
    def reason(self) -> str:
        """Why the operator, or else a node beside it, is off the card."""
        rows = [row for row in self.placement if row.where != "card"]
        rows.sort(key=lambda row: row.op != self.op)
        return rows[0].reason if rows else ""


def where(placement: Sequence[Placement]) -> str:
    """ "card", "onnxruntime", or "both"."""
    places = {row.where for row in placement}
    return "both" if len(places) > 1 else next(iter(places), "onnxruntime")


class _Once(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Mapping[str, Array]) -> None:
        self._left = iter([dict(feeds)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def variants() -> list[tuple[str, str]]:
    """(name of the official case, "u8" | "s8" | "as is") of every variant there is."""
    found: list[tuple[str, str]] = []
    for name, case in cases().items():
        nodes = case.model.graph.node
        if case.kind != "node" or len(nodes) != 1 or nodes[0].op_type not in OPERATORS:
            continue
        if nodes[0].op_type in QUANTIZED:
            found.append((name, "as is"))
        elif case.model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT:
            found += [(name, "u8"), (name, "s8")]
    return found


def variant(case: Case, kind: str) -> Quantized:
    """The case's model with its own data as constants and, but for "as is", calibration."""
    model, feeds = _with_constants(case)
    op = case.model.graph.node[0].op_type
    if kind == "as is":
        return Quantized(op, model, feeds)
    if op in LED:
        _lead(model)
    return Quantized(op, _quantize(model, feeds, TYPES[kind]), feeds)


def _with_constants(case: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.opset_import[0].version = min(model.opset_import[0].version, OPSET_MAX)
    graph = model.graph
    given = dict(zip((v.name for v in graph.input), case.data_sets[0][0], strict=True))
    node = graph.node[0]
    kept = [v for v in graph.input if node.op_type in PAIRS or v.name == node.input[0]]
    constants = [name for name in given if name not in {v.name for v in kept}]
    graph.initializer.extend(numpy_helper.from_array(given[name], name) for name in constants)
    del graph.input[:]
    graph.input.extend(kept)
    del graph.value_info[:]
    return model, {v.name: given[v.name] for v in kept}


def _lead(model: onnx.ModelProto) -> None:
    """A LeakyRelu between each input and the operator."""
    node = model.graph.node[0]
    inputs = {value.name for value in model.graph.input}
    leads = [
        helper.make_node("LeakyRelu", [name], [f"{name}/led"], f"lead_{name}", alpha=0.5)
        for name in sorted(inputs)
    ]
    for position, name in enumerate(node.input):
        if name in inputs:
            node.input[position] = f"{name}/led"
    operator = onnx.NodeProto()
    operator.CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend([*leads, operator])


def _quantize(
    model: onnx.ModelProto, feeds: Mapping[str, Array], kind: QuantType
) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "quantized.onnx"
        quantize_static(
            model,
            path,
            _Once(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=kind,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*OPERATORS - QUANTIZED],
            extra_options={"QDQKeepRemovableActivations": True},
        )
        return onnx.load(path)


def compare(case: Case, kind: str, card: Card) -> Comparison | str:
    """A variant on the card and on onnxruntime alone, or why onnxruntime does not run it."""
    made = variant(case, kind)
    try:
        expected = host(made.model).run(None, dict(made.feeds))
    except Exception as error:  # onnxruntime's classes share no other base
        return excuse(error)
    with Session(made.model.SerializeToString(), card, name=case.name) as session:
        found = session.run(None, made.feeds)
        steps = differing = values = 0
        for port, ours, theirs in zip(session.outputs, found, expected, strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
            apart = np.rint(apart / step(made.model, port.name))
            assert np.isfinite(apart).all()
            steps = max(steps, int(apart.max(initial=0)))
            differing += int((apart > 0).sum())
            values += apart.size
        return Comparison(made.op, session.placement, steps, differing, values)


def step(model: onnx.ModelProto, output: str) -> float:
    """What one step of the quantized result is worth in the output's own unit."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if output in node.output and node.op_type == "DequantizeLinear":
            return float(np.max(numpy_helper.to_array(values[node.input[1]])))
    return 1.0

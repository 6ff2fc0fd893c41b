# SPDX-License-Identifier: Apache-2.0
"""Runs a few constant nodes on onnxruntime, so that what is folded has the bits it would have."""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import numpy_helper

from device.compiler.graph import Constants
from device.compiler.plan import Array

OPTIMIZED, AS_WRITTEN = 99, 0  # onnxruntime.GraphOptimizationLevel: ORT_ENABLE_ALL, DISABLE_ALL


class NotEvaluated(Exception):
    """onnxruntime cannot run these nodes."""


def evaluate(
    nodes: Sequence[onnx.NodeProto],
    opsets: Sequence[onnx.OperatorSetIdProto],
    constants: Constants,
    outputs: Sequence[tuple[str, int]],
    level: int = AS_WRITTEN,
) -> list[Array]:
    """Values of `outputs` (name, element type) of nodes that read nothing but `constants`."""
    produced = {out for node in nodes for out in node.output}
    sources = dict.fromkeys(name for node in nodes for name in node.input if name)
    initializers = [
        numpy_helper.from_array(array, name)
        for name in sources
        if name not in produced and (array := constants.get(name)) is not None
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        initializers,
    )
    model = onnx.helper.make_model(graph, opset_imports=list(opsets), ir_version=8)
    try:
        session = _open(model, level)
        values: list[Array] = session.run([name for name, _ in outputs], {})
    except Exception as error:  # onnxruntime's classes share no other base
        raise NotEvaluated(str(error)) from error
    return values


def loads(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime takes the model, its own inference of types and shapes included."""
    try:
        _open(model, OPTIMIZED)
    except Exception as error:  # onnxruntime's classes share no other base
        if type(error).__module__.startswith("onnxruntime"):
            return False
        raise
    return True


def _open(model: onnx.ModelProto, level: int) -> Any:
    from device.host import open_session  # onnxruntime takes a quarter of a second to import

    return open_session(model, level=level)

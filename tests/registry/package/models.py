# SPDX-License-Identifier: Apache-2.0
"""Small models and packages for the tests of this room."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from registry.package.layout import Layout
from registry.package.model_folder import Wanted, gather
from registry.package.modelpack import Variant
from registry.package.packing import Made, Options, pack

ROOT = Path(__file__).resolve().parents[3]
DIGITS = ROOT / "examples/digits/model_repository/digits"
CPU = (Variant.CPU,)


def packed(source: Path, layout: Layout, options: Options | None = None) -> Made:
    """Pack with what the folder says."""
    return pack(gather(source, Wanted()), options or Options(), layout)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, int],
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """An ONNX model of these nodes."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def relu(shape: list[int | str]) -> onnx.ModelProto:
    """Float x to max(x, 0)."""
    node = helper.make_node("Relu", ["x"], ["y"], "relu")
    return model([node], {"x": (TensorProto.FLOAT, shape)}, {"y": TensorProto.FLOAT})


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    """The model as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path

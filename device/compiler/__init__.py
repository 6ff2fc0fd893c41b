# SPDX-License-Identifier: Apache-2.0
"""Quantized ONNX to card programs: read, fold, recognise, place, lay out, lower, emit."""

from device.compiler.plan import (
    CardSegment,
    CompiledModel,
    HostSegment,
    Placement,
    Port,
    TensorInfo,
)

__all__ = [
    "CardSegment",
    "CompiledModel",
    "HostSegment",
    "Placement",
    "Port",
    "TensorInfo",
    "compile_model",
]

from collections.abc import Mapping, Sequence

import onnx


def compile_model(
    model: bytes | onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    name: str = "model",
) -> CompiledModel:
    """Compile for these input shapes, or for the declared ones (a symbolic dimension 0 counts as
    the batch). `name` is what errors call the model. Raises device.errors.ModelError."""
    raise NotImplementedError

# SPDX-License-Identifier: Apache-2.0
"""Quantized ONNX to card programs: read, fold, recognise, place, lay out, lower, emit."""

from device.compiler.compile import compile_model
from device.compiler.plan import (
    CardSegment,
    CompiledModel,
    HostSegment,
    Placement,
    Port,
    TensorInfo,
)
from device.compiler.reader import Clash

__all__ = [
    "CardSegment",
    "Clash",
    "CompiledModel",
    "HostSegment",
    "Placement",
    "Port",
    "TensorInfo",
    "compile_model",
]

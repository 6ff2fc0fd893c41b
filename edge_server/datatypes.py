# SPDX-License-Identifier: Apache-2.0
"""Tensor types under their four names: on the wire, in numpy, in config.pbtxt, in ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wire import model_config_pb2 as config_pb2


@dataclass(frozen=True, slots=True)
class Datatype:
    """One tensor type. `contents` is the field of InferTensorContents that carries it, if any."""

    wire: str
    onnx: str
    config: config_pb2.DataType.ValueType
    dtype: np.dtype[Any]
    contents: str | None

    @property
    def itemsize(self) -> int:
        """Bytes of one element; 0 where elements have no fixed size (BYTES)."""
        return 0 if self.dtype == np.dtype(object) else self.dtype.itemsize


_TABLE = (
    Datatype("BOOL", "bool", config_pb2.TYPE_BOOL, np.dtype("?"), "bool_contents"),
    Datatype("UINT8", "uint8", config_pb2.TYPE_UINT8, np.dtype("u1"), "uint_contents"),
    Datatype("UINT16", "uint16", config_pb2.TYPE_UINT16, np.dtype("<u2"), "uint_contents"),
    Datatype("UINT32", "uint32", config_pb2.TYPE_UINT32, np.dtype("<u4"), "uint_contents"),
    Datatype("UINT64", "uint64", config_pb2.TYPE_UINT64, np.dtype("<u8"), "uint64_contents"),
    Datatype("INT8", "int8", config_pb2.TYPE_INT8, np.dtype("i1"), "int_contents"),
    Datatype("INT16", "int16", config_pb2.TYPE_INT16, np.dtype("<i2"), "int_contents"),
    Datatype("INT32", "int32", config_pb2.TYPE_INT32, np.dtype("<i4"), "int_contents"),
    Datatype("INT64", "int64", config_pb2.TYPE_INT64, np.dtype("<i8"), "int64_contents"),
    Datatype("FP16", "float16", config_pb2.TYPE_FP16, np.dtype("<f2"), None),
    Datatype("FP32", "float", config_pb2.TYPE_FP32, np.dtype("<f4"), "fp32_contents"),
    Datatype("FP64", "double", config_pb2.TYPE_FP64, np.dtype("<f8"), "fp64_contents"),
    Datatype("BYTES", "string", config_pb2.TYPE_STRING, np.dtype(object), "bytes_contents"),
)

BY_WIRE = {t.wire: t for t in _TABLE}
BY_ONNX = {f"tensor({t.onnx})": t for t in _TABLE}
BY_CONFIG = {t.config: t for t in _TABLE}

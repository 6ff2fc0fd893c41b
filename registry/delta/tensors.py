# SPDX-License-Identifier: Apache-2.0
"""Where the tensors of an ONNX file lie in it.

The onnx package gives a tensor's values but not their place in the file, which is what a delta
needs. This walks the protobuf wire format (protobuf.dev, Encoding) just far enough to find it:
ModelProto.graph (field 7), GraphProto.initializer (5), TensorProto.dims (1), .data_type (2),
.name (8) and .raw_data (9). Nothing is copied but names. A file that is something else has none.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import NamedTuple

_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_RANK = 8
_FIELDS = 4_000_000  # of one message; a file with more is not worth walking

# TensorProto.DataType to bytes of a number; what is not here is subtracted byte by byte.
_WIDTHS = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}

Buffer = bytes | memoryview | mmap.mmap


class Tensor(NamedTuple):
    """A tensor's values in a file: where they begin, how many bytes they are, and how many one
    number of them has. `columns`: bytes of a row of its matrix; 0 where it is none."""

    offset: int
    size: int
    width: int
    columns: int = 0


class _Field(NamedTuple):
    number: int
    start: int  # of its bytes, where it has bytes
    end: int
    value: int  # where it is a varint


class _NotProtobuf(Exception):
    """The bytes are no protobuf message."""


def find_tensors(data: Buffer) -> dict[str, Tensor]:
    """The initializers with raw data by name, in the file's order. Of bytes that are no ONNX file,
    none."""
    found: dict[str, Tensor] = {}
    try:
        for field in _fields(data, 0, len(data)):
            if field.number == _GRAPH and field.end:
                for part in _fields(data, field.start, field.end):
                    if part.number == _INITIALIZER and part.end:
                        name, tensor = _tensor(data, part)
                        if tensor.size and name not in found:
                            found[name] = tensor
    except _NotProtobuf:
        return {}
    return found


def _tensor(data: Buffer, message: _Field) -> tuple[str, Tensor]:
    name, kind, start, end = "", 0, 0, 0
    shape: list[int] = []
    for field in _fields(data, message.start, message.end):
        if field.number == _DIMS:
            shape += _packed(data, field) if field.end else [field.value]
        elif field.number == _DATA_TYPE:
            kind = field.value
        elif field.number == _NAME:
            name = bytes(data[field.start : field.end]).decode("utf-8", "replace")
        elif field.number == _RAW_DATA:
            start, end = field.start, field.end
    width = _WIDTHS.get(kind, 1)
    if (end - start) % width:
        width = 1
    return name, Tensor(start, end - start, width, _columns(shape, end - start, width))


def _packed(data: Buffer, field: _Field) -> list[int]:
    """A repeated number's values in packed form."""
    found, at = [], field.start
    while at < field.end:
        value, at = _varint(data, at, field.end)
        found.append(value)
    return found


def _columns(shape: list[int], size: int, width: int) -> int:
    """Bytes of a row: a matrix's own, or all of a convolution's that lead to one channel."""
    if len(shape) < 2 or len(shape) > _RANK or math.prod(shape) * width != size:
        return 0
    return width * math.prod(shape[1:])


def _fields(data: Buffer, at: int, end: int) -> Iterator[_Field]:
    """The fields of the message in data[at:end]; raises _NotProtobuf where there is none."""
    for _ in range(_FIELDS):
        if at == end:
            return
        key, at = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        value = start = stop = 0
        if kind == _VARINT:
            value, at = _varint(data, at, end)
        elif kind == _BYTES:
            size, start = _varint(data, at, end)
            at = stop = start + size
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise _NotProtobuf
        if at > end or not number:
            raise _NotProtobuf
        yield _Field(number, start, stop, value)
    raise _NotProtobuf


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        if at >= end:
            break
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if not octet & 0x80:
            return value, at
    raise _NotProtobuf

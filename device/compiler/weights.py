# SPDX-License-Identifier: Apache-2.0
"""The large initializers of an ONNX file, left in the file until they are asked for.

`open_model` walks the file's protobuf fields without parsing them and takes everything but the
bytes of large initializers: a model of many megabytes then costs what its graph does. The file
stays open, so that it may be replaced meanwhile; written in place it is refused.
"""

import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import onnx

from device.errors import ModelError

LEFT = 4096  # bytes; smaller initializers are worth no read of their own

# Field numbers of onnx.proto, and wire types of protobuf's encoding.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class Weights:
    """Bytes of initializers by name, little-endian as ONNX's raw_data. Safe from any thread."""

    def __init__(self, file: BinaryIO | None = None, spans: Mapping[str, range] | None = None):
        self._spans = dict(spans or {})
        if file is not None:
            self._name = file.name
            self._file = os.dup(file.fileno())
            self._written = _stamp(self._file)
            weakref.finalize(self, os.close, self._file)

    def __contains__(self, name: object) -> bool:
        return name in self._spans

    def size(self, name: str) -> int:
        """In bytes."""
        return len(self._spans[name])

    def read(self, name: str) -> bytes:
        """Raises ModelError where the file was written to since it was opened."""
        span = self._spans[name]
        data = os.pread(self._file, len(span), span.start)
        if len(data) != len(span) or _stamp(self._file) != self._written:
            raise ModelError(f"{self._name} was changed while it was in use; load it again")
        return data

    def fill(self, proto: onnx.ModelProto, names: set[str] | None = None) -> None:
        """Puts the bytes of initializers (None: of all) back where they belong."""
        for tensor in proto.graph.initializer:
            if tensor.name in self._spans and (names is None or tensor.name in names):
                tensor.raw_data = self.read(tensor.name)


def open_model(path: Path) -> tuple[onnx.ModelProto, Weights]:
    """The model without the bytes of its large initializers, which the Weights hold.

    Raises OSError, and what onnx.load raises where it is no model."""
    with path.open("rb") as file:
        try:
            body, spans = _Walk(file).model()
        except _Odd:
            return onnx.load(path), Weights()
        proto = onnx.load_model_from_string(body)
        if any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer):
            return onnx.load(path), Weights()
        return proto, Weights(file, spans)


def _stamp(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns


class _Odd(Exception):
    """Not what the walk understands: the file is left to protobuf's own parser."""


class _Walk:
    """One pass over a file's fields. What it copies is the encoding of the same model."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = os.fstat(file.fileno()).st_size
        self._spans: dict[str, range] = {}

    def model(self) -> tuple[bytes, dict[str, range]]:
        parts: list[bytes] = []
        graphs = 0
        for number, key, length in self._fields(self._end):
            if number == _GRAPH and length is not None:
                graphs += 1
                body = self._graph(self._file.tell() + length)
                parts += [key, _varint(len(body)), body]
            else:
                parts.append(self._whole(key, length))
        if graphs != 1:
            raise _Odd  # several are merged, by rules that are protobuf's
        return b"".join(parts), self._spans

    def _graph(self, end: int) -> bytes:
        parts: list[bytes] = []
        names: set[str] = set()
        for number, key, length in self._fields(end):
            if number == _INITIALIZER and length is not None and length > LEFT:
                name, body = self._tensor(self._file.tell() + length)
                if name in names:
                    raise _Odd  # the checks of the whole model name it
                names.add(name)
                parts += [key, _varint(len(body)), body]
            else:
                parts.append(self._whole(key, length))
        return b"".join(parts)

    def _tensor(self, end: int) -> tuple[str, bytes]:
        parts: list[bytes] = []
        span: range | None = None
        for number, key, length in self._fields(end):
            if number == _RAW_DATA and length is not None and length > LEFT // 2:
                if span is not None:
                    raise _Odd
                begin = self._file.tell()
                span = range(begin, begin + length)
                self._file.seek(length, os.SEEK_CUR)
            else:
                parts.append(self._whole(key, length))
        body = b"".join(parts)
        name = onnx.TensorProto.FromString(body).name
        if span is not None:
            self._spans[name] = span
        return name, body

    def _fields(self, end: int) -> Iterator[tuple[int, bytes, int | None]]:
        """Number, encoded key, and the length of what follows where it is length-delimited; the
        caller moves past what follows."""
        while (at := self._file.tell()) < end:
            key, encoded = self._read_varint()
            length = self._read_varint()[0] if key & 7 == _LENGTH else None
            if length is not None and self._file.tell() + length > end:
                raise _Odd
            yield key >> 3, encoded, length
        if at != end:
            raise _Odd

    def _whole(self, key: bytes, length: int | None) -> bytes:
        """The field, its key read already."""
        if length is not None:
            return key + _varint(length) + self._take(length)
        kind = key[0] & 7
        if kind == _VARINT:
            return key + self._read_varint()[1]
        if kind in (_FIXED64, _FIXED32):
            return key + self._take(8 if kind == _FIXED64 else 4)
        raise _Odd

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise _Odd
        return data

    def _read_varint(self) -> tuple[int, bytes]:
        value, encoded = 0, b""
        for shift in range(0, 64, 7):
            byte = self._take(1)
            encoded += byte
            value |= (byte[0] & 127) << shift
            if byte[0] < 128:
                return value, encoded
        raise _Odd


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)

# SPDX-License-Identifier: Apache-2.0
"""Tensor data in the protocol's other forms: BYTES elements with their 4-byte little-endian
lengths, and the typed `contents` fields."""

from __future__ import annotations

import struct

import numpy as np

from edge_server.datatypes import Datatype
from edge_server.engines.engine import Array
from edge_server.status import invalid
from wire import inference_pb2 as pb

_LENGTH = struct.Struct("<I")


def bytes_elements(name: str, data: bytes, count: int) -> Array:
    """`count` strings out of length-prefixed `data`, as a flat object array of str."""
    out = np.empty(count if count <= len(data) // _LENGTH.size else 0, object)
    if len(out) != count:
        raise invalid(f"input '{name}': {len(data)} bytes are too few for {count} BYTES elements")
    at = 0
    for index in range(count):
        if at + _LENGTH.size > len(data):
            raise invalid(f"input '{name}': BYTES data ends before element {index} of {count}")
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if size > len(data) - at:
            raise invalid(
                f"input '{name}': BYTES element {index} says {size} bytes, "
                f"{len(data) - at} are left"
            )
        out[index] = _text(name, index, data[at : at + size])
        at += size
    if at != len(data):
        raise invalid(
            f"input '{name}': {len(data) - at} bytes after the last of {count} BYTES elements"
        )
    return out


def pack_bytes(array: Array) -> bytes:
    """Length-prefixed elements of an array of str or bytes, row-major."""
    parts: list[bytes] = []
    for element in array.flat:
        data = element if isinstance(element, bytes) else str(element).encode()
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def typed_contents(
    name: str, datatype: Datatype, contents: pb.InferTensorContents, count: int
) -> Array:
    """The flat array held by the typed field that belongs to `datatype`."""
    if datatype.contents is None:
        raise invalid(f"input '{name}': {datatype.wire} has no typed contents; send it raw")
    wrong = [f.name for f, _ in contents.ListFields() if f.name != datatype.contents]
    if wrong:
        raise invalid(
            f"input '{name}': {wrong[0]} given, {datatype.wire} belongs in {datatype.contents}"
        )
    values = getattr(contents, datatype.contents)
    if len(values) != count:
        raise invalid(f"input '{name}': {len(values)} elements in contents, expected {count}")
    if datatype.itemsize == 0:
        out = np.empty(count, object)
        for index, element in enumerate(values):
            out[index] = _text(name, index, element)
        return out
    if datatype.dtype.kind in "iu":
        wide = np.array(values, np.int64 if datatype.dtype.kind == "i" else np.uint64)
        limits = np.iinfo(datatype.dtype)
        if count and (wide.min() < limits.min or wide.max() > limits.max):
            raise invalid(f"input '{name}': a value in contents does not fit {datatype.wire}")
        return wide.astype(datatype.dtype)
    return np.array(values, datatype.dtype)


def _text(name: str, index: int, data: bytes) -> str:
    """onnxruntime's strings are UTF-8; anything else would come out changed."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise invalid(f"input '{name}': BYTES element {index} is not UTF-8") from None

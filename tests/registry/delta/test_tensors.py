# SPDX-License-Identifier: Apache-2.0
"""The walk over an ONNX file finds each tensor's bytes, and takes no harm from others'."""

from typing import Any

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from registry.delta.tensors import find_tensors

WEIGHTS: dict[str, NDArray[Any]] = {
    "int8": np.arange(-50, 50, dtype=np.int8),
    "floats": np.linspace(0, 1, 77, dtype=np.float32),
    "halves": np.linspace(0, 1, 9, dtype=np.float16),
    "wide": np.arange(300, dtype=np.int64),
    "matrix": np.arange(12, dtype=np.int8).reshape(3, 4),
    "kernels": np.zeros((5, 3, 2, 2), np.float32),
    "scalar": np.array(0.5, np.float32),
}


def model() -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    initializers = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    initializers.append(helper.make_tensor("listed", TensorProto.FLOAT, [2], [1.0, 2.0]))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        initializers,
    )
    made: bytes = helper.make_model(graph, doc_string="d" * 300).SerializeToString()
    return made


MODEL = model()


def test_offsets_are_those_of_the_values() -> None:
    found = find_tensors(MODEL)
    assert set(found) == set(WEIGHTS)  # what is not raw has no bytes to subtract
    for name, tensor in found.items():
        assert MODEL[tensor.offset : tensor.offset + tensor.size] == WEIGHTS[name].tobytes()
        assert tensor.width == WEIGHTS[name].itemsize


def test_rows_are_those_of_matrices_and_kernels() -> None:
    found = find_tensors(MODEL)
    columns = {name: tensor.columns for name, tensor in found.items() if tensor.columns}
    assert columns == {"matrix": 4, "kernels": 3 * 2 * 2 * 4}


def test_dims_that_lie_or_are_not_packed() -> None:
    for dims, columns in (([2, 4], 4), ([2, 5], 0), ([1 << 62, 1 << 62], 0), ([-1, -8], 0)):
        proto = onnx.TensorProto(name="t", data_type=3, raw_data=bytes(8), dims=dims)
        data = onnx.ModelProto(graph=onnx.GraphProto(initializer=[proto])).SerializeToString()
        assert find_tensors(data)["t"].columns == columns
        packed = b"\x0a" + bytes([sum(len(varint(d)) for d in dims)]) + b"".join(map(varint, dims))
        body = packed + b"\x42\x01t\x10\x03\x4a\x08" + bytes(8)
        graph = b"\x2a" + varint(len(body)) + body
        assert find_tensors(b"\x3a" + varint(len(graph)) + graph)["t"].columns == columns


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def test_types_that_onnx_knows_have_their_width() -> None:
    for kind in (TensorProto.BFLOAT16, TensorProto.UINT8, TensorProto.INT4, TensorProto.FLOAT8E5M2):
        proto = onnx.TensorProto(name="t", data_type=kind, raw_data=bytes(8), dims=[4])
        data = onnx.ModelProto(graph=onnx.GraphProto(initializer=[proto])).SerializeToString()
        assert find_tensors(data)["t"].width == (2 if kind == TensorProto.BFLOAT16 else 1)


def test_bytes_that_are_no_onnx_have_no_tensors() -> None:
    for data in (b"", b"\x00", b"\x3a\xff", b"\xff" * 50, b"{}", MODEL[:-1], MODEL[3:]):
        assert find_tensors(data) == {}


def test_a_length_behind_the_end_is_refused() -> None:
    assert find_tensors(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f") == {}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_give_tensors_inside_them_or_none(data: st.DataObject) -> None:
    damaged = bytearray(MODEL)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for tensor in find_tensors(bytes(damaged)).values():
        assert tensor.offset > 0 and tensor.offset + tensor.size <= len(damaged)

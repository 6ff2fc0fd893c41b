# SPDX-License-Identifier: Apache-2.0
"""The ABI as Python sees it, against what its headers promise in words."""

from device.binding import abi


def test_structures_have_the_sizes_of_the_datasheet() -> None:
    assert abi.HEADER.itemsize == 128
    assert abi.TENSOR.itemsize == 56
    assert abi.INSTRUCTION.itemsize == 128
    assert abi.INSTRUCTION["bytes"].itemsize == 112
    assert all(params.itemsize <= 112 for params in abi.PARAMS.values())


def test_fields_lie_where_c_puts_them() -> None:
    fields = abi.TENSOR.fields
    assert fields is not None
    assert fields["n"][1] == 4
    assert fields["offset"][1] == 40
    assert fields["zero_point"][1] == 52
    assert abi.PARAMS["map"]["dims"].shape == (6,)


def test_every_instruction_has_parameters() -> None:
    assert set(abi.CODES) == set(abi.PARAMS)
    assert abi.CODES["fill"] == 1 and abi.CODES["range"] == 16
    assert abi.TYPES == {"u8": 0, "i8": 1, "f32": 2, "i64": 3, "i32": 4, "bool": 5}
    assert abi.PLACES == {"arena": 0, "input": 1, "output": 2, "constant": 3}


def test_limits() -> None:
    assert int.from_bytes(b"TPRG", "little") == abi.MAGIC
    assert abi.NONE == 0xFFFFFFFF
    assert abi.ARENA_MAX == abi.PROGRAM_BYTES_MAX == 1 << 32

# SPDX-License-Identifier: Apache-2.0
"""The compiler's structures are those of the header; programs keep its rules."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.binding import abi
from device.compiler import CardSegment, compile_model

from .arithmetic import HEADER
from .arithmetic import abi as header
from .interpreter import Program
from .test_reader import network


def fields(structure: np.dtype[Any]) -> dict[str, tuple[int, int]]:
    assert structure.fields is not None
    return {name: (entry[1], entry[0].itemsize) for name, entry in structure.fields.items()}


def c_fields(name: str) -> dict[str, tuple[int, int]]:
    ffi = header()
    kind = ffi.typeof(name)
    return {field: (entry.offset, ffi.sizeof(entry.type)) for field, entry in kind.fields}


@pytest.mark.parametrize(
    ("structure", "name"),
    [
        (abi.HEADER, "struct tepi_program_header"),
        (abi.TENSOR, "struct tepi_tensor"),
        *(
            (structure, f"struct tepi_{'pool' if name.endswith('pool') else name}_params")
            for name, structure in abi.PARAMS.items()
        ),
    ],
)
def test_structure(structure: np.dtype[Any], name: str) -> None:
    assert fields(structure) == c_fields(name)
    assert structure.itemsize == header().sizeof(name)


def test_instruction() -> None:
    """cffi lists the members of the nameless union beside the other fields."""
    outer = c_fields("struct tepi_instruction")
    assert fields(abi.INSTRUCTION) == {name: outer[name] for name in fields(abi.INSTRUCTION)}
    union = {name: at for name, (at, _) in outer.items() if name not in fields(abi.INSTRUCTION)}
    assert set(union.values()) == {outer["bytes"][0]}
    assert header().sizeof("struct tepi_instruction") == abi.INSTRUCTION.itemsize


def test_numbers() -> None:
    def enum(name: str) -> dict[str, int]:
        found = header().typeof(f"enum tepi_{name}").elements
        return {key.rsplit("_", 1)[1].lower(): int(value) for value, key in found.items()}

    assert enum("instruction_code") == abi.CODES
    assert enum("type") == abi.TYPES
    assert enum("place") == abi.PLACES
    text = HEADER.read_text() + (HEADER.parent / "registers.h").read_text()
    values = {
        name: int(number, 0) << int(shift or 0)
        for name, number, shift in re.findall(
            r"#define TEPI_(\w+)\s+\(?(\w+?)u?l*(?: << (\d+)\))?(?=\s)", text
        )
        if re.fullmatch(r"0x[\da-f]+|\d+", number)
    }
    expected = {
        "PROGRAM_MAGIC": abi.MAGIC,
        "NONE": abi.NONE,
        "TENSORS_MAX": abi.TENSORS_MAX,
        "INSTRUCTIONS_MAX": abi.INSTRUCTIONS_MAX,
        "PORTS_MAX": abi.PORTS_MAX,
        "DIM_MAX": abi.DIM_MAX,
        "HALO_MAX": abi.HALO_MAX,
        "KERNEL_MAX": abi.KERNEL_MAX,
        "ARENA_MAX": abi.ARENA_MAX,
        "ABI_VERSION": abi.ABI_VERSION,
    }
    assert {key: values[key] for key in expected} == expected


def test_program_is_the_same_every_time() -> None:
    first, second = compile_model(network()), compile_model(network())
    assert first == second


def test_halos_and_arena_fit() -> None:
    """Every image with its halo lies in its place, and unused bytes of an instruction are 0."""
    (segment,) = compile_model(network()).segments
    assert isinstance(segment, CardSegment)
    program = Program(segment.program)
    sizes = {0: program.header.arena_bytes, 3: program.header.constants_bytes}
    for index in range(program.header.tensors):
        tensor = program.tensors[index]
        before = tensor.halo_top * tensor.stride_h + tensor.halo_left * tensor.stride_w
        assert tensor.offset >= before
        if tensor.place in sizes:
            assert tensor.offset - before + tensor.n * tensor.stride_n <= sizes[tensor.place]
    used = {1: "fill", 2: "map", 3: "conv", 6: "table"}
    for index in range(program.header.instructions):
        step = program.code[index]
        size = header().sizeof(f"struct tepi_{used[step.code]}_params")
        assert not any(bytes(header().buffer(step.bytes))[size:])


def test_header_stands_where_the_tests_look() -> None:
    assert Path(HEADER).name == "program.h"

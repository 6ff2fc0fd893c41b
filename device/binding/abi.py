# SPDX-License-Identifier: Apache-2.0
"""device/abi/*.h for Python: constants, and structures as numpy types, read from the C compiler.

The headers are the one source: names and meanings are theirs, nothing is written down twice here.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from device.binding._card import ffi, lib

if TYPE_CHECKING:
    from device.binding._card import CType

MAGIC: Final = lib.TEPI_PROGRAM_MAGIC
ABI_VERSION: Final = lib.TEPI_ABI_VERSION
NONE: Final = lib.TEPI_NONE
TENSORS_MAX: Final = lib.TEPI_TENSORS_MAX
INSTRUCTIONS_MAX: Final = lib.TEPI_INSTRUCTIONS_MAX
PORTS_MAX: Final = lib.TEPI_PORTS_MAX
DIM_MAX: Final = lib.TEPI_DIM_MAX
HALO_MAX: Final = lib.TEPI_HALO_MAX
KERNEL_MAX: Final = lib.TEPI_KERNEL_MAX
ARENA_MAX: Final = lib.TEPI_ARENA_MAX
STEPS_MAX: Final = lib.TEPI_STEPS_MAX
VECTOR_SOURCES: Final = lib.TEPI_VECTOR_SOURCES
VECTOR_TARGETS: Final = lib.TEPI_VECTOR_TARGETS
VECTOR_REGISTERS: Final = lib.TEPI_VECTOR_REGISTERS
VECTOR_STEPS_MAX: Final = lib.TEPI_VECTOR_STEPS_MAX
VECTOR_ROW_MAX: Final = lib.TEPI_VECTOR_ROW_MAX
PROGRAM_BYTES_MAX: Final = lib.TEPI_PROGRAM_BYTES_MAX


class Isa(IntEnum):
    """enum tepi_isa."""

    AUTO = lib.TEPI_ISA_AUTO
    SCALAR = lib.TEPI_ISA_SCALAR
    AVX2 = lib.TEPI_ISA_AVX2
    AVX512VNNI = lib.TEPI_ISA_AVX512VNNI
    AMXINT8 = lib.TEPI_ISA_AMXINT8


def _enumerators(name: str) -> dict[str, int]:
    """{"u8": 0, …} for `enum tepi_type` with TEPI_TYPE_U8 and so on."""
    values = ffi.typeof(f"enum {name}").relements
    return {key.split("_", 2)[2].lower(): value for key, value in values.items()}


TYPES: Final = _enumerators("tepi_type")
PLACES: Final = _enumerators("tepi_place")
CODES: Final = _enumerators("tepi_instruction_code")
VECTOR_CODES: Final = _enumerators("tepi_vector_code")

_SCALARS = {
    "uint8_t": "u1",
    "uint16_t": "<u2",
    "uint32_t": "<u4",
    "uint64_t": "<u8",
    "int32_t": "<i4",
    "float": "<f4",
}


def _format(ctype: CType) -> str | tuple[str, tuple[int, ...]] | np.dtype[Any]:
    if ctype.kind == "struct":
        return _structure(ctype.cname.removeprefix("struct "))
    array = re.fullmatch(r"(\w+)\[(\d+)\]", ctype.cname)
    return (_SCALARS[array[1]], (int(array[2]),)) if array else _SCALARS[ctype.cname]


def _structure(name: str) -> np.dtype[Any]:
    ctype = ffi.typeof(f"struct {name}")
    fields = ctype.fields
    return np.dtype(
        {
            "names": [field for field, _ in fields],
            "formats": [_format(info.type) for _, info in fields],
            "offsets": [info.offset for _, info in fields],
            "itemsize": ffi.sizeof(ctype),
        }
    )


HEADER: Final = _structure("tepi_program_header")
TENSOR: Final = _structure("tepi_tensor")
INSTRUCTION: Final = _structure("tepi_instruction")
VECTOR_STEP: Final = _structure("tepi_vector_step")
_POOL = _structure("tepi_pool_params")
PARAMS: Final[dict[str, np.dtype[Any]]] = {
    name: _POOL if name.endswith("pool") else _structure(f"tepi_{name}_params") for name in CODES
}
"""The parameters of each instruction code, by its name in CODES."""

# SPDX-License-Identifier: Apache-2.0
"""device/abi/program.h as numpy structures, with the same names; a test holds the two together."""

from typing import Any

import numpy as np

MAGIC = 0x47525054
ABI_VERSION = 1
NONE = 0xFFFFFFFF
NO_TENSOR = 0xFFFF
TENSORS_MAX = INSTRUCTIONS_MAX = 65535
PORTS_MAX = 256
DIM_MAX = 1 << 24
HALO_MAX = KERNEL_MAX = 1024
ARENA_MAX = 1 << 32
MAP_RANK_MAX = 6

TYPES = {"u8": 0, "i8": 1, "f32": 2}
PLACES = {"arena": 0, "input": 1, "output": 2, "constant": 3}
CODES = {
    "fill": 1,
    "map": 2,
    "conv": 3,
    "add": 4,
    "mul": 5,
    "table": 6,
    "maxpool": 7,
    "avgpool": 8,
    "resize": 9,
    "softmax": 10,
}


def _structure(**fields: str) -> np.dtype[Any]:
    """Little-endian fields with C's alignment."""
    return np.dtype(
        {
            "names": list(fields),
            "formats": [np.dtype(kind) for kind in fields.values()],
        },
        align=True,
    )


HEADER = _structure(
    magic="<u4",
    abi="<u2",
    header_bytes="<u2",
    total_bytes="<u8",
    crc32="<u4",
    flags="<u4",
    tensors="<u4",
    instructions="<u4",
    tensors_offset="<u8",
    instructions_offset="<u8",
    constants_offset="<u8",
    constants_bytes="<u8",
    arena_bytes="<u8",
    macs="<u8",
    inputs="<u2",
    outputs="<u2",
    reserved="(11,)<u4",
)
TENSOR = _structure(
    type="u1",
    place="u1",
    port="<u2",
    n="<u4",
    h="<u4",
    w="<u4",
    c="<u4",
    stride_n="<u4",
    stride_h="<u4",
    stride_w="<u4",
    halo_top="<u2",
    halo_left="<u2",
    halo_bottom="<u2",
    halo_right="<u2",
    offset="<u8",
    scale="<f4",
    zero_point="<i4",
)
_WINDOW = {
    "kernel_h": "<u2",
    "kernel_w": "<u2",
    "stride_h": "<u2",
    "stride_w": "<u2",
    "dilation_h": "<u2",
    "dilation_w": "<u2",
}
_STORE = {"table": "<u4", "lo": "u1", "hi": "u1", "reserved": "(2,)u1"}
PARAMS: dict[str, np.dtype[Any]] = {
    "fill": _structure(whole="<u4", value="<u4"),
    "map": _structure(
        rank="<u4",
        dims="(6,)<u4",
        stride="(6,)<i4",
        out_stride="(6,)<i4",
        start="<u4",
        out_start="<u4",
        **_STORE,
    ),
    "conv": _structure(
        **_WINDOW,
        pad_top="<u2",
        pad_left="<u2",
        groups="<u4",
        weights="<u4",
        bias="<u4",
        multiplier="<u4",
        **_STORE,
    ),
    "add": _structure(
        ratio_a="<f4",
        ratio_b="<f4",
        fixed="<f4",
        a_offset="<i4",
        b_offset="<i4",
        out_offset="<i4",
        **_STORE,
    ),
    "mul": _structure(
        ratio="<f4",
        zero="<f4",
        a_zero_point="<i4",
        b_zero_point="<i4",
        out_offset="<i4",
        **_STORE,
    ),
    "table": _structure(table="<u4"),
    "pool": _structure(
        **_WINDOW,
        pad_top="<u2",
        pad_left="<u2",
        pad_bottom="<u2",
        pad_right="<u2",
        count_include_pad="<u4",
        in_scale="<f4",
        out_scale="<f4",
    ),
    "resize": _structure(rows="<u4", columns="<u4"),
    "softmax": _structure(table="<u4", ratio="<f4"),
}
PARAMS["maxpool"] = PARAMS["avgpool"] = PARAMS["pool"]
INSTRUCTION = _structure(
    code="u1",
    flags="u1",
    a="<u2",
    b="<u2",
    out="<u2",
    node="<u4",
    reserved="<u4",
    bytes="(112,)u1",
)

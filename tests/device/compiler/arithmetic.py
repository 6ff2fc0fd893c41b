# SPDX-License-Identifier: Apache-2.0
"""The header of card programs for cffi, and the arithmetic that its words ask for."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cffi import FFI  # type: ignore[import-untyped]
from numpy.lib.stride_tricks import as_strided

HEADER = Path(__file__).resolve().parents[3] / "device/abi/program.h"
F32 = np.float32
Array = npt.NDArray[Any]


@cache
def abi() -> Any:
    """The header's structures and enumerations."""
    text = HEADER.read_text().replace("\\\n", "")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"_Static_assert\(.*?\);", "", text, flags=re.S)
    for name, value in re.findall(r"^#define (TEPI_\w+) +(\d+)u$", text, flags=re.M):
        text = text.replace(name, value)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    ffi = FFI()
    ffi.cdef(text)
    return ffi


def strided(memory: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    window: Array = as_strided(memory, shape, strides)
    return window


def fma(a: Array, b: Array, c: Array) -> Array:
    """float32 a * b + c rounded once: exact in double but for the last step, which rounds to odd
    so that the rounding to float32 sees what was lost."""
    product = a.astype(np.float64) * b.astype(np.float64)
    c = np.broadcast_to(np.asarray(c, np.float64), product.shape)
    total = product + c
    part = total - product
    lost = (product - (total - part)) + (c - part)
    odd = (total.view(np.int64) & 1) == 1
    moved = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where((lost != 0) & ~odd, moved, total).astype(F32)


def saturate(value: Array, zero_point: int) -> Array:
    """round half even, saturated to what the stored byte holds; NaN gives the lowest."""
    low, high = F32(0 - zero_point), F32(255 - zero_point)
    value = np.where(np.isnan(value), low, np.minimum(np.maximum(value, low), high))
    return (np.rint(value).astype(np.int32) + zero_point).astype(np.uint8)


def requantize(total: Array, multiplier: Array, zero_point: int) -> Array:
    return saturate(total.astype(np.int32).astype(F32) * multiplier.astype(F32), zero_point)

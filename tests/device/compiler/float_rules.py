# SPDX-License-Identifier: Apache-2.0
"""The vector unit of device/abi/program.h in numpy, for the interpreter. EXP, LOG, ERF, TANH and
SIGMOID are float64's here; the card's may be off by some units in the last place."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = np.float32
Array = npt.NDArray[Any]
APPROXIMATE = {21, 22, 23, 24, 25}

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _wide(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda a: np.asarray(function(a.astype(np.float64)), F32)


ONE: dict[int, Callable[[Array], Array]] = {
    15: lambda a: -a,
    16: np.abs,
    17: np.sqrt,
    18: np.floor,
    19: np.ceil,
    20: np.rint,
    21: _wide(np.exp),
    22: _wide(np.log),
    23: _wide(_erf),
    24: _wide(np.tanh),
    25: _wide(lambda a: 1 / (1 + np.exp(-a))),
}
TWO: dict[int, Callable[[Array, Array], Array]] = {
    4: np.add,
    5: np.subtract,
    6: np.multiply,
    7: np.divide,
    8: np.maximum,
    9: np.minimum,
    10: np.equal,
    11: np.not_equal,
    12: np.less,
    13: np.less_equal,
}


def total(rows: Array) -> Array:
    """Sums along the last axis: 16 of every 16th element, then a tree."""
    size = rows.shape[-1]
    lanes = np.zeros((*rows.shape[:-1], 16), F32)
    for at in range(0, size, 16):
        part = rows[..., at : at + 16]
        lanes[..., : part.shape[-1]] += part
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half : 2 * half]
    return lanes


def vector(steps: Sequence[Any], sources: Sequence[Array]) -> dict[int, Array]:
    """What is stored to each target; `sources` float32 [n, h, w, row or 1]."""
    registers: dict[int, Array] = {}
    stored: dict[int, Array] = {}
    with np.errstate(all="ignore"):
        for step in steps:
            code = step.code
            if code == 2:
                assert step.out not in stored
                stored[step.out] = registers[step.a]
                continue
            if code == 1:
                found = sources[step.a]
            elif code == 3:
                found = np.full((1, 1, 1, 1), step.value, F32)
            elif code in TWO:
                found = TWO[code](registers[step.a], registers[step.b])
            elif code == 14:
                truth = registers[step.a] != 0
                found = np.where(truth, registers[step.b], registers[step.c])
            elif code in ONE:
                found = ONE[code](registers[step.a])
            elif code == 26:
                found = total(registers[step.a])
            else:
                reduce = {27: np.max, 28: np.min}[code]
                found = reduce(registers[step.a], axis=-1, keepdims=True)
            registers[step.out] = np.asarray(found, F32)
    return stored


def matmul(left: Array, right: Array, scale: float) -> Array:
    """Sums in order, each step fused: in float64, whose own rounding hardly ever shows."""
    out = np.zeros((*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], 1))
    out = np.zeros((*out.shape[:-1], right.shape[-1]), F32)
    for k in range(left.shape[-1]):
        product = left[..., :, k : k + 1].astype(np.float64) * right[..., k : k + 1, :]
        out = (out + product).astype(F32)
    return np.asarray(out * F32(scale))


def ranged(values: Array) -> Array:
    """Scale and zero point of DynamicQuantizeLinear."""
    known = values[~np.isnan(values)]
    lowest, highest = F32(min(known.min(initial=0), 0)), F32(max(known.max(initial=0), 0))
    scale = F32(1) if lowest == highest else (highest - lowest) / F32(255)
    zero = np.clip(np.rint((F32(0) - lowest) / scale), 0, 255)
    return np.array([scale, zero], F32)

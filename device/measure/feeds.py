# SPDX-License-Identifier: Apache-2.0
"""Feeds for a model that nobody brought data for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from device.compiler import TensorInfo
from device.errors import InputError

Array = npt.NDArray[Any]
Shapes = Mapping[str, Sequence[int]]

_SMALL = 2  # integers may be indices into a table of any size


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """{"x": (1, 3, 224, 224)} for ["x=1,3,224,224"]. Raises InputError naming the text."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        try:
            shapes[name] = tuple(int(size) for size in sizes.replace("x", ",").split(",") if size)
        except ValueError:
            equals = ""
        if not equals or not name or any(size < 0 for size in shapes[name]):
            raise InputError(f"{text!r} is no shape; write NAME=1,3,224,224")
    return shapes


def concrete_shapes(
    inputs: Sequence[TensorInfo], given: Shapes, model: str
) -> dict[str, tuple[int, ...]]:
    """A size for every dimension: given, declared, or 1 for a batch without a size.

    Raises InputError for another dimension without one, or a given shape that contradicts.
    """
    unknown = sorted(set(given) - {info.name for info in inputs})
    if unknown:
        names = ", ".join(info.name for info in inputs)
        raise InputError(f"{model} has no input {unknown[0]!r}; its inputs are {names}")
    found: dict[str, tuple[int, ...]] = {}
    for info in inputs:
        shape = tuple(given.get(info.name, _with_batch(info)))
        declared = "[" + ", ".join("?" if d is None else str(d) for d in info.shape) + "]"
        fits = len(shape) == len(info.shape) and all(
            not isinstance(wanted, int) or wanted == size
            for wanted, size in zip(info.shape, shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"input {info.name!r} of {model} takes shape {declared}, got {list(shape)}"
            )
        if -1 in shape:
            example = ",".join("128" if size < 0 else str(size) for size in shape)
            raise InputError(
                f"input {info.name!r} of {model} has shape {declared}; "
                f"give its sizes, for example --shape {info.name}={example}"
            )
        found[info.name] = shape
    return found


def _with_batch(info: TensorInfo) -> tuple[int, ...]:
    return tuple(
        size if isinstance(size, int) else 1 if axis == 0 else -1
        for axis, size in enumerate(info.shape)
    )


def random_feeds(inputs: Sequence[TensorInfo], shapes: Shapes, seed: int = 0) -> dict[str, Array]:
    """Normally distributed floats, any bytes, and integers that are 0 or 1.

    Raises InputError for an input that is no tensor of numbers.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for info in inputs:
        shape = tuple(shapes[info.name])
        if info.dtype.kind == "f":
            feeds[info.name] = rng.standard_normal(shape).astype(info.dtype)
        elif info.dtype.kind in "iu" and info.dtype.itemsize == 1:
            bounds = np.iinfo(info.dtype)
            feeds[info.name] = rng.integers(bounds.min, bounds.max + 1, shape, info.dtype)
        elif info.dtype.kind in "iub":
            feeds[info.name] = rng.integers(0, _SMALL, shape).astype(info.dtype)
        else:
            raise InputError(f"input {info.name!r} is {info.type}; this command makes numbers only")
    return feeds

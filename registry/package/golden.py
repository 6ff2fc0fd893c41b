# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: requests with the answers that a model gave where it was packed.

A node runs them on its own card before it lets a new model answer clients. The answers are
onnxruntime's with exact products (device/host.py). Answers of quantized models may differ from one
machine to another by a step of their quantization, those of float functions in last places: an
answer is right where it is within `tolerance`, as a share of the largest value expected, or within
one step of an integer output, the rule by which a running card is judged too.

The file is one of device/sections.py; nothing in it is ever unpickled or unzipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device.sections import BadSections, Sections, write_sections
from registry.package.errors import BadGolden

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
Run = Callable[[Sequence[str], Feeds], Sequence[Array]]
"""Runs the model: outputs in the order of their names. A session's `run` is one."""

KIND = b"TEPIGOLD"
FORMAT = 1
TOLERANCE = 0.05
_ALIGNMENT = 64
_VECTORS_LIMIT = 10_000
_TENSORS_LIMIT = 1000
_RANK_LIMIT = 64
_STEP, _LAST_PLACES = 1.0, 1e-6  # always allowed, of integers and of floats
_TEXT = "string"
_FLOATS = ("float16", "float32", "float64")
_INTEGERS = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_TYPES = frozenset({"bool", *_FLOATS, *_INTEGERS})


@dataclass(frozen=True, slots=True)
class Golden:
    """Requests and their answers, in the same order: arrays by the tensor's name.

    `tolerance` is the largest difference allowed, as a share of the largest value expected.
    """

    inputs: Sequence[Feeds]
    outputs: Sequence[Feeds]
    tolerance: float = TOLERANCE


def write_golden(path: Path, golden: Golden) -> None:
    """Write the file, whole or not at all. Raises BadGolden for types that are not stored."""
    sections: list[bytes] = []
    header = {
        "format": FORMAT,
        "tolerance": golden.tolerance,
        "vectors": [
            [_rows(feeds, sections), _rows(answers, sections)]
            for feeds, answers in zip(golden.inputs, golden.outputs, strict=True)
        ],
    }
    write_sections(path, KIND, header, sections, _ALIGNMENT)


def read_golden(path: Path) -> Golden:
    """The vectors of a file. Raises BadGolden where it is damaged or hostile, and OSError."""
    try:
        with Sections(path, KIND, _ALIGNMENT) as file:
            header = file.header
            if header.get("format") != FORMAT:
                raise BadGolden(f"golden vectors of format {header.get('format')!r}, not {FORMAT}")
            tolerance, vectors = header.get("tolerance"), header.get("vectors")
            if not isinstance(tolerance, int | float) or not 0 <= tolerance <= 1:
                raise BadGolden(f"golden vectors: a tolerance of {tolerance!r}")
            if not isinstance(vectors, list) or len(vectors) > _VECTORS_LIMIT:
                raise BadGolden(f"golden vectors: not a list of at most {_VECTORS_LIMIT}")
            sections = iter(range(len(file)))  # each is used once, in the order of the tensors
            pairs = [_pair(row, file, sections) for row in vectors]
            if next(sections, None) is not None:
                raise BadGolden("golden vectors: sections that nothing uses")
    except BadSections as error:
        raise BadGolden(f"golden vectors: {error}", "fetch or pack the package again") from None
    return Golden([i for i, _ in pairs], [o for _, o in pairs], float(tolerance))


def check_golden(golden: Golden, run: Run) -> list[str]:
    """Run every vector; what is wrong with the answers, a line each, empty where nothing is.

    What `run` raises is the caller's: a card that fails is not a model that answers wrong.
    """
    wrong = []
    for number, (feeds, answers) in enumerate(zip(golden.inputs, golden.outputs, strict=True)):
        names = list(answers)
        for name, found in zip(names, run(names, feeds), strict=True):
            text = _difference(answers[name], np.asarray(found), golden.tolerance)
            if text:
                wrong.append(f"golden vector {number}, output {name!r}: {text}")
    return wrong


def make_golden(feeds: Sequence[Feeds], outputs: Sequence[str], run: Run, share: float) -> Golden:
    """The answers of `run` to these requests. Raises BadGolden where an answer says nothing."""
    answers = []
    for number, given in enumerate(feeds):
        found = dict(zip(outputs, map(np.asarray, run(outputs, given)), strict=True))
        for name, array in found.items():
            if array.dtype.kind == "f" and array.size and not np.isfinite(array).any():
                raise BadGolden(
                    f"golden vector {number}: output {name!r} is infinite or no number throughout",
                    "give requests that the model is made for with --golden-data",
                )
        answers.append(found)
    return Golden(list(feeds), answers, share)


def _difference(expected: Array, found: Array, share: float) -> str:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        want = f"{expected.dtype}{list(expected.shape)}"
        return f"{want} was expected, not {found.dtype}{list(found.shape)}"
    if expected.dtype.kind in "OUb":
        return "" if np.array_equal(expected, found) else "other values"
    if expected.tobytes() == found.tobytes():
        return ""
    x, y = expected.astype(np.float64), found.astype(np.float64)
    odd = ~(np.isfinite(x) & np.isfinite(y))
    if not np.array_equal(x[odd], y[odd], equal_nan=True):
        return "infinities or NaNs in other places"
    apart = np.abs(x - y)[~odd]
    most = float(apart.max(initial=0.0))
    least = _STEP if expected.dtype.kind in "iu" else _LAST_PLACES
    room = max(share * float(np.abs(x[~odd]).max(initial=0.0)), least)
    if most <= room:
        return ""
    return (
        f"{int((apart > 0).sum())} of {expected.size} values differ, by up to {most:.6g} "
        f"where {room:.6g} is allowed"
    )


def _rows(arrays: Feeds, sections: list[bytes]) -> list[list[Any]]:
    rows = []
    for name, array in arrays.items():
        if array.dtype.kind in "OU":
            kind, data = _TEXT, json.dumps(array.reshape(-1).tolist()).encode()
        elif array.dtype.name in _TYPES:
            kind = array.dtype.name
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        else:
            raise BadGolden(f"golden vectors cannot hold {name!r}, which is {array.dtype}")
        sections.append(data)
        rows.append([name, kind, list(array.shape)])
    return rows


def _pair(row: Any, file: Sections, sections: Iterator[int]) -> tuple[Feeds, Feeds]:
    if not isinstance(row, list) or len(row) != 2:
        raise BadGolden("golden vectors: a vector is not a request and an answer")
    return _arrays(row[0], file, sections), _arrays(row[1], file, sections)


def _arrays(rows: Any, file: Sections, sections: Iterator[int]) -> dict[str, Array]:
    if not isinstance(rows, list) or len(rows) > _TENSORS_LIMIT:
        raise BadGolden("golden vectors: a request or an answer is no list of tensors")
    return dict(_array(row, file, sections) for row in rows)


def _array(row: Any, file: Sections, sections: Iterator[int]) -> tuple[str, Array]:
    if not isinstance(row, list) or len(row) != 3:
        raise BadGolden("golden vectors: a tensor is not a name, a type and a shape")
    name, kind, shape = row
    known = isinstance(shape, list) and len(shape) <= _RANK_LIMIT
    if not known or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        raise BadGolden("golden vectors: a tensor has no sensible shape")
    section = next(sections, None)
    if section is None or not isinstance(name, str) or not isinstance(kind, str):
        raise BadGolden("golden vectors: a tensor without a name, a type or bytes")
    data, count = file.read(section), int(np.prod(shape, dtype=object))
    if kind == _TEXT:
        return name, _texts(data, count).reshape(shape)
    if kind not in _TYPES or count * np.dtype(kind).itemsize != len(data):
        raise BadGolden(f"golden vectors: {name[:80]!r} is not {count} values of its type")
    found = np.frombuffer(data, np.dtype(kind).newbyteorder("<")).reshape(shape)
    return name, found.astype(kind)


def _texts(data: bytes, count: int) -> Array:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or len(values) != count:
        raise BadGolden(f"golden vectors: not {count} texts")
    if not all(isinstance(value, str) for value in values):
        raise BadGolden(f"golden vectors: not {count} texts")
    found = np.empty(count, object)
    found[:] = values
    return found

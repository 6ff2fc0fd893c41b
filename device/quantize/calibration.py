# SPDX-License-Identifier: Apache-2.0
"""Calibration data: an .npz with one array for each input, checked before anything runs.

An array of the input's rank holds samples along axis 0, as many for one feed as the model declares
(1 where it declares none); an array with one axis more holds whole feeds along that axis.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

from device.compiler import TensorInfo
from device.errors import InputError
from device.measure.feeds import Array


class Calibration:
    """Feeds, one for each sample, from arrays that fit the model's inputs."""

    def __init__(self, arrays: Mapping[str, Array], inputs: Sequence[TensorInfo]) -> None:
        """Raises InputError naming the tensor that is missing, unknown or unfit."""
        unknown = sorted(set(arrays) - {info.name for info in inputs})
        if unknown:
            names = ", ".join(info.name for info in inputs)
            raise InputError(
                f"calibration data: the model has no input {unknown[0]!r}; its inputs are {names}"
            )
        self._stacks = {info.name: _stacked(arrays, info) for info in inputs}
        counts = {name: len(stack) for name, stack in self._stacks.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(f"calibration data: inputs hold unlike numbers of samples: {told}")
        self._count = next(iter(counts.values()), 0)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for index in range(self._count):
            yield self[index]

    def __getitem__(self, index: int) -> dict[str, Array]:
        return {name: np.ascontiguousarray(stack[index]) for name, stack in self._stacks.items()}


def read_calibration(path: Path, inputs: Sequence[TensorInfo]) -> Calibration:
    """Raises InputError where the file is no .npz, or holds what the model cannot be fed."""
    try:
        # numpy would leave a broken archive's file open.
        with path.open("rb") as source, np.load(source, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(f"{path.name} is one array; write it with numpy.savez(NAME=...)")
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path.name} is no .npz of plain arrays ({error}); write it with numpy.savez"
        ) from None
    return Calibration(arrays, inputs)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """The samples as onnxruntime's calibration takes them; `step` is called for each."""

    def __init__(self, calibration: Calibration, step: Callable[[], None]) -> None:
        self._calibration = calibration
        self._step = step
        self._next = 0

    def get_next(self) -> dict[str, Array] | None:
        """The next sample's feed, None behind the last."""
        if self._next == len(self._calibration):
            return None
        self._step()
        self._next += 1
        return self._calibration[self._next - 1]

    def rewind(self) -> None:
        """Start over."""
        self._next = 0


def _stacked(arrays: Mapping[str, Array], info: TensorInfo) -> Array:
    """The array with one feed at each index of axis 0."""
    name = f"calibration data: input {info.name!r}"
    if info.name not in arrays:
        raise InputError(f"{name} is missing; the file holds {', '.join(arrays) or 'nothing'}")
    array = arrays[info.name]
    if array.dtype != info.dtype:
        raise InputError(f"{name} must be {info.dtype}, got {array.dtype}")
    if not array.size:
        raise InputError(f"{name} is empty: {list(array.shape)}")
    stack = _feeds_apart(array, info.shape)
    if stack is None:
        shown = "[" + ", ".join("?" if d is None else str(d) for d in info.shape) + "]"
        raise InputError(
            f"{name} must hold samples of shape {shown}, got an array of {list(array.shape)}"
        )
    if array.dtype.kind == "f":
        bad = ~np.isfinite(stack.reshape(len(stack), -1)).all(axis=1)
        if bad.any():
            raise InputError(f"{name} holds NaN or infinity, first in sample {int(bad.argmax())}")
    return stack


def _feeds_apart(array: Array, declared: Sequence[Any]) -> Array | None:
    """None where the array's shape does not fit."""
    if array.ndim == len(declared) + 1 and _fits(array.shape[1:], declared):
        return array
    if array.ndim != len(declared) or not declared or not _fits(array.shape[1:], declared[1:]):
        return None
    items = declared[0] if isinstance(declared[0], int) else 1
    if items < 1 or len(array) % items:
        return None
    return array.reshape(len(array) // items, items, *array.shape[1:])


def _fits(shape: Sequence[int], declared: Sequence[Any]) -> bool:
    return all(
        not isinstance(wanted, int) or wanted == size
        for wanted, size in zip(declared, shape, strict=True)
    )

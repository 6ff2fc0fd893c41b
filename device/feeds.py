# SPDX-License-Identifier: Apache-2.0
"""What a caller feeds, checked against what the model declares."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from device.compiler import TensorInfo
from device.compiler.reader import tensor_info
from device.errors import InputError

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


class FeedCheck:
    """The inputs of one model. `defaults` are those that need no feed, initializers that are
    inputs too: from IR 4 on a feed takes the initializer's place."""

    def __init__(self, name: str, inputs: Sequence[TensorInfo], proto: onnx.ModelProto) -> None:
        self._name = name
        self._inputs = {info.name: info for info in inputs}
        initializers = {tensor.name for tensor in proto.graph.initializer}
        self.defaults = {
            value.name: tensor_info(value)
            for value in proto.graph.input
            if value.name in initializers and proto.ir_version >= 4
        }
        self._any_rank = {
            value.name
            for value in proto.graph.input
            if not value.type.tensor_type.HasField("shape")
        }

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Contiguous feeds of the declared types and shapes, or an InputError naming the tensor."""
        for name in feeds:
            if name not in self._inputs and name not in self.defaults:
                known = ", ".join(self._inputs)
                raise InputError(f"{self._name} has no input {name!r}; its inputs are {known}")
        for name, info in self._inputs.items():
            if name not in feeds:
                raise InputError(f"{self._name} needs input {name!r} {_spell(info)}")
        symbols: dict[str, int] = {}
        every = {**self._inputs, **self.defaults}
        return {
            name: self._checked(info, feeds[name], symbols)
            for name, info in every.items()
            if name in feeds
        }

    def _checked(self, info: TensorInfo, value: Any, symbols: dict[str, int]) -> Any:
        if not info.type.startswith("tensor("):
            return value  # sequences and the like are onnxruntime's
        title = f"input {info.name!r} of {self._name}"
        try:
            array = np.asarray(value, None if hasattr(value, "dtype") else info.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{title} must be {info.dtype}: {error}") from None
        if array.dtype != info.dtype and info.dtype != object:
            raise InputError(f"{title} must be {info.dtype}, got {array.dtype}")
        if info.name not in self._any_rank and not _shape_fits(info.shape, array.shape, symbols):
            raise InputError(f"{title} must have shape {_spell(info)}, got {list(array.shape)}")
        return np.ascontiguousarray(array).reshape(array.shape)


def as_inputs(proto: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """The model with these initializers, which are inputs too, as nothing but inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in names]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def _shape_fits(
    declared: Sequence[int | str | None], got: Sequence[int], symbols: dict[str, int]
) -> bool:
    """Whether a shape agrees with the declared one; `symbols` collects what symbols stand for."""
    if len(declared) != len(got):
        return False
    for dimension, size in zip(declared, got, strict=True):
        if isinstance(dimension, str):
            if symbols.setdefault(dimension, size) != size:
                return False
        elif dimension is not None and dimension != size:
            return False
    return True


def _spell(info: TensorInfo) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in info.shape) + "]"

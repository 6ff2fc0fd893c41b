# SPDX-License-Identifier: Apache-2.0
"""What the compiler hands over: segments in running order, their ports, each node's place."""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ProgramBytes = bytes | mmap.mmap  # a large program is mapped from a file
Where = Literal["card", "onnxruntime"]


@dataclass(frozen=True)
class TensorInfo:
    """A model input or output as declared: `type` is ONNX's, for example "tensor(float)"; `shape`
    holds an int, a symbol, or None for a dimension without a name. `dtype` is numpy's (object for
    strings and for what is not a tensor)."""

    name: str
    dtype: np.dtype[Any]
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class Placement:
    """Where one node of the model runs. `node` is its name, or "Op_output" where it has none."""

    node: str
    op: str
    where: Where
    reason: str


@dataclass(frozen=True)
class Port:
    """A host array at a card segment's edge, row-major and contiguous.

    `dtype` is float32, uint8 or int8; `shape` is that of one item. In a batchable segment a run
    of n items takes and gives arrays of shape (n * shape[0], *shape[1:]).
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of one item."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class CardSegment:
    """A card program (device/abi/program.h); inputs and outputs are its ports, in order."""

    program: ProgramBytes = field(repr=False)
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batchable: bool


@dataclass(frozen=True)
class HostSegment:
    """A serialized ONNX model for onnxruntime. It takes whole arrays, whatever the batch."""

    model: bytes = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class CompiledModel:
    """Segments to run in order over a dict of host arrays, keyed by tensor name.

    The dict starts with the feeds and `constants` (outputs that depend on no input). `shapes` are
    the input shapes it was compiled for. It runs feeds of just these shapes or, when `batchable`,
    feeds whose dimension 0 is n times that of `shapes`, the same n for every input. With
    `any_shape` (nothing is on the card) it runs whatever onnxruntime takes. Where the model
    declares dimensions that only a feed can settle, `needs_shapes` is set, there are no segments,
    `placement` was found with trial sizes, and `compile_model` is to be called with the feed's.
    """

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    segments: tuple[CardSegment | HostSegment, ...]
    placement: tuple[Placement, ...]
    shapes: Mapping[str, tuple[int, ...]]
    batchable: bool
    any_shape: bool = False
    needs_shapes: bool = False
    constants: Mapping[str, Array] = field(default_factory=dict)

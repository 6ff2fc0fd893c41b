# SPDX-License-Identifier: Apache-2.0
"""The interface between serving and what computes. Engines run on any thread; `run` lets go of
the interpreter lock while it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from edge_server.datatypes import BY_ONNX, Datatype

Array = npt.NDArray[Any]


class ModelLoadError(Exception):
    """The model cannot be served; the message names what is wrong with it."""


class EngineError(Exception):
    """A run failed for a reason that lies in the engine or the model, not in the request."""


class FeedError(Exception):
    """The engine refused the request's tensors although they fit the model's declared inputs."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model as its file declares it; -1 stands for an open dimension."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, onnx_type: str, shape: Sequence[int | str | None]) -> TensorInfo:
        """From ONNX's words; raises ModelLoadError for types that have no name on the wire."""
        datatype = BY_ONNX.get(onnx_type)
        if datatype is None:
            raise ModelLoadError(
                f"'{name}' is a {onnx_type}, which the protocol cannot carry; "
                f"inputs and outputs must be one of {', '.join(BY_ONNX)}"
            )
        dims = tuple(d if isinstance(d, int) and d >= 0 else -1 for d in shape)
        return cls(name, datatype, dims)


class Engine(Protocol):
    """A loaded model on one kind of device."""

    inline: bool  # whether it computes in this process, so that it may do so on the event loop
    device: str  # what tepi_device says: "card", "onnxruntime" or "card+onnxruntime"
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def run(
        self, names: Sequence[str], feeds: Mapping[str, Array], deadline_s: float | None = None
    ) -> list[Array]:
        """Outputs `names` in that order. A card gives up `deadline_s` seconds from now.

        Raises FeedError, EngineError or a CardError.
        """

    def close(self) -> None:
        """Give the memory back. Nothing runs on the engine any more."""

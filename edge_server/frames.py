# SPDX-License-Identifier: Apache-2.0
"""Requests that differ from an earlier one in their tensor data alone, known without parsing.

A client sends one kind of request again and again: the bytes before the data, the lengths, and so
every field but the data, are the same. What was found out about the first is true of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_server.engines.engine import Array
from edge_server.infer_codec import Wanted, varint
from edge_server.served import ServedVersion
from wire import inference_pb2 as pb

_FRAMES_KEPT = 64
_HEAD_LIMIT = 4096  # bytes before the data; a longer head is not worth comparing
_KEY_BYTES = 16  # of the model's name and first tensor: tells most kinds of equal length apart
_RAW_TAG = b"\x3a"  # field 7, length-delimited


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor inside a request: `joint` are the bytes between it and the one before."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    joint: bytes
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, its tensors left out."""

    served: ServedVersion
    request_id: str
    wanted: Wanted
    timeout: float | None  # seconds that it may wait in line
    size: int  # bytes of all tensors
    batch: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What one kind of request means, as long as its model's name stands for the same."""

    head: bytes
    pieces: tuple[Piece, ...]
    asked: Asked

    def feeds(self, data: bytes) -> dict[str, Array] | None:
        """The tensors; None where `data` is another kind of request after all."""
        if not data.startswith(self.head):
            return None
        feeds: dict[str, Array] = {}
        for piece in self.pieces:
            begin = piece.begin
            if data[begin - len(piece.joint) : begin] != piece.joint:
                return None
            # Sliced, not viewed: at its place in the request a tensor is seldom aligned.
            array = np.frombuffer(data[begin : piece.end], piece.dtype)
            feeds[piece.name] = array.reshape(piece.shape)
        return feeds


class Frames:
    """The kinds of request seen lately, by their length and first bytes."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], Frame] = {}

    def get(self, data: bytes) -> Frame | None:
        """The frame that `data` may be one of; its `feeds` decides."""
        return self._known.get((len(data), data[:_KEY_BYTES]))

    def forget(self) -> None:
        """A model came or went: names may stand for something else."""
        self._known.clear()

    def learn(
        self, data: bytes, request: pb.ModelInferRequest, asked: Asked, feeds: dict[str, Array]
    ) -> None:
        """Remember `data`, whose parts have just been checked, where it is of the simple kind."""
        if request.id or len(request.raw_input_contents) != len(request.inputs):
            return
        pieces: list[Piece] = []
        end = len(data)
        for tensor, raw in zip(
            reversed(request.inputs), reversed(request.raw_input_contents), strict=True
        ):
            array = feeds[tensor.name]
            begin = end - len(raw)
            joint = _RAW_TAG + varint(len(raw))
            plain = array.dtype.kind in "iuf" and array.shape == tuple(tensor.shape)
            if not raw or not plain or data[begin - len(joint) : begin] != joint:
                return
            pieces.append(Piece(tensor.name, array.dtype, array.shape, joint, begin, end))
            end = begin - len(joint)
        if not pieces or not _KEY_BYTES <= end <= _HEAD_LIMIT:
            return
        if len(self._known) >= _FRAMES_KEPT:
            self._known.clear()
        self._known[len(data), data[:_KEY_BYTES]] = Frame(
            data[:end], tuple(reversed(pieces)), asked
        )

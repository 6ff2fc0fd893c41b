# SPDX-License-Identifier: Apache-2.0
"""What a caller names a model by, read into memory: a path or the bytes of an ONNX file."""

from __future__ import annotations

from pathlib import Path

import onnx

from device.compiler.weights import Weights, open_model
from device.errors import ModelError

Model = str | Path | bytes


def load_model(model: Model, name: str) -> onnx.ModelProto:
    """The model with its external data; ModelError names what is wrong with it."""
    try:
        if isinstance(model, bytes):
            return onnx.load_model_from_string(model)
        return onnx.load(str(model))
    except FileNotFoundError as error:
        raise ModelError(f"{name}: no such file: {error.filename}") from None
    except Exception as error:  # protobuf's, the file system's and the checker's, by many names
        raise ModelError(
            f"{name} is not a readable ONNX model ({error}); export or fetch it again"
        ) from error


def open_lean(model: Model, name: str) -> tuple[onnx.ModelProto, Weights]:
    """As load_model; of a file, the Weights hold the bytes of large initializers."""
    if isinstance(model, bytes):
        return load_model(model, name), Weights()
    try:
        return open_model(Path(model))
    except Exception:  # load_model says what is wrong with it
        return load_model(model, name), Weights()

# SPDX-License-Identifier: Apache-2.0
"""onnxruntime on the host's processor: the fallback, and what runs models that forbid the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from device.host import open_session
from edge_server.engines.engine import Array, EngineError, FeedError, ModelLoadError, TensorInfo

_FAILURES = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
)


class OnnxRuntimeEngine:
    """One onnxruntime session on the CPU with `threads` threads of its own."""

    device = "onnxruntime"
    inline = True

    def __init__(self, model: Path, threads: int) -> None:
        try:
            # Threads that spin between runs would take the cores from the card and the event loop.
            session = open_session(str(model), threads, spinning=False)
        except _FAILURES as error:
            raise ModelLoadError(
                f"onnxruntime cannot load {model.name}: {_reason(error)}"
            ) from None
        self.inputs = tuple(TensorInfo.of(i.name, i.type, i.shape) for i in session.get_inputs())
        self.outputs = tuple(TensorInfo.of(o.name, o.type, o.shape) for o in session.get_outputs())
        self._session: ort.InferenceSession | None = session

    def run(
        self, names: Sequence[str], feeds: Mapping[str, Array], deadline_s: float | None = None
    ) -> list[Array]:
        """See Engine.run; the processor has no deadline."""
        assert self._session is not None, "run after close"
        try:
            results: list[Array] = self._session.run(names, feeds)
        except ort_errors.InvalidArgument as error:
            raise FeedError(_reason(error)) from None
        except _FAILURES as error:
            raise EngineError(_reason(error)) from None
        return results

    def close(self) -> None:
        """See Engine.close."""
        self._session = None


def _reason(error: BaseException) -> str:
    """onnxruntime's message on one line, without its '[ONNXRuntimeError] : 7 : NAME :' prefix."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text

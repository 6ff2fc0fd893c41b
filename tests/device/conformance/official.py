# SPDX-License-Identifier: Apache-2.0
"""ONNX's own backend tests as the installed onnx package holds them: models, inputs, expected
outputs. Which of them count is found by running onnxruntime, never by a list."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from device.host import open_session

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")


@dataclass(frozen=True, eq=False)
class Case:
    """`data_sets` pairs inputs with the outputs expected of them, both in the model's order."""

    name: str
    kind: str
    model: onnx.ModelProto
    data_sets: Sequence[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float

    def check(self, outputs: Sequence[Any], expected: Sequence[Any]) -> None:
        """As the official runner compares. Raises AssertionError."""
        Runner.assert_similar_outputs(expected, outputs, self.rtol, self.atol)


@cache
def cases() -> dict[str, Case]:
    """All cases by "kind/name", in a fixed order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about the infinities that cases are made of
        found = [case for kind in KINDS for case in load_model_tests(kind=kind)]
    listed = sorted(found, key=lambda case: (KINDS.index(case.kind), case.name))
    return {f"{case.kind}/{case.name}": _case(case) for case in listed}


def _case(case: TestCase) -> Case:
    if case.model is not None and case.data_sets is not None:
        model, data_sets = case.model, list(case.data_sets)
    else:
        assert case.model_dir is not None
        directory = Path(case.model_dir)
        model = onnx.load(directory / "model.onnx")
        data_sets = [
            (
                list(_stored(data, "input", model.graph.input)),
                list(_stored(data, "output", model.graph.output)),
            )
            for data in sorted(directory.glob("test_data_set*"))
        ]
    arrays = [([*map(_array, given)], [*map(_array, wanted)]) for given, wanted in data_sets]
    return Case(case.name, case.kind, model, arrays, case.rtol, case.atol)


def _stored(data: Path, side: str, values: Sequence[onnx.ValueInfoProto]) -> Iterator[Any]:
    for index, value in zip(range(len(list(data.glob(f"{side}_*.pb")))), values, strict=False):
        content = (data / f"{side}_{index}.pb").read_bytes()
        if value.type.HasField("sequence_type"):
            yield numpy_helper.to_list(onnx.SequenceProto.FromString(content))
        else:
            yield onnx.TensorProto.FromString(content)


def _array(value: Any) -> Any:
    """What numpy-minded callers pass: an array for a TensorProto or a numpy scalar."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def host(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """onnxruntime on one thread, its products exact on any machine."""
    return open_session(model)


def on_onnxruntime(case: Case) -> list[list[Any]] | str:
    """Outputs for each data set, or why onnxruntime does not pass the case by itself."""
    outputs: list[list[Any]] = []
    try:
        session = host(case.model)
        names = [row.name for row in session.get_inputs()]
        for given, expected in case.data_sets:
            outputs.append(session.run(None, dict(zip(names, given, strict=False))))
            case.check(outputs[-1], expected)
    except AssertionError:
        return "its result is not the expected one"
    except Exception as error:  # onnxruntime's classes share no other base
        return excuse(error)
    return outputs


def excuse(error: Exception) -> str:
    """onnxruntime's failure in words that many cases share."""
    text = str(error)
    if "umpy_type" in text or "Numpy type" in text:
        return "its Python interface does not take the type (bfloat16, float8, 4 and 2 bits)"
    if "NOT_IMPLEMENTED" in text:
        return "it has no kernel for the operator, version or type"
    if type(error).__module__.startswith("onnxruntime"):
        return "it refuses the model or fails as it runs"
    return f"its Python interface raises {type(error).__name__}"

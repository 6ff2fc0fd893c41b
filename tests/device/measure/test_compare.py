# SPDX-License-Identifier: Apache-2.0
"""Engines take turns, and their times are told apart."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from device.binding import Card
from device.measure.compare import alternate, compare


def test_engines_take_turns() -> None:
    order: list[str] = []

    def engine(name: str, steps: int) -> object:
        order.append(name)
        return sum(range(steps))

    found = alternate(
        {"quick": lambda: engine("quick", 10), "slow": lambda: engine("slow", 200_000)}, 0.0
    )
    assert found["quick"].runs == found["slow"].runs >= 10
    assert found["quick"].median_ms < found["slow"].median_ms
    for row in found.values():
        assert 0 < row.least_ms <= row.median_ms <= row.p90_ms <= row.p99_ms
    turns = [name for at, name in enumerate(order) if at == 0 or order[at - 1] != name]
    assert len(turns) >= 10


@pytest.mark.parametrize("power", [0.5, 3.0])
def test_outputs_that_are_not_numbers_agree_with_themselves(tmp_path: Path, power: float) -> None:
    """The root of a negative number is NaN on both engines."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 64]) for n in ("x", "y")]
    exponent = onnx.numpy_helper.from_array(np.array(power, "f4"), "p")
    node = helper.make_node("Pow", ["x", "p"], ["y"])
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [exponent])
    path = tmp_path / "power.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with Card.open() as card:
        found = compare(path, card, seconds=0)
    assert (found.difference, found.relative) == (0, 0)
    assert math.isfinite(found.ratio)

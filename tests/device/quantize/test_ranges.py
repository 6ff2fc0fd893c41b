# SPDX-License-Identifier: Apache-2.0
"""What a calibration is for: every sample counts, however many there are."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from device.quantize.quantize import quantize


class Silent:
    """Progress that nobody watches."""

    def begin(self, what: str, total: int) -> None: ...

    def step(self) -> None: ...


@pytest.mark.parametrize("count", [31, 32, 33, 70])
@pytest.mark.parametrize("where", [0, -1])
def test_a_large_value_in_any_sample_widens_the_range(
    tmp_path: Path, count: int, where: int
) -> None:
    weights = np.random.default_rng(1).normal(0, 0.3, (8, 4)).astype("f4")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "f.onnx")
    samples = np.full((count, 8), 0.1, "f4")
    samples[where] = 5.0
    np.savez(tmp_path / "data.npz", x=samples)
    quantize(tmp_path / "f.onnx", tmp_path / "data.npz", tmp_path / "q.onnx", "minmax", Silent())
    found = onnx.load(tmp_path / "q.onnx")
    scales = {i.name: numpy_helper.to_array(i) for i in found.graph.initializer}
    assert float(scales["x_scale"]) == pytest.approx(5 / 255, rel=0.01)

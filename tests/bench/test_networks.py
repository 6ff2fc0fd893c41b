# SPDX-License-Identifier: Apache-2.0
"""The benches' networks have the sizes of their namesakes and run wholly on the card."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bench.networks import NETWORKS, quantized
from device.session import Session

PARAMETERS = {  # millions, of the published networks with normalization folded
    "mlp": 0.27,
    "dscnn": 0.0226,
    "resnet8": 0.078,
    "encoder": 10.65,
    "mobilenetv2": 3.5,
    "resnet50": 25.6,
}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_as_many_parameters_as_the_namesake(name: str) -> None:
    model = NETWORKS[name]().model()
    onnx.checker.check_model(model)
    count = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert count / 1e6 == pytest.approx(PARAMETERS[name], rel=0.03)


@pytest.mark.parametrize("name", ["mlp", "dscnn", "resnet8"])
def test_quantized_networks_run_wholly_on_the_card(name: str, tmp_path: Path) -> None:
    path = quantized(name, tmp_path)
    assert quantized(name, tmp_path) == path
    with Session(path) as ours, Session(path, "none") as theirs:
        assert {row.where for row in ours.placement} == {"card"}
        shape = [size for size in ours.inputs[0].shape if isinstance(size, int)]
        feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype("f4")}
        np.testing.assert_array_equal(ours.run(None, feeds)[0], theirs.run(None, feeds)[0])

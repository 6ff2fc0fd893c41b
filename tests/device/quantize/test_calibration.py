# SPDX-License-Identifier: Apache-2.0
"""Which arrays are samples of which inputs."""

import numpy as np
import pytest

from device.compiler import TensorInfo
from device.errors import InputError
from device.quantize.calibration import Calibration, Reader


def info(name: str, *shape: int | str | None) -> TensorInfo:
    return TensorInfo(name, np.dtype("f4"), "tensor(float)", list(shape))


def test_axis_0_is_cut_into_the_declared_batch() -> None:
    data = np.arange(24, dtype="f4").reshape(8, 3)
    for batch, count in (("n", 8), (None, 8), (1, 8), (2, 4), (8, 1)):
        feeds = list(Calibration({"x": data}, [info("x", batch, 3)]))
        assert len(feeds) == count
        np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), data)
    with pytest.raises(InputError, match="input 'x' must hold samples"):
        Calibration({"x": data}, [info("x", 3, 3)])


def test_one_axis_more_holds_whole_feeds() -> None:
    data = np.arange(24, dtype="f4").reshape(4, 2, 3)
    feeds = list(Calibration({"x": data}, [info("x", 2, 3)]))
    assert [feed["x"].shape for feed in feeds] == [(2, 3)] * 4
    scalars = list(Calibration({"x": data.ravel()}, [info("x")]))
    assert len(scalars) == 24
    assert scalars[5]["x"] == 5


def test_inputs_must_hold_as_many_samples() -> None:
    arrays = {"x": np.zeros((4, 3), "f4"), "y": np.zeros((5, 3), "f4")}
    with pytest.raises(InputError, match="x 4, y 5"):
        Calibration(arrays, [info("x", "n", 3), info("y", "n", 3)])


def test_the_reader_tells_of_each_sample_and_starts_over() -> None:
    told: list[int] = []
    calibration = Calibration({"x": np.zeros((3, 2), "f4")}, [info("x", "n", 2)])
    reader = Reader(calibration, lambda: told.append(1))
    assert sum(1 for _ in iter(reader.get_next, None)) == len(told) == 3
    reader.rewind()
    assert reader.get_next() is not None

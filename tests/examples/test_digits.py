# SPDX-License-Identifier: Apache-2.0
"""The shipped digits files are what the training script says they are."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from examples.digits.demo import fp32_accuracy, held_out
from examples.digits.network import Network, patches, shifted, unpatch
from examples.digits.train import HERE, Images, Labels, accuracy, export, fit, split

RECORD = json.loads((HERE / "training.json").read_text())
QUANTIZED = HERE / "model_repository/digits/1/model.onnx"


def test_held_out_digits_are_those_that_training_leaves_out() -> None:
    train_images, _, held_images, held_labels = split(RECORD["seed"])
    images, labels = held_out()
    assert len(labels) == RECORD["held_out"] >= 300
    np.testing.assert_array_equal(images, held_images)
    np.testing.assert_array_equal(labels, held_labels)
    trained_on = {image.tobytes() for image in train_images}
    assert not any(image.tobytes() in trained_on for image in images)


def test_accuracies_are_as_recorded() -> None:
    images, labels = held_out()
    assert fp32_accuracy(images, labels) == pytest.approx(RECORD["fp32_accuracy"], abs=0.002)
    ours = accuracy(QUANTIZED, images, labels)
    assert ours == pytest.approx(RECORD["int8_accuracy_onnxruntime"], abs=0.004)


def test_the_served_model_is_quantized_and_small() -> None:
    operations = [node.op_type for node in onnx.load(QUANTIZED).graph.node]
    assert operations.count("QuantizeLinear") >= 4
    assert QUANTIZED.stat().st_size < 64 << 10


def tiny() -> tuple[Images, Labels]:
    images, labels, _, _ = split(0)
    return images[:192], labels[:192]


def test_training_learns_and_export_computes_the_same(tmp_path: Path) -> None:
    images, labels = tiny()
    network = fit(images, labels, epochs=16, seed=1)
    onnx.save(export(network), tmp_path / "model.onnx")
    assert accuracy(tmp_path / "model.onnx", images, labels) > 0.75


def test_the_same_seed_gives_the_same_network() -> None:
    images, labels = tiny()
    first, second = (fit(images, labels, epochs=1, seed=3) for _ in range(2))
    for name, weights in first.parameters.items():
        np.testing.assert_allclose(weights, second.parameters[name], atol=1e-5, err_msg=name)


def test_gradients_against_differences() -> None:
    random = np.random.default_rng(5)
    images = random.uniform(0, 1, (3, 1, 8, 8)).astype(np.float32)
    labels = np.array([1, 4, 7])
    for name in ("conv1_w", "conv3_w", "dense_b"):
        before = Network(np.random.default_rng(2))
        first = before.parameters[name].ravel()[0]
        base = before.step(images, labels, rate=0.0)
        moved = Network(np.random.default_rng(2))
        moved.parameters[name].ravel()[0] = first + 1e-2
        slope = (moved.step(images, labels, rate=0.0) - base) / 1e-2
        mean, _ = before._moments[name]
        assert mean.ravel()[0] * 10 == pytest.approx(slope, abs=2e-3), name


def test_unpatch_is_the_transpose_of_patches() -> None:
    random = np.random.default_rng(6)
    images = random.normal(size=(2, 3, 8, 8)).astype(np.float32)
    columns = random.normal(size=(2 * 8 * 8, 3 * 9)).astype(np.float32)
    left = float(np.sum(patches(images) * columns))
    assert left == pytest.approx(float(np.sum(images * unpatch(columns, images.shape))), rel=1e-3)


def test_shifting_moves_by_at_most_one_pixel() -> None:
    image = np.zeros((50, 1, 8, 8), np.float32)
    image[:, 0, 4, 4] = 1
    moved = shifted(image, np.random.default_rng(7))
    _, _, rows, columns = np.nonzero(moved)
    assert len(rows) == 50
    assert {*rows, *columns} == {3, 4, 5}

# SPDX-License-Identifier: Apache-2.0
"""Trains, quantizes and exports the handwritten digits model that `make demo` serves.

Data: the UCI "Optical Recognition of Handwritten Digits" images that scikit-learn bundles,
8x8 pixels of 0..16. A third is held out: neither trained nor calibrated on. Training is plain
numpy, so that the script needs nothing beyond Tepi's own environment, and seeded.

    .venv/bin/python -m examples.digits.train
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from device.host import open_session
from examples.digits.network import Network, shifted

HERE = Path(__file__).resolve().parent
HELD_OUT = 599
CALIBRATION = 400
PIXEL_MAX = 16.0
OPSET = 17

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


def split(seed: int) -> tuple[Images, Labels, Images, Labels]:
    """(train images, labels, held-out images, labels); images are [n, 1, 8, 8] of 0..16."""
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    return images[rest], labels[rest], images[held], labels[held]


def fit(images: Images, labels: Labels, epochs: int, seed: int) -> Network:
    """Adam with a cosine step size over images shifted by up to one pixel.

    One BLAS thread, so that sums are taken in the same order on every machine.
    """
    with threadpool_limits(1):
        return _fit(images, labels, epochs, seed)


def _fit(images: Images, labels: Labels, epochs: int, seed: int) -> Network:
    random = np.random.default_rng(seed)
    network = Network(random)
    batch = 64
    for epoch in range(epochs):
        rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        order = random.permutation(len(labels))
        losses = []
        for start in range(0, len(order), batch):
            pick = order[start : start + batch]
            pixels = shifted(images[pick] / PIXEL_MAX, random)
            losses.append(network.step(pixels, labels[pick], rate))
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}: loss {np.mean(losses):.4f}")
    return network


def export(network: Network) -> onnx.ModelProto:
    """The network as ONNX; the first convolution takes raw pixels, 1/16 folded into its weights."""
    weights = dict(network.parameters)
    weights["conv1_w"] = weights["conv1_w"] / PIXEL_MAX
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1_w", "conv1_b"], ["c1"], "conv1", **pads),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "conv2_w", "conv2_b"], ["c2"], "conv2", **pads),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("MaxPool", ["r2"], ["p2"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p2", "conv3_w", "conv3_b"], ["c3"], "conv3", **pads),
        helper.make_node("Relu", ["c3"], ["r3"], "relu3"),
        helper.make_node("Flatten", ["r3"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "dense_w", "dense_b"], ["logits"], "dense", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="tepi examples/digits",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Feeds training images, one batch at a time, to onnxruntime's calibrator."""

    def __init__(self, images: Images) -> None:
        self._batches = iter(np.array_split(images, len(images) // 50))

    def get_next(self) -> dict[str, Images] | None:
        """The next feed, or None when all were given."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def accuracy(model: Path, images: Images, labels: Labels) -> float:
    """Share of images that onnxruntime classifies right with this model, 0..1."""
    session = open_session(str(model))
    (probabilities,) = session.run(None, {"image": images})
    return float(np.mean(np.argmax(probabilities, axis=1) == labels))


def main() -> None:
    """Write fp32.onnx, model_repository/digits/1/model.onnx, held-out.npz and training.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to")
    arguments = parser.parse_args()

    images, labels, held_images, held_labels = split(arguments.seed)
    network = fit(images, labels, arguments.epochs, arguments.seed)

    quantized = arguments.output / "model_repository/digits/1/model.onnx"
    quantized.parent.mkdir(parents=True, exist_ok=True)
    fp32 = arguments.output / "fp32.onnx"
    onnx.save(export(network), fp32)
    quantize_static(
        fp32,
        quantized,
        Calibration(images[:CALIBRATION]),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    np.savez_compressed(
        arguments.output / "held-out.npz",
        images=held_images[:, 0].astype(np.uint8),
        labels=held_labels.astype(np.uint8),
    )
    record = {
        "seed": arguments.seed,
        "epochs": arguments.epochs,
        "trained_on": len(labels),
        "held_out": len(held_labels),
        "fp32_accuracy": round(accuracy(fp32, held_images, held_labels), 4),
        "int8_accuracy_onnxruntime": round(accuracy(quantized, held_images, held_labels), 4),
        "fp32_bytes": fp32.stat().st_size,
        "int8_bytes": quantized.stat().st_size,
    }
    (arguments.output / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()

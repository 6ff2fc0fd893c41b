# SPDX-License-Identifier: Apache-2.0
"""A three-layer convolutional network in numpy: forward, backward and Adam; train.py uses it."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


def shifted(images: Array, random: np.random.Generator) -> Array:
    """Each [1, 8, 8] image moved by -1, 0 or 1 pixel in both directions, zeros moving in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moved = np.empty_like(images)
    for i, (y, x) in enumerate(random.integers(0, 3, size=(len(images), 2))):
        moved[i] = padded[i, :, y : y + 8, x : x + 8]
    return moved


def patches(images: Array) -> Array:
    """[n, c, h, w] to [n * h * w, c * 9]: the 3x3 surroundings of each pixel, zero padded."""
    n, c, h, w = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * 9)


def unpatch(grads: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of `patches`: gradients of patches summed back onto their pixels."""
    n, c, h, w = shape
    parts = grads.reshape(n, h, w, c, 3, 3)
    padded = np.zeros((n, c, h + 2, w + 2), np.float32)
    for y in range(3):
        for x in range(3):
            padded[:, :, y : y + h, x : x + w] += parts[..., y, x].transpose(0, 3, 1, 2)
    return padded[:, :, 1:-1, 1:-1]


class Network:
    """conv 16, conv 32, 2x2 maximum, conv 32, dense 10; rectified after each convolution."""

    def __init__(self, random: np.random.Generator) -> None:
        shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "conv3": (32, 32, 3, 3)}
        self.parameters: dict[str, Array] = {}
        for name, shape in {**shapes, "dense": (10, 512)}.items():
            scale = np.sqrt(2.0 / np.prod(shape[1:]))
            self.parameters[f"{name}_w"] = random.normal(0, scale, shape).astype(np.float32)
            self.parameters[f"{name}_b"] = np.zeros(shape[0], np.float32)
        self._moments = {k: (np.zeros_like(v), np.zeros_like(v)) for k, v in self._items()}
        self._steps = 0

    def _items(self) -> list[tuple[str, Array]]:
        return list(self.parameters.items())

    def _conv(self, name: str, images: Array) -> tuple[Array, Array]:
        n, _, h, w = images.shape
        columns = patches(images)
        weights = self.parameters[f"{name}_w"]
        sums = columns @ weights.reshape(len(weights), -1).T + self.parameters[f"{name}_b"]
        return columns, np.maximum(sums, 0).reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def _conv_back(
        self, name: str, grads: Array, columns: Array, output: Array, shape: tuple[int, ...]
    ) -> tuple[dict[str, Array], Array]:
        flat = (grads * (output > 0)).transpose(0, 2, 3, 1).reshape(len(columns), -1)
        weights = self.parameters[f"{name}_w"]
        found = {
            f"{name}_w": (flat.T @ columns).reshape(weights.shape),
            f"{name}_b": flat.sum(axis=0),
        }
        return found, unpatch(flat @ weights.reshape(len(weights), -1), shape)

    def step(self, images: Array, labels: Labels, rate: float) -> float:
        """One Adam step on [n, 1, 8, 8] images of 0..1; returns the mean cross-entropy."""
        n = len(labels)
        columns1, a1 = self._conv("conv1", images)
        columns2, a2 = self._conv("conv2", a1)
        blocks = a2.reshape(n, 32, 4, 2, 4, 2)
        pooled = blocks.max(axis=(3, 5))
        columns3, a3 = self._conv("conv3", pooled)
        flat = a3.reshape(n, -1)
        logits = flat @ self.parameters["dense_w"].T + self.parameters["dense_b"]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        loss = float(-np.log(probabilities[np.arange(n), labels] + 1e-9).mean())

        probabilities[np.arange(n), labels] -= 1
        delta = probabilities / n
        grads = {"dense_w": delta.T @ flat, "dense_b": delta.sum(axis=0)}
        back = (delta @ self.parameters["dense_w"]).reshape(a3.shape)
        found, back = self._conv_back("conv3", back, columns3, a3, pooled.shape)
        grads |= found
        chosen = blocks == pooled[:, :, :, None, :, None]
        back = (chosen * back[:, :, :, None, :, None]).reshape(a2.shape)
        found, back = self._conv_back("conv2", back, columns2, a2, a1.shape)
        grads |= found
        found, _ = self._conv_back("conv1", back, columns1, a1, images.shape)
        self._adam(grads | found, rate)
        return loss

    def _adam(self, grads: dict[str, Array], rate: float) -> None:
        self._steps += 1
        for name, grad in grads.items():
            mean, square = self._moments[name]
            mean += 0.1 * (grad - mean)
            square += 0.001 * (grad * grad - square)
            scaled = mean / (1 - 0.9**self._steps)
            scaled = scaled / (np.sqrt(square / (1 - 0.999**self._steps)) + 1e-8)
            self.parameters[name] -= (rate * scaled).astype(np.float32)

# SPDX-License-Identifier: Apache-2.0
"""The classification extension: the k highest scores of an output as "score:index[:label]"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_server.engines.engine import Array


def classify(scores: Array, k: int, batched: bool, labels: Sequence[str]) -> Array:
    """Object array of bytes, shape [min(k, classes)], after the batch dimension where there is one.

    Equal scores keep the order of their indices. Without batching the whole output is one row.
    """
    rows = scores.reshape(scores.shape[0], -1) if batched else scores.reshape(1, -1)
    top = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :k]
    out = np.empty(top.shape, object)
    for row, indices in enumerate(top):
        for column, index in enumerate(indices):
            out[row, column] = _text(rows[row, index], int(index), labels)
    return out if batched else out[0]


def _text(score: np.generic, index: int, labels: Sequence[str]) -> bytes:
    value = f"{score:f}" if score.dtype.kind == "f" else str(score)
    text = f"{value}:{index}"
    if index < len(labels) and labels[index]:
        text += f":{labels[index]}"
    return text.encode()


def read_labels(path: Path) -> list[str]:
    """One label a line; an empty line leaves its class without a label."""
    return [line.strip() for line in path.read_text("utf-8").splitlines()]

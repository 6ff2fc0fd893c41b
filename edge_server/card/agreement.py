# SPDX-License-Identifier: Apache-2.0
"""Whether two engines gave the same answer.

Most models give the same bytes on the card and on onnxruntime; some, with functions that the two
compute in other steps, differ in last places (docs/numerics.md). Which kind a model is shows as it
runs: after PROVEN comparisons without one different bit, a different bit is a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import numpy as np

from edge_server.engines.engine import Array

PROVEN: Final = 100
CLOSE: Final = 0.05
"""Largest difference of an inexact model, as a share of the largest value expected."""


class Verdict(IntEnum):
    """From good to bad."""

    SAME = 0
    CLOSE = 1
    DIFFERENT = 2


class Agreement:
    """What was seen of one model."""

    def __init__(self) -> None:
        self._same = 0
        self._inexact = False

    @property
    def exact(self) -> bool:
        """Whether answers must be the same bytes from now on."""
        return self._same >= PROVEN and not self._inexact

    def judge(self, expected: Sequence[Array], found: Sequence[Array]) -> tuple[Verdict, str]:
        """One comparison, and what is different where there is a difference."""
        verdict, detail = compare(expected, found)
        if verdict is Verdict.SAME:
            self._same += 1
        elif verdict is Verdict.CLOSE and self.exact:
            return Verdict.DIFFERENT, f"{detail}, after {self._same} answers without a difference"
        else:
            self._inexact = self._inexact or verdict is Verdict.CLOSE
        return verdict, detail

    def forget(self) -> None:
        """The card's programs were loaded anew."""
        self._same = 0


def compare(expected: Sequence[Array], found: Sequence[Array]) -> tuple[Verdict, str]:
    """The worst of all outputs, in their order."""
    worst, detail = Verdict.SAME, ""
    for index, (a, b) in enumerate(zip(expected, found, strict=True)):
        verdict, text = _compare(np.asarray(a), np.asarray(b))
        if verdict > worst:
            worst, detail = verdict, f"output {index}: {text}"
    return worst, detail


def _compare(a: Array, b: Array) -> tuple[Verdict, str]:
    if a.shape != b.shape or a.dtype != b.dtype:
        return Verdict.DIFFERENT, f"{a.dtype}{list(a.shape)} was expected, not {b.dtype}{b.shape}"
    if a.dtype == object or a.dtype == bool:
        same = np.array_equal(a, b)
        return (Verdict.SAME, "") if same else (Verdict.DIFFERENT, "other values")
    if a.tobytes() == b.tobytes():
        return Verdict.SAME, ""
    x, y = a.astype(np.float64), b.astype(np.float64)
    odd = ~(np.isfinite(x) & np.isfinite(y))
    if not np.array_equal(x[odd], y[odd], equal_nan=True):
        return Verdict.DIFFERENT, "infinities or NaNs in other places"
    x, y = x[~odd], y[~odd]
    apart = np.abs(x - y)
    most = float(apart.max(initial=0.0))
    room = max(CLOSE * float(np.abs(x).max(initial=0.0)), 1.0 if a.dtype.kind in "iu" else 1e-6)
    text = f"{int((apart > 0).sum())} of {a.size} values differ, by up to {most:.6g}"
    return (Verdict.CLOSE if most <= room else Verdict.DIFFERENT), text

# SPDX-License-Identifier: Apache-2.0
"""Answers that are the same, close, or wrong."""

import numpy as np
import pytest

from edge_server.card.agreement import PROVEN, Agreement, Verdict, compare
from edge_server.engines.engine import Array


def F(values: object) -> Array:
    return np.asarray(values, np.float32)


def as_type(kind: str, values: object) -> Array:
    return np.asarray(values, kind)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (F([1, 2, 3]), F([1, 2, 3]), Verdict.SAME),
        (F([1, 2, 3]), F([1, 2, 3.1]), Verdict.CLOSE),
        (F([1, 2, 3]), F([1, 2, 3.2]), Verdict.DIFFERENT),
        (F([0, 0]), F([0, 1e-7]), Verdict.CLOSE),
        (F([0, 0]), F([0, 1e-3]), Verdict.DIFFERENT),
        (F([np.nan, 1]), F([np.nan, 1]), Verdict.SAME),
        (F([np.nan, 1]), F([1, np.nan]), Verdict.DIFFERENT),
        (F([np.inf, 1]), F([-np.inf, 1]), Verdict.DIFFERENT),
        (F([np.inf, 100]), F([np.inf, 101]), Verdict.CLOSE),
        (as_type("u1", [7, 200]), as_type("u1", [7, 201]), Verdict.CLOSE),
        (as_type("u1", [7, 20]), as_type("u1", [7, 22]), Verdict.DIFFERENT),
        (as_type("i8", [5]), as_type("i8", [6]), Verdict.CLOSE),
        (np.array([True]), np.array([False]), Verdict.DIFFERENT),
        (np.array(["a"], object), np.array(["b"], object), Verdict.DIFFERENT),
        (F([1, 2]), F([[1, 2]]), Verdict.DIFFERENT),
        (F([1]), as_type("f8", [1]), Verdict.DIFFERENT),
        (F([]), F([]), Verdict.SAME),
    ],
)
def test_verdict(a: Array, b: Array, verdict: Verdict) -> None:
    found, detail = compare([a], [b])
    assert found is verdict
    assert (detail == "") == (verdict is Verdict.SAME)


def test_the_worst_output_counts_and_is_named() -> None:
    good = F([1, 2])
    verdict, detail = compare([good, good, good], [good, F([1, 3]), F([1, 2.01])])
    assert verdict is Verdict.DIFFERENT
    assert detail == "output 1: 1 of 2 values differ, by up to 1"


def test_a_model_that_was_always_exact_must_stay_so() -> None:
    agreement = Agreement()
    good, near = [F([1, 2])], [F([1, 2.01])]
    for _ in range(PROVEN - 1):
        agreement.judge(good, good)
    assert not agreement.exact
    agreement.judge(good, good)
    assert agreement.exact
    verdict, detail = agreement.judge(good, near)
    assert verdict is Verdict.DIFFERENT and f"after {PROVEN} answers" in detail
    agreement.forget()
    assert agreement.judge(good, near)[0] is Verdict.CLOSE


def test_a_model_that_is_inexact_once_is_never_held_to_the_bit() -> None:
    agreement = Agreement()
    good, near = [F([1, 2])], [F([1, 2.01])]
    agreement.judge(good, near)
    for _ in range(PROVEN):
        agreement.judge(good, good)
    assert agreement.judge(good, near)[0] is Verdict.CLOSE
    assert agreement.judge(good, [F([1, 3])])[0] is Verdict.DIFFERENT

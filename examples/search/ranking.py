# SPDX-License-Identifier: Apache-2.0
"""Which passages are nearest to a question, and how far two models agree about that."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
"""[texts, 384], each of length 1."""


@dataclass(frozen=True)
class Agreement:
    """An int8 model against the float32 one. Cosines are between the two embeddings of one text,
    over passages and questions; `top1` and `top5` are shares of the best 1 and 5 passages that both
    have, and `score_error` is the largest difference of a question's score for a passage."""

    top1: float
    top5: float
    cosine_mean: float
    cosine_least: float
    score_error: float


def scores(questions: Embeddings, passages: Embeddings) -> NDArray[np.float32]:
    """Cosines, [questions, passages]."""
    return questions @ passages.T


def best(score: NDArray[np.float32], count: int) -> list[int]:
    """Indices of the highest scores of one question, best first."""
    return [int(i) for i in np.argsort(-score, kind="stable")[:count]]


def place(score: NDArray[np.float32], index: int) -> int:
    """Where the passage of that index comes among one question's scores, from 1 on."""
    return int(np.sum(score > score[index])) + 1


def agreement(
    ours: tuple[Embeddings, Embeddings], theirs: tuple[Embeddings, Embeddings]
) -> Agreement:
    """Both as (questions, passages)."""
    cosines = np.concatenate([np.sum(a * b, axis=1) for a, b in zip(ours, theirs, strict=True)])
    mine, wanted = scores(*ours), scores(*theirs)
    return Agreement(
        _shared(mine, wanted, 1),
        _shared(mine, wanted, 5),
        float(cosines.mean()),
        float(cosines.min()),
        float(np.abs(mine - wanted).max()),
    )


def _shared(mine: NDArray[np.float32], wanted: NDArray[np.float32], n: int) -> float:
    return float(
        np.mean([len({*best(a, n)} & {*best(b, n)}) / n for a, b in zip(mine, wanted, strict=True)])
    )

# SPDX-License-Identifier: Apache-2.0
"""Shadow requests of one model: what a card must answer right before it may answer clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_server.card.agreement import Agreement, Verdict, compare
from edge_server.engines.engine import Array, Engine, EngineError, FeedError, TensorInfo

RECENT: Final = 4
RECENT_BYTES: Final = 4 << 20
"""Largest request that is kept."""

DEADLINE_S: Final = 30.0
"""Of one shadow request on the card."""

_MADE_BYTES: Final = 64 << 20
_SEEDS: Final = (0, 1)


@dataclass(frozen=True, slots=True)
class Probe:
    """A request and onnxruntime's answer."""

    names: Sequence[str]
    feeds: Mapping[str, Array]
    expected: Sequence[Array]


class Probes:
    """Made-up requests, which a card must answer with the same bytes every time, and the newest
    ones of clients that onnxruntime has answered."""

    def __init__(self, made: Sequence[Probe] = ()) -> None:
        self.agreement = Agreement()
        self._made = tuple(made)
        self._accepted: list[list[Array]] = []  # the card's first answers to them
        self._recent: deque[Probe] = deque(maxlen=RECENT)

    @classmethod
    def answered_by(cls, reference: Engine) -> Probes:
        """Requests that `reference` can answer: zeros, and random values in a modest range."""
        names = [info.name for info in reference.outputs]
        found = []
        for seed in (None, *_SEEDS):
            feeds = _feeds(reference.inputs, seed)
            if feeds is None:
                break
            try:
                found.append(Probe(names, feeds, reference.run(names, feeds)))
            except (EngineError, FeedError):  # say, an index that is outside its table
                continue
        return cls(found)

    def remember(
        self, names: Sequence[str], feeds: Mapping[str, Array], answer: Sequence[Array]
    ) -> None:
        """A request that onnxruntime has answered in the card's stead."""
        if sum(array.nbytes for array in (*feeds.values(), *answer)) <= RECENT_BYTES:
            self._recent.append(Probe(names, feeds, answer))

    def check(self, engine: Engine, deadline_s: float = DEADLINE_S) -> str:
        """Run all of them; what is wrong with the answers, empty where nothing is.

        Raises CardError, and NotCompilable.
        """
        answers = []
        for index, probe in enumerate(self._made):
            answer = engine.run(probe.names, probe.feeds, deadline_s)
            answers.append(answer)
            verdict, detail = self.agreement.judge(probe.expected, answer)
            if verdict is Verdict.DIFFERENT:
                return f"shadow request {index}: {detail}"
            if self._accepted:
                verdict, detail = compare(self._accepted[index], answer)
                if verdict is not Verdict.SAME:
                    return f"shadow request {index}: {detail}, against the card's own answer before"
        for probe in list(self._recent):
            answer = engine.run(probe.names, probe.feeds, deadline_s)
            verdict, detail = self.agreement.judge(probe.expected, answer)
            if verdict is Verdict.DIFFERENT:
                return f"a client's request run again: {detail}"
        self._accepted = self._accepted or answers
        self._recent.clear()
        return ""


def _feeds(inputs: Sequence[TensorInfo], seed: int | None) -> dict[str, Array] | None:
    """None where they would be too large."""
    shapes = [tuple(1 if d < 0 else d for d in info.shape) for info in inputs]
    items = [max(1, info.datatype.itemsize) for info in inputs]
    size = sum(int(np.prod(s, dtype=object)) * n for s, n in zip(shapes, items, strict=True))
    if size > _MADE_BYTES:
        return None
    chance = None if seed is None else np.random.default_rng(seed)
    return {
        info.name: _values(info, shape, chance) for info, shape in zip(inputs, shapes, strict=True)
    }


def _values(info: TensorInfo, shape: tuple[int, ...], chance: np.random.Generator | None) -> Array:
    if not info.datatype.itemsize:
        return np.full(shape, "", object)
    dtype = np.dtype(info.datatype.dtype)
    if chance is None:
        return np.zeros(shape, dtype)
    if dtype.kind == "f":
        return chance.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return chance.integers(0, 2, shape).astype(dtype)
    if dtype.itemsize == 1:  # pixels, or what else is quantized
        return chance.integers(0, 256, shape).astype(np.uint8).view(dtype)
    return chance.integers(0, 4, shape).astype(dtype)  # mostly indices: small ones

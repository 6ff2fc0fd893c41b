# SPDX-License-Identifier: Apache-2.0
"""A share of the requests that the card has answered run on onnxruntime as well, afterwards.

Answers that differ are counted, the first of them kept on disk, and beyond a limit the card is no
longer believed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Final

import numpy as np

from edge_server import log
from edge_server.card.agreement import Verdict
from edge_server.engines.engine import Array
from edge_server.served import ServedVersion, Slot

SAMPLES: Final = 10
"""Files kept of one model version."""

WINDOW: Final = 100
"""Newest checks of a model, among which the wrong ones are counted."""


class Shadow:
    """Lives on the event loop; onnxruntime runs on `executor`, one request at a time."""

    def __init__(
        self,
        share: float,
        limit: int,
        samples: Path | None,
        executor: Executor,
        doubt: Callable[[str], None],
    ) -> None:
        """`share` of the requests, 0 to 1; `limit`: wrong answers of the last WINDOW of a model
        with which `doubt` is called; `samples`: folder for wrong answers."""
        self._share = share
        self._limit = limit
        self._samples = samples
        self._executor = executor
        self._doubt = doubt
        self._credit = 0.0
        self._busy = False
        self._recent: dict[tuple[str, str], deque[bool]] = {}
        self._kept: dict[tuple[str, str], int] = {}

    def due(self, served: ServedVersion) -> bool:
        """Whether the request just answered is one of the share."""
        if not self._share or not served.on_card:
            return False
        self._credit = min(self._credit + self._share, 2.0)
        if self._credit < 1 or self._busy or served.reference is None:
            return False
        self._credit -= 1
        return True

    def follow(
        self,
        served: ServedVersion,
        names: Sequence[str],
        feeds: Mapping[str, Array],
        answer: Sequence[Array],
    ) -> None:
        """Run it on onnxruntime behind the client's back."""
        slot = served.reference
        assert slot is not None
        self._busy = True
        slot.enter()
        loop = asyncio.get_running_loop()
        future = self._executor.submit(slot.engine.run, names, feeds)

        def done(future: Future[list[Array]]) -> None:
            loop.call_soon_threadsafe(self._judge, served, slot, names, feeds, answer, future)

        future.add_done_callback(done)

    def _judge(
        self,
        served: ServedVersion,
        slot: Slot,
        names: Sequence[str],
        feeds: Mapping[str, Array],
        answer: Sequence[Array],
        future: Future[list[Array]],
    ) -> None:
        self._busy = False
        slot.leave()
        error = future.exception()
        if error is not None:  # it refuses what the card took: not the card's fault
            log.warning("shadow request failed", model=served.name, reason=error)
            return
        expected = future.result()
        verdict, detail = served.probes.agreement.judge(expected, answer)
        served.counters.shadow_checks += 1
        key = (served.name, served.version)
        recent = self._recent.setdefault(key, deque(maxlen=WINDOW))
        recent.append(verdict is Verdict.DIFFERENT)
        if verdict is not Verdict.DIFFERENT:
            return
        served.counters.shadow_mismatches += 1
        sample = self._keep(key, names, feeds, answer, expected)
        log.warning(
            "card answer differs from onnxruntime",
            model=served.name,
            version=served.version,
            detail=detail,
            sample=sample or "not kept",
        )
        if sum(recent) >= self._limit:
            recent.clear()
            self._doubt(f"{served.name}/{served.version} differs from onnxruntime: {detail}")

    def _keep(
        self,
        key: tuple[str, str],
        names: Sequence[str],
        feeds: Mapping[str, Array],
        answer: Sequence[Array],
        expected: Sequence[Array],
    ) -> str:
        """The file's name: inputs, and each output twice, as .npz."""
        number = self._kept.get(key, 0)
        if self._samples is None or number >= SAMPLES:
            return ""
        self._kept[key] = number + 1
        path = self._samples / f"{key[0]}-{key[1]}-{number}.npz"
        arrays = {f"input.{name}": array for name, array in feeds.items()}
        arrays |= {f"card.{name}": array for name, array in zip(names, answer, strict=True)}
        arrays |= {f"onnxruntime.{n}": array for n, array in zip(names, expected, strict=True)}
        self._executor.submit(_save, path, arrays)
        return str(path)


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        log.warning("shadow sample not kept", path=path, reason=error.strerror or error)

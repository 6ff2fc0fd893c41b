# SPDX-License-Identifier: Apache-2.0
"""How busy the card is: from a file, or from the control socket of `tepi card serve`."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_EVERY_S = 0.5
_TIMEOUT_S = 2.0
_LINE_BYTES = 1 << 16


def load_in(path: Path) -> float:
    """The number in a file; 0 where it holds none."""
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0


class BusyCard:
    """Load from the busy time of a card's workers, as the difference of two readings."""

    def __init__(self) -> None:
        self._last: tuple[float, list[int]] | None = None
        self.load = 0.0

    def read(self, answer: Any, now: float) -> None:
        """Take a reading: {"busy_ns": [of each worker]}; anything else counts as an idle card."""
        busy = answer.get("busy_ns") if isinstance(answer, dict) else None
        if not isinstance(busy, list) or not busy or any(type(one) is not int for one in busy):
            self._last, self.load = None, 0.0
            return
        last, self._last = self._last, (now, busy)
        if last is None or len(last[1]) != len(busy) or now <= last[0]:
            return
        spent = sum(busy) - sum(last[1])
        self.load = min(max(spent / 1e9 / len(busy) / (now - last[0]), 0.0), 1.0)


def ask(path: Path) -> Any:
    """The registers of the card behind a control socket; None where it does not tell."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(b'{"registers": true}\n')
            with connection.makefile() as answer:
                return json.loads(answer.readline(_LINE_BYTES))
    except (OSError, ValueError):
        return None


@contextmanager
def follow(control: Path | None, file: Path | None) -> Iterator[Callable[[], float]]:
    """What tells the load, 0 to 1, while the block runs; an idle card's where both are None.

    The socket is asked from a thread of its own, so that the line never waits for it.
    """
    if control is None:
        yield (lambda: load_in(file)) if file else lambda: 0.0
        return
    card = BusyCard()
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(_EVERY_S):
            card.read(ask(control), time.monotonic())

    thread = threading.Thread(target=poll, name="tepi-load", daemon=True)
    thread.start()
    try:
        yield lambda: card.load
    finally:
        ended.set()
        thread.join()

# SPDX-License-Identifier: Apache-2.0
"""Trying again: exponential backoff with full jitter, bounded, with time and chance passed in."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from registry.remote.errors import RemoteError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `attempts` tries; between two of them a pause of 0 to `base` * 2**n seconds, `cap` at
    most, or what the server asked for where that is longer and no longer than `patience`."""

    attempts: int = 6
    base: float = 0.5
    cap: float = 30.0
    patience: float = 120.0
    rng: random.Random = field(default_factory=random.Random)
    sleep: Callable[[float], object] = time.sleep

    def pause(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after this many failures in a row."""
        drawn = self.rng.uniform(0, min(self.cap, self.base * 2 ** min(failures - 1, 30)))
        return max(drawn, min(asked or 0.0, self.patience))

    def run(
        self,
        action: Callable[[], T],
        tell: Callable[[RemoteError, float], None] = lambda _error, _pause: None,
    ) -> T:
        """`action`'s result; its last RemoteError once that is not retryable or tries are used
        up. `tell` gets each error with the pause that follows. An action that got further before
        it failed says so by `progressed` on its error; that counts as a first failure again."""
        failures = 0
        while True:
            try:
                return action()
            except RemoteError as error:
                failures = 1 if error.progressed else failures + 1
                if not error.retryable or failures >= self.attempts:
                    raise
                pause = self.pause(failures, error.retry_after)
                tell(error, pause)
                self.sleep(pause)


ONCE = Retry(attempts=1)

# SPDX-License-Identifier: Apache-2.0
"""Several cards at once: the first goes alone, all the way; only where it passes do the others
follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event as Flag

from firmware_bridge.errors import BridgeError
from firmware_bridge.update.flow import Outcome, Told
from firmware_bridge.update.steps import Step


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the card at a port; neither outcome nor error: it was not tried."""

    port: str
    outcome: Outcome | None = None
    error: BridgeError | None = None

    @property
    def exit_code(self) -> int:
        """0 where it went well."""
        return self.error.exit_code if self.error else 0 if self.outcome else 1


def update_all(
    ports: Sequence[str], update: Callable[[str], Outcome], jobs: int, stop: Flag
) -> list[Result]:
    """Update the card at the first port, then the others, `jobs` at a time. Results in the order of
    `ports`. A KeyboardInterrupt sets `stop`, waits for every card to come to the end of what it is
    at (see `Stoppable`), and goes on."""

    def one(port: str) -> Result:
        try:
            return Result(port, update(port))
        except BridgeError as error:
            return Result(port, error=error)

    canary, others = one(ports[0]), ports[1:]
    if canary.error is not None:
        return [canary, *map(Result, others)]
    with ThreadPoolExecutor(max(1, jobs), "flash") as pool:
        futures = [pool.submit(one, port) for port in others]
        try:
            return [canary, *(future.result() for future in futures)]
        except KeyboardInterrupt:
            stop.set()
            for future in futures:
                future.cancel()
            raise


class Stoppable:
    """Passes on what an update tells, and interrupts the update once `stop` is set: between two
    steps, or two pieces of an upload, where a run can be gone on with."""

    def __init__(self, told: Told, stop: Flag) -> None:
        self._told = told
        self._stop = stop

    def step(self, card: str, step: Step, text: str) -> None:
        """See Told."""
        self._look()
        self._told.step(card, step, text)

    def progress(self, card: str, done: int, total: int) -> None:
        """See Told."""
        self._look()
        self._told.progress(card, done, total)

    def _look(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt

# SPDX-License-Identifier: Apache-2.0
"""One model on its way to this node: its state, why, and when it is its turn again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

from edge_server import log
from edge_server.sync.states import TABLE, SyncEvent, SyncState
from registry.trust.desired import DesiredModel

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
_QUIET = (SyncEvent.RETRIED, SyncEvent.STARTED)  # one line for an attempt is enough


@dataclass(slots=True)
class Tracker:
    """A desired model. `due` is the time (Time.now) before which a waiting one is left alone."""

    model: DesiredModel
    state: SyncState = SyncState.ASSIGNED
    reason: str = ""
    attempts: int = 0  # failures in a row
    due: float = 0.0
    done: int = 0  # bytes of its blobs that are here
    total: int = 0
    variant: str = ""
    sources: dict[str, int] = field(default_factory=dict)  # bytes fetched, by where they are from

    def move(self, event: SyncEvent, reason: str = "") -> None:
        """The next state, by the table; one line of the log."""
        after = TABLE[self.state][event]
        self.state, self.reason = after, reason
        if event in _QUIET:
            return
        level = log.warning if event in (SyncEvent.FAILED, SyncEvent.UNFIT) else log.info
        fields: dict[str, Any] = {
            "model": self.model.name,
            "tag": self.model.tag,
            "state": after.value,
            "digest": self.model.digest[:19],
        }
        level("sync", **fields, **({"reason": reason} if reason else {}))

    def fail(self, reason: str, now: float, rng: random.Random) -> None:
        """For a reason that may pass: try again after a pause that doubles, with jitter."""
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self.attempts, 30))
        self.due = now + rng.uniform(longest / 2, longest)
        self.attempts += 1
        self.move(SyncEvent.FAILED, reason)

    def want(self, model: DesiredModel) -> None:
        """Another package is desired, or this one from now on under another tag."""
        changed = model.digest != self.model.digest
        self.model = model
        if changed:
            self.attempts, self.due, self.done, self.total = 0, 0.0, 0, 0
            self.move(SyncEvent.CHANGED)

    @property
    def settled(self) -> bool:
        """Nothing is to be done until something changes."""
        return self.state in (SyncState.CURRENT, SyncState.REFUSED, SyncState.ROLLED_BACK)

    def as_json(self) -> dict[str, Any]:
        """A row of `tepi sync status`."""
        return {
            "model": self.model.name,
            "package": f"{self.model.repository}:{self.model.tag}",
            "digest": self.model.digest,
            "state": self.state.value,
            "reason": self.reason,
            "attempts": self.attempts,
            "variant": self.variant,
            "bytes_done": self.done,
            "bytes_total": self.total,
            "bytes_from": self.sources,
        }

# SPDX-License-Identifier: Apache-2.0
"""A circuit for each place: after some failures in a row nobody asks it for a while, then one does.

```
            FAILED (few)                 FAILED (THRESHOLD in a row, or asked to wait)
  CLOSED ------------------> CLOSED ------------------------------------> OPEN
    ^                                                                      | DUE
    +------------------- SUCCEEDED ------------- PROBING <-----------------+
                                                   | FAILED: OPEN, for longer
```
"""

from __future__ import annotations

import random
from enum import Enum, auto

THRESHOLD = 3  # failures in a row
FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 300.0  # seconds
LONGEST_ASKED = 3600.0  # seconds that a Retry-After may hold an origin back
PROBE_LEASE = 60.0  # seconds after which a probe that never reported is believed lost


class State(Enum):
    """Of a circuit."""

    CLOSED = auto()  # asked by everyone
    OPEN = auto()  # asked by nobody
    PROBING = auto()  # asked by one


class Event(Enum):
    """What happens to a circuit."""

    SUCCEEDED = auto()
    FAILED = auto()
    TRIPPED = auto()  # failed, and that was once too often
    DUE = auto()  # the pause is over and someone asks


_NEXT = {
    (State.CLOSED, Event.SUCCEEDED): State.CLOSED,
    (State.CLOSED, Event.FAILED): State.CLOSED,
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.DUE): State.PROBING,
    (State.OPEN, Event.SUCCEEDED): State.CLOSED,  # a transfer that was already under way
    (State.OPEN, Event.FAILED): State.OPEN,
    (State.OPEN, Event.TRIPPED): State.OPEN,
    (State.PROBING, Event.DUE): State.PROBING,  # the lease of the last probe ran out
    (State.PROBING, Event.SUCCEEDED): State.CLOSED,
    (State.PROBING, Event.FAILED): State.OPEN,
    (State.PROBING, Event.TRIPPED): State.OPEN,
}


def full_jitter(failures: int, rng: random.Random, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row: anything up to a bound that doubles, so
    that nodes which failed together do not come back together ("full jitter")."""
    return rng.uniform(0.0, min(longest, first * 2.0 ** min(failures - 1, 30)))


class Circuit:
    """Of one origin. Not safe for threads; the moment (seconds, monotonic) is passed in."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.state = State.CLOSED
        self.failures = 0  # in a row
        self.until = 0.0  # when it may be asked again
        self.reason = ""  # of the last failure

    def may_ask(self, now: float) -> bool:
        """Whether a request may go out now; says nothing to the circuit."""
        return self.state is State.CLOSED or now >= self.until

    def ask(self, now: float) -> bool:
        """As may_ask, and takes the probe if this is one."""
        if not self.may_ask(now):
            return False
        if self.state is not State.CLOSED:
            self._go(Event.DUE)
            self.until = now + PROBE_LEASE
        return True

    def succeeded(self) -> None:
        """An answer was good."""
        self._go(Event.SUCCEEDED)
        self.failures = 0
        self.until = 0.0
        self.reason = ""

    def moves(self) -> None:
        """A probe is answered well so far: others may ask too; one more failure opens it again."""
        if self.state is State.PROBING:
            self._go(Event.SUCCEEDED)
            self.failures = THRESHOLD - 1

    def failed(self, now: float, reason: str, retry_after: float = 0.0) -> None:
        """An answer was bad or did not come. `retry_after`: seconds that the origin asked for."""
        self.reason = reason
        asked = now + min(retry_after, LONGEST_ASKED) if retry_after > 0 else 0.0
        if self.state is State.OPEN:  # asked before the pause began, which it does not lengthen
            self._go(Event.FAILED)
            self.until = max(self.until, asked)
            return
        self.failures += 1
        trips = self.state is State.PROBING or self.failures >= THRESHOLD or retry_after > 0
        self._go(Event.TRIPPED if trips else Event.FAILED)
        if trips:
            beyond = max(1, self.failures - THRESHOLD + 1)
            pause = full_jitter(beyond, self._rng, FIRST_PAUSE, LONGEST_PAUSE)
            self.until = max(now + pause, asked)

    def _go(self, event: Event) -> None:
        self.state = _NEXT[self.state, event]

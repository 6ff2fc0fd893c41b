# SPDX-License-Identifier: Apache-2.0
"""Which failures of single requests are failures of the card."""

from __future__ import annotations

from collections import deque
from typing import Final

from device.errors import CardError, CardFault, CardGone, CardTimeout

STRIKES: Final = 5
STRIKES_SECONDS: Final = 10.0


class Strikes:
    """STRIKES requests failed in STRIKES_SECONDS, without a fault of their own, are one."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=STRIKES)

    def fatal(self, error: CardError, answers: bool, now: float) -> bool:
        """Whether further requests would only fail too, or wait. `answers`: the card is alive."""
        if error.fatal or isinstance(error, CardGone) or not answers:
            return True
        if not isinstance(error, CardTimeout | CardFault):
            return False
        self._times.append(now)
        return len(self._times) == STRIKES and now - self._times[0] < STRIKES_SECONDS

    def clear(self) -> None:
        """The card begins anew."""
        self._times.clear()

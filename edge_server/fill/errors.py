# SPDX-License-Identifier: Apache-2.0
"""What can go wrong while a node fetches. Each message names the blob and the source.

What one source does wrong in one try is a RemoteError: another source may do better. What the
whole fill comes to is a FillError.
"""

from __future__ import annotations

from collections.abc import Mapping

from registry.errors import NotFound, RegistryError
from registry.remote.errors import RemoteError

_LATER = "nothing is lost: what arrived is kept and the next try goes on from there"


class FillError(RegistryError):
    """The base of them all."""


class AllOriginsDown(FillError):
    """No origin can be asked now. `reasons` says of each why not and when it is tried again."""

    def __init__(self, what: str, reasons: Mapping[str, str]) -> None:
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__(
            f"{what}: no origin can be reached ({listed or 'none is configured'})",
            "check the link and the origins' addresses; serving goes on with what is here"
            if reasons
            else "name at least one origin in the settings",
        )
        self.reasons = dict(reasons)


class FillFailed(FillError):
    """A blob did not arrive. `reasons` says of each source what it did last."""

    def __init__(self, digest: str, why: str, reasons: Mapping[str, str]) -> None:
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__(f"{digest}: {why}" + (f" ({listed})" if listed else ""), _LATER)
        self.digest = digest
        self.reasons = dict(reasons)


class NowhereFound(FillFailed, NotFound):
    """Every origin answers well, and has no such blob."""


class Stopped(FillError):
    """The node is shutting down, or the last who wanted the blob cancelled it."""


class Restarted(FillError):
    """What a reader was given so far turned out to be wrong and is fetched again from its
    beginning: the reader has to begin again too."""


class BadWindow(FillError):
    """A fill window that does not read HH:MM-HH:MM."""


class BadRate(FillError):
    """A byte rate that is not a positive number of bytes a second."""


class SlowSource(RemoteError):
    """The source sends so little that another is better."""

    retryable = True


class WrongRange(RemoteError):
    """The source answered with other bytes of the blob than those that were asked for, or says
    that the blob has another size."""

    retryable = True


class RangeIgnored(RemoteError):
    """The source sends the whole where a range was asked for; one that does not is better."""

    retryable = True


class Lied(RemoteError):
    """The source sent bytes that are not those of the blob."""

    retryable = True

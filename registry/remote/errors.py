# SPDX-License-Identifier: Apache-2.0
"""What a registry can answer instead of what was asked for.

`retryable` says whether the same request may succeed later or elsewhere; `status` is the HTTP
status, 0 where there was none; `retry_after` is what the server asked for, in seconds.
"""

from __future__ import annotations

from registry.errors import NotFound, RegistryError


class RemoteError(RegistryError):
    """The base of all: a registry could not be asked, or did not give what was asked for."""

    retryable = False
    progressed = False  # set where part of the work was done and need not be done again

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, remedy)
        self.status = status
        self.retry_after = retry_after


class Unreachable(RemoteError):
    """No connection: the name does not resolve, the port is closed, the network is cut."""

    retryable = True


class Timeout(RemoteError):
    """The server was silent for longer than the limit."""

    retryable = True


class Truncated(RemoteError):
    """The connection ended before the body did."""

    retryable = True


class ServerTrouble(RemoteError):
    """A status of 500 or above: the server's own trouble."""

    retryable = True


class TooManyRequests(RemoteError):
    """Status 429: the server wants fewer requests; see `retry_after`."""

    retryable = True


class Denied(RemoteError):
    """Status 401 or 403, or a token server that gives no token."""


class Missing(RemoteError, NotFound):
    """Status 404: there is no such repository, tag, manifest or blob."""


class Refused(RemoteError):
    """Another status from 400 to 499: the request is one that this server does not take."""


class RangeRefused(RemoteError):
    """Status 416: the range begins at or behind the end; `total` is the size, where it is told."""

    def __init__(self, message: str, total: int | None) -> None:
        super().__init__(message, status=416)
        self.total = total


class BadAnswer(RemoteError):
    """An answer that breaks the protocol."""


class EndlessData(BadAnswer):
    """More bytes than the limit: reading stopped there."""


class RedirectLoop(BadAnswer):
    """Redirects that come back to where they were, or go on for too long."""


class Untrusted(RemoteError):
    """TLS failed, or would have been left: nothing was sent."""


class BadCredentials(RegistryError):
    """A file of credentials, or a program that keeps them, that cannot be read."""

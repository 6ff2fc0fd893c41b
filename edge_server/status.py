# SPDX-License-Identifier: Apache-2.0
"""The exception that becomes a gRPC status, and the reasons under which failures are counted."""

from __future__ import annotations

from enum import StrEnum

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

RETRY_S = 0.1  # a card is back, or a line is shorter, after about so long
MESSAGE_LIMIT = 2000  # characters; details travel in HTTP/2 trailers, which stop at 8 KiB


class Failure(StrEnum):
    """`reason` label of nv_inference_request_failure."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


class RequestError(Exception):
    """A request that cannot be answered: the gRPC status and the message the client reads."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        failure: Failure = Failure.OTHER,
        retry_s: float | None = None,
    ) -> None:
        """`retry_s`: when the same request may succeed; None: never as it is."""
        super().__init__(message)
        self.retry_s = retry_s
        self.code = code
        self.message = message if len(message) <= MESSAGE_LIMIT else message[:MESSAGE_LIMIT] + "…"
        self.failure = failure


def invalid(message: str) -> RequestError:
    """The request itself is wrong; the same bytes will fail again."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def forbidden(message: str) -> RequestError:
    """The operator has not allowed it."""
    return RequestError(grpc.StatusCode.PERMISSION_DENIED, message)


def not_found(message: str) -> RequestError:
    """What the request names does not exist here."""
    return RequestError(grpc.StatusCode.NOT_FOUND, message)


def unavailable(message: str) -> RequestError:
    """The request is right, the server cannot answer it now: worth trying again."""
    return RequestError(grpc.StatusCode.UNAVAILABLE, message, Failure.REJECTED, RETRY_S)


def retry_metadata(error: RequestError) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata that tells a client to try again: for gRPC's own retries (proposal A6) and
    as google.rpc.RetryInfo."""
    if error.retry_s is None:
        return ()
    delay = Duration()
    delay.FromMilliseconds(round(error.retry_s * 1000))
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    pushback = str(round(error.retry_s * 1000))
    return (
        ("grpc-retry-pushback-ms", pushback),
        ("grpc-status-details-bin", status.SerializeToString()),
    )


def unimplemented(message: str) -> RequestError:
    """Part of the protocol that this server does not offer."""
    return RequestError(grpc.StatusCode.UNIMPLEMENTED, message)


def internal(message: str) -> RequestError:
    """An engine failed on a request that looked right."""
    return RequestError(grpc.StatusCode.INTERNAL, message, Failure.BACKEND)

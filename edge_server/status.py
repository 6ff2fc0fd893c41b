# SPDX-License-Identifier: Apache-2.0
"""The exception that becomes a gRPC status, and the reasons under which failures are counted."""

from __future__ import annotations

from enum import StrEnum

import grpc

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
        self, code: grpc.StatusCode, message: str, failure: Failure = Failure.OTHER
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= MESSAGE_LIMIT else message[:MESSAGE_LIMIT] + "…"
        self.failure = failure


def invalid(message: str) -> RequestError:
    """The request itself is wrong; the same bytes will fail again."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> RequestError:
    """What the request names does not exist here."""
    return RequestError(grpc.StatusCode.NOT_FOUND, message)


def unavailable(message: str) -> RequestError:
    """The request is right, the server cannot answer it now: worth trying again."""
    return RequestError(grpc.StatusCode.UNAVAILABLE, message, Failure.REJECTED)


def unimplemented(message: str) -> RequestError:
    """Part of the protocol that this server does not offer."""
    return RequestError(grpc.StatusCode.UNIMPLEMENTED, message)


def internal(message: str) -> RequestError:
    """An engine failed on a request that looked right."""
    return RequestError(grpc.StatusCode.INTERNAL, message, Failure.BACKEND)

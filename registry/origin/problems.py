# SPDX-License-Identifier: Apache-2.0
"""What a registry refuses, as the error documents of OCI Distribution 1.1 (Error Codes)."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from registry.errors import RegistryError

LOGGER = logging.getLogger("tepi.origin")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(RegistryError):
    """The base: `code` is the specification's, `status` HTTP's."""

    code = "UNKNOWN"
    status = 500

    def __init__(
        self, message: str, remedy: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, remedy)
        self.headers = dict(headers or {})

    def answer(self) -> web.Response:
        """The response that says so."""
        text = f"{self}; {self.remedy}" if self.remedy else str(self)
        body = json.dumps({"errors": [{"code": self.code, "message": text}]}).encode()
        response = web.Response(body=body, status=self.status, headers=self.headers)
        response.content_type = "application/json"
        return response


class NameInvalid(Problem):
    """A repository cannot be called that."""

    code, status = "NAME_INVALID", 400


class NameUnknown(Problem):
    """There is no such repository."""

    code, status = "NAME_UNKNOWN", 404


class DigestInvalid(Problem):
    """Not a digest, or not that of these bytes."""

    code, status = "DIGEST_INVALID", 400


class SizeInvalid(Problem):
    """More bytes, or fewer, than were announced or are taken."""

    code, status = "SIZE_INVALID", 413


class ManifestUnknown(Problem):
    """There is no such manifest in this repository."""

    code, status = "MANIFEST_UNKNOWN", 404


class ManifestInvalid(Problem):
    """A manifest that does not parse."""

    code, status = "MANIFEST_INVALID", 400


class ManifestBlobUnknown(Problem):
    """A manifest of blobs that are not here."""

    code, status = "MANIFEST_BLOB_UNKNOWN", 404


class BlobUnknown(Problem):
    """There is no such blob."""

    code, status = "BLOB_UNKNOWN", 404


class UploadUnknown(Problem):
    """There is no such upload session."""

    code, status = "BLOB_UPLOAD_UNKNOWN", 404


class UploadInvalid(Problem):
    """An upload that cannot go on like this."""

    code, status = "BLOB_UPLOAD_INVALID", 400


class RangeInvalid(Problem):
    """A range behind the end, or a chunk that does not begin where the last one ended."""

    code, status = "BLOB_UPLOAD_INVALID", 416


class Unauthorized(Problem):
    """Nobody is known by that name and password."""

    code, status = "UNAUTHORIZED", 401


class Denied(Problem):
    """Known, but without the right."""

    code, status = "DENIED", 403


class Unsupported(Problem):
    """Not something that this server does."""

    code, status = "UNSUPPORTED", 405


class NotHeld(Problem):
    """`Cache-Control: only-if-cached`, and it is not (RFC 9111, 5.2.1.7)."""

    code, status = "BLOB_UNKNOWN", 504


class Unavailable(Problem):
    """It is known elsewhere, but nobody there answers now."""

    code, status = "UNAVAILABLE", 503


class StorageFull(Problem):
    """The disk of the registry has no room."""

    code, status = "DENIED", 507


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into the specification's errors. A connection that broke goes on
    to aiohttp, which knows that nobody is left to be told."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.answer()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kind = Unsupported if error.status == 405 else NameUnknown
        return kind(f"there is no {request.method} {request.path[:200]}").answer()
    except RegistryError as error:  # of a file in the registry's folder
        LOGGER.error("%s %s: %s", request.method, request.path, error)
        return Problem(str(error), error.remedy).answer()
    except ConnectionError:
        raise
    except OSError as error:
        LOGGER.error("%s %s: %s", request.method, request.path, error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFull("the registry's disk is full", "make room on it").answer()
        return Problem(f"the registry's storage failed: {error.strerror}").answer()

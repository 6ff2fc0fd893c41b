# SPDX-License-Identifier: Apache-2.0
"""Where metadata comes from: an HTTP server, or a folder such as a USB stick. Nothing that comes is
believed; what is guarded against here is only that it never ends or never comes."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import urllib3

from registry.trust.errors import Oversize, SlowDrip, SourceDown

_CHUNK = 1 << 16
_REDIRECTS = 3


class Missing(Exception):
    """The source answered that it has no such file. Not an error of its own: that there is no
    newer root is told this way (TUF 5.3.3)."""


class MetadataSource(Protocol):
    """A place with `metadata/*.json` and `targets/**`; `name` is for messages."""

    name: str

    def get(self, path: str, limit: int) -> bytes:
        """The file at `path`, of at most `limit` bytes. Raises Missing, Oversize, SlowDrip,
        SourceDown."""
        ...


def too_large(name: str, path: str, limit: int) -> Oversize:
    """The error for a file of more than `limit` bytes."""
    return Oversize(f"{name}: {path} has more than the {limit} bytes that it may have")


class FolderSource:
    """The folder of a registry or of an export: `folder/tuf/metadata`, `folder/tuf/targets`."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._tuf = folder / "tuf" if (folder / "tuf").is_dir() else folder

    def get(self, path: str, limit: int) -> bytes:
        """As MetadataSource."""
        try:
            data = _read_regular(self._tuf / path, limit + 1)
        except FileNotFoundError:
            if (self._tuf / "metadata").is_dir():
                raise Missing(path) from None
            raise SourceDown(
                f"{self.name} holds no metadata", "make it with `tepi registry export`"
            ) from None
        except OSError as error:
            raise SourceDown(f"{self.name}: {path}: {error.strerror}") from None
        if len(data) > limit:
            raise too_large(self.name, path, limit)
        return data


def _read_regular(path: Path, count: int) -> bytes:
    """At most `count` bytes of a file. A pipe or a device on a stick would hold the reader up."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(count)


class HttpSource:
    """A server: `base` is the URL of what has `metadata/` and `targets/`, say
    `https://registry.example:5000/tuf`.

    `seconds` is the time for connecting, for each silence and, tenfold, for a whole file;
    `headers` carries what the server wants to see, say Authorization. A file that the server says
    is unchanged (ETag) is taken from memory.
    """

    def __init__(
        self,
        base: str,
        pool: urllib3.PoolManager | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 6.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = base.rstrip("/")
        self._pool = pool if pool is not None else urllib3.PoolManager()
        self._headers = dict(headers or {})
        self._seconds = seconds
        self._monotonic = monotonic
        self._held: dict[str, tuple[str, bytes]] = {}  # path: (ETag, bytes)

    def get(self, path: str, limit: int) -> bytes:
        """As MetadataSource."""
        headers = dict(self._headers)
        held = self._held.get(path)
        if held is not None and len(held[1]) <= limit:
            headers["If-None-Match"] = held[0]
        try:
            response = self._pool.request(
                "GET",
                f"{self.name}/{path}",
                headers=headers,
                preload_content=False,
                decode_content=False,
                redirect=True,
                retries=urllib3.Retry(
                    total=_REDIRECTS, connect=0, read=0, redirect=_REDIRECTS, status=0, other=0
                ),
                timeout=urllib3.Timeout(connect=self._seconds, read=self._seconds),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SourceDown(f"{self.name}: {path}: {_reason(error)}") from None
        return self._answer(response, path, limit, held)

    def _answer(
        self,
        response: urllib3.BaseHTTPResponse,
        path: str,
        limit: int,
        held: tuple[str, bytes] | None,
    ) -> bytes:
        whole = False
        try:
            if response.status == 304 and held is not None and len(held[1]) <= limit:
                whole = True
                return held[1]
            if response.status in (403, 404, 410):  # storage buckets answer 403 for no such file
                raise Missing(path)
            if response.status != 200:
                raise SourceDown(f"{self.name}: {path}: the answer was {response.status}")
            data = self._body(response, path, limit)
            whole = True
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SourceDown(f"{self.name}: {path}: {_reason(error)}") from None
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()
        self._remember(path, response.headers.get("ETag", ""), data)
        return data

    def _body(self, response: urllib3.BaseHTTPResponse, path: str, limit: int) -> bytes:
        """A drip keeps each silence short, so the whole has a time too."""
        end = self._monotonic() + 10 * self._seconds
        parts = bytearray()
        while part := response.read1(_CHUNK):
            parts += part
            if len(parts) > limit:
                raise too_large(self.name, path, limit)
            if self._monotonic() > end:
                raise SlowDrip(
                    f"{self.name}: {path}: {len(parts)} bytes in {10 * self._seconds:.0f} s, and "
                    "not at its end"
                )
        return bytes(parts)

    def _remember(self, path: str, etag: str, data: bytes) -> None:
        """Only what is asked for again under one name: versioned files never change."""
        if etag and path == "metadata/timestamp.json":
            self._held[path] = (etag, data)


def _reason(error: BaseException) -> str:
    """The inmost message: urllib3 wraps it in what names its own objects."""
    inner = getattr(error, "reason", None)
    while isinstance(inner, BaseException):
        error, inner = inner, getattr(inner, "reason", None)
    text = str(error)
    return text.rpartition("): ")[2] or type(error).__name__

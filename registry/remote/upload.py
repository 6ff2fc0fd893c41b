# SPDX-License-Identifier: Apache-2.0
"""Sending one blob: OCI Distribution Specification 1.1, Pushing blobs.

A small blob goes in one PUT, a large one in chunks, so that after a broken connection the server is
asked how much it holds and the rest alone is sent. A session that the server has given up begins
anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode

import urllib3

from registry.errors import WrongDigest, WrongSize
from registry.remote.errors import BadAnswer, Missing, RangeRefused, Refused, RemoteError
from registry.remote.headers import parse_uploaded
from registry.remote.transport import Transport

CHUNK = 32 << 20  # bytes of one PATCH
_PIECE = 1 << 20
_OCTETS = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a blob's bytes are: in memory, or in a file."""

    digest: str
    size: int
    data: bytes | Path

    def pieces(self, first: int, end: int, tell: Callable[[int], None]) -> Iterator[memoryview]:
        """The bytes from `first` up to `end`, a piece valid until the next; `tell` gets the offset
        after each. Raises WrongSize where the file is shorter by now."""
        with self._open() as file:
            file.seek(first)
            buffer = memoryview(bytearray(min(_PIECE, max(1, end - first))))
            while first < end:
                count = file.readinto(buffer[: end - first])  # type: ignore[attr-defined]
                if not count:
                    raise WrongSize(f"{self.digest} ends after {first} of {self.size} bytes")
                yield buffer[:count]
                first += count
                tell(first)

    def _open(self) -> BinaryIO:
        if isinstance(self.data, Path):
            return self.data.open("rb", buffering=0)
        return io.BytesIO(self.data)


class Upload:
    """One blob on its way to a registry; `run` may be called again after it failed."""

    def __init__(
        self,
        transport: Transport,
        name: str,
        source: Source,
        scope: str,
        tell: Callable[[int], None] = lambda _offset: None,
        chunk: int = CHUNK,
    ) -> None:
        self._transport = transport
        self._name = name
        self._source = source
        self._scope = scope
        self._tell = tell
        self._chunk = chunk
        self._location = ""
        self._furthest = 0
        self._fresh = False  # nothing was sent in this session yet
        self._went_on = False  # this session had a broken connection
        self.offset = 0  # bytes that the server has confirmed
        self.mounted = False

    def run(self, mount_from: str = "") -> None:
        """Send what the server does not hold yet; with `mount_from`, ask first whether the server
        takes the blob over from that repository. Raises RemoteError, WrongDigest."""
        try:
            if not self._resumed():
                self._begin(mount_from)
            if not self.mounted:
                self._send()
        except RemoteError as error:
            # A server may still be taking in what a broken connection brought: ask it again.
            error.retryable |= isinstance(error, RangeRefused) or "UPLOAD_INVALID" in str(error)
            error.progressed = self.offset > self._furthest
            self._furthest = max(self._furthest, self.offset)
            raise

    def _resumed(self) -> bool:
        if not self._location:
            return False
        try:
            response = self._request("GET", self._location)
        except (Missing, Refused, RangeRefused):
            self._forget()  # the server has given this session up
            return False
        held = parse_uploaded(response.headers.get("Range", ""))
        self._follow(response)
        if held is None or held > self._source.size:
            self._forget()
            return False
        self.offset, self._went_on = held, True
        return True

    def _begin(self, mount_from: str) -> None:
        query = {"mount": self._source.digest, "from": mount_from} if mount_from else {}
        target = f"/v2/{self._name}/blobs/uploads/?{urlencode(query)}".rstrip("?")
        scope = f"{self._scope} repository:{mount_from}:pull" if mount_from else self._scope
        response = self._transport.request("POST", target, scope, length=0)
        if response.status == 201 and mount_from:
            self._transport.finish(response)
            self.mounted = True
            return
        if response.status not in (201, 202) or not response.headers.get("Location"):
            response.close()
            raise BadAnswer(f"POST {target}: status {response.status} opens no upload")
        self._follow(response, target)
        self.offset, self._fresh, self._went_on = 0, True, False

    def _send(self) -> None:
        size = self._source.size
        fresh, self._fresh = self._fresh, False
        if fresh and size <= self._chunk:
            self._finish(0)
            return
        while self.offset < size:
            first, end = self.offset, min(self.offset + self._chunk, size)
            headers = {"Content-Type": _OCTETS, "Content-Range": f"{first}-{end - 1}"}
            response = self._request("PATCH", self._location, headers, (first, end))
            said = response.headers.get("Range", f"0-{end - 1}")
            held = end if said == f"0-{end - 1}" else parse_uploaded(said)
            self._follow(response)
            if held is None or not first < held <= end:
                self._forget()
                raise BadAnswer(
                    f"PATCH of {self._source.digest}: after bytes {first}-{end - 1} the server "
                    f"says Range: {said[:40]!r}"
                )
            self.offset = held
        self._finish(size)

    def _finish(self, first: int) -> None:
        mark = "&" if "?" in self._location else "?"
        url = f"{self._location}{mark}digest={quote(self._source.digest, safe='')}"
        try:
            response = self._request("PUT", url, {"Content-Type": _OCTETS}, (first, self.size))
        except Refused as error:
            if "digest" in str(error).lower():
                if self._went_on:  # the server may have joined the parts wrongly
                    self._forget()
                    error.retryable = True
                    raise
                raise WrongDigest(
                    f"the registry received other bytes than {self._source.digest}: {error}",
                    "check the layout with `tepi model verify`",
                ) from None
            raise
        self._transport.finish(response)
        self.offset = self.size

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._source.size

    def _request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        span: tuple[int, int] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        if span is None:
            return self._transport.request(method, url, self._scope, headers)
        first, end = span
        return self._transport.request(
            method,
            url,
            self._scope,
            headers,
            lambda: self._source.pieces(first, end, self._tell),
            end - first,
        )

    def _follow(self, response: urllib3.BaseHTTPResponse, target: str = "") -> None:
        if response.headers.get("Location"):
            base = self._location or self._transport.base + target
            self._location = self._transport.location(response, base)
        self._transport.finish(response)

    def _forget(self) -> None:
        self._location = ""
        self.offset = 0
        self._tell(0)

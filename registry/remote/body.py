# SPDX-License-Identifier: Apache-2.0
"""The body of an answer as it arrives: straight from the socket into the reader's buffer.

urllib3's own `readinto` reads into a new bytes object and copies that. Here a body of known length
is received from the socket below, one receive a call, once what came with the headers is used up
(BufferedReader's `readinto1` would wait for more beside that); a chunked one goes through urllib3's
`read1`.
"""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable, Iterator

import urllib3

from registry.remote.errors import BadAnswer, EndlessData, RemoteError, Truncated
from registry.remote.headers import parse_content_range, parse_length


class Blob:
    """A blob, or a range of one, on its way.

    `status` is 200 or 206. `start` is the offset of the first byte that `readinto` gives, `total`
    the size of the whole blob and `length` that of this body, None where the server did not say.
    One thread at a time.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        *,
        start: int,
        total: int | None,
        length: int | None,
        what: str,
        translate: Callable[[Exception, str], RemoteError],
    ) -> None:
        self.status = response.status
        self.start = start
        self.total = total
        self.length = length
        self.etag = response.headers.get("ETag", "")
        self.received = 0
        self._response = response
        self._what = what
        self._translate = translate
        self._file = _socket_file(response) if length is not None else None
        self._head: memoryview | None = None  # what came with the headers
        self._done = False

    @classmethod
    def of(
        cls,
        response: urllib3.BaseHTTPResponse,
        what: str,
        first: int,
        last: int | None,
        translate: Callable[[Exception, str], RemoteError],
    ) -> Blob:
        """The body of an answer to a GET of bytes `first` to `last` (RFC 9110 section 15.3.7); a
        200 is all of it, whatever was asked. Raises BadAnswer for a range that was not asked."""
        length = parse_length(response.headers.get("Content-Length", ""))
        if response.status == 200:
            whole = length
            return cls(response, start=0, total=whole, length=whole, what=what, translate=translate)
        said = response.headers.get("Content-Range", "")
        span = parse_content_range(said)
        count = -1
        if response.status == 206 and span and span.first == first and span.last is not None:
            count = span.last - first + 1
        if count < 0 or (last is not None and count > last - first + 1):
            response.close()
            raise BadAnswer(
                f"{what}: asked for bytes {first}-{'' if last is None else last}, got status "
                f"{response.status} with Content-Range {said[:80]!r}"
            )
        assert span is not None
        if length is not None and length != count:
            response.close()
            raise BadAnswer(f"{what}: Content-Range has {count} bytes, Content-Length {length}")
        total = span.total
        return cls(response, start=first, total=total, length=count, what=what, translate=translate)

    def readinto(self, buffer: memoryview) -> int:
        """Receive what is there, at least a byte, into `buffer`; 0 once all is received.
        Raises Truncated, Timeout or EndlessData; the connection is closed then."""
        if self._done or not buffer:
            return 0
        left = len(buffer)
        if self.length is not None:
            left = min(left, self.length - self.received)
        try:
            if self._file is not None:
                count = self._receive(self._file, buffer[:left]) if left else 0
            else:
                count = self._read1(buffer)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            self.close()
            raise self._translate(error, self._what) from None
        self.received += count
        if self.length is not None and self.received > self.length:
            self.close()
            raise EndlessData(f"{self._what}: more than the {self.length} bytes announced")
        if count == 0 or self.received == self.length:
            self._finish()
        return count

    def stream(self, chunk: int = 1 << 20) -> Iterator[memoryview]:
        """All of it in pieces of at most `chunk` bytes; each piece is valid until the next."""
        buffer = memoryview(bytearray(chunk))
        while count := self.readinto(buffer):
            yield buffer[:count]

    def read(self, limit: int) -> bytes:
        """All of it; raises EndlessData once it is more than `limit` bytes."""
        found = io.BytesIO()
        for piece in self.stream(min(limit + 1, 1 << 16)):
            found.write(piece)
            if found.tell() > limit:
                self.close()
                raise EndlessData(f"{self._what}: more than {limit} bytes")
        return found.getvalue()

    def close(self) -> None:
        """Let go of the connection; it is used again only where all was received."""
        if not self._done:
            self._done = True
            self._response.close()

    def interrupt(self) -> None:
        """Have a `readinto` that waits in another thread end now, with Truncated."""
        try:
            self._response.shutdown()
        except (OSError, ValueError, RuntimeError):
            pass  # it waits for nothing: all is here, or it is closed

    def __enter__(self) -> Blob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, file: io.BufferedReader, buffer: memoryview) -> int:
        if self._head is None:
            self._head = memoryview(file.read(len(file.peek())))
        if self._head:
            count = min(len(self._head), len(buffer))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        return file.raw.readinto(buffer) or 0

    def _read1(self, buffer: memoryview) -> int:
        data = self._response.read1(len(buffer), decode_content=False)
        buffer[: len(data)] = data
        return len(data)

    def _finish(self) -> None:
        if self.length is not None and self.received < self.length:
            self.close()
            raise Truncated(
                f"{self._what}: the connection ended after {self.received} of {self.length} bytes"
            )
        self._done = True
        original = getattr(self._response, "_original_response", None)
        if original is not None and self._file is not None:
            original.close()  # the socket's file only; the connection stays
        self._response.release_conn()


def _socket_file(response: urllib3.BaseHTTPResponse) -> io.BufferedReader | None:
    """The buffered file of the connection below, where urllib3 shows it and the body is plain."""
    original = getattr(response, "_original_response", None)
    file = getattr(original, "fp", None)
    plain = original is not None and not getattr(original, "chunked", True)
    return file if plain and isinstance(file, io.BufferedReader) else None

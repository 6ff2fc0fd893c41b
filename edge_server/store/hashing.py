# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of a file beside its writing, in a thread of its own.

The writer fills buffers of a ring; each is hashed from memory as soon as its bytes are in the
file, and comes back to the writer when it is hashed. What was in the file before (a resumed fill)
is hashed from the file, and so is what comes meanwhile, until the thread has caught up.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable

from edge_server.store.errors import PartialClosed

BUFFER = 1 << 20  # bytes
BUFFERS = 8
_ROOM = 64 << 10  # a buffer with less room than this is left for the next one
_INLINE = 256 << 10  # up to this, the writer hashes at the end and there is no thread

ReadInto = Callable[[memoryview, int], int]


class _Buffer:
    """`at`: offset in the blob of its first byte. Bytes up to `filled` are in the file, up to
    `hashed` in the digest. `queued`: hashed from here, not from the file."""

    __slots__ = ("at", "data", "filled", "hashed", "left", "queued")

    def __init__(self) -> None:
        self.data = memoryview(bytearray(BUFFER))
        self.begin(0, False)

    def begin(self, at: int, queued: bool) -> None:
        self.at = at
        self.queued = queued
        self.filled = self.hashed = 0
        self.left = False  # the writer is done with it


class Hashing:
    """One writer calls `buffer`, `wrote` and `digest`; `read` fills a buffer from the file."""

    def __init__(self, read: ReadInto, held: int) -> None:
        self._read = read
        self._wake = threading.Condition()
        self._hasher = hashlib.sha256()
        self._hashed = 0
        self._written = held
        self._queue: deque[_Buffer] = deque()
        self._free: list[_Buffer] = []
        self._made = 0
        self._current: _Buffer | None = None
        self._scratch: memoryview | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._stopped = False

    def buffer(self) -> memoryview:
        """Room for the next bytes, at least 64 KiB; blocks while every buffer waits to be
        hashed."""
        current = self._current
        if current is None:
            current = self._current = self._next()
        return current.data[current.filled :]

    def wrote(self, count: int) -> None:
        """So many bytes of `buffer()` are in the file now."""
        with self._wake:
            current = self._current
            if current is None:
                raise PartialClosed("the partial blob was closed while it was written")
            current.filled += count
            self._written += count
            if BUFFER - current.filled < _ROOM:
                self._leave(current)
            if self._thread is None and self._written - self._hashed > _INLINE:
                self._start()
            self._wake.notify_all()

    def digest(self) -> str:
        """Of all that was written; blocks until that is hashed. Raises what the thread met."""
        with self._wake:
            if self._thread is None and self._written - self._hashed > BUFFER:
                self._start()
        if self._thread is None:
            while self._step():
                pass
        with self._wake:
            self._wake.wait_for(
                lambda: self._hashed == self._written or self._failure or self._stopped
            )
            self._raise_failure()
            if self._hashed != self._written:
                raise PartialClosed("the partial blob was closed before it was hashed")
        return f"sha256:{self._hasher.hexdigest()}"

    def stop(self) -> None:
        """End the thread, and let go of the memory. A writer that waits for a buffer gets
        PartialClosed."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._wake:
            self._queue.clear()
            self._free.clear()
            self._current = self._scratch = None

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="store hash", daemon=True)
        self._thread.start()

    def _next(self) -> _Buffer:
        with self._wake:
            if self._thread is None and self._written - self._hashed > _INLINE:
                self._start()
            self._wake.wait_for(self._may_go_on)
            self._raise_failure()
            if self._stopped:
                raise PartialClosed("the partial blob was closed while it was written")
            if self._free:
                found = self._free.pop()
            else:
                self._made += 1
                found = _Buffer()
            # From memory if all before it is hashed or waits in the queue; else from the file.
            found.begin(self._written, bool(self._queue) or self._hashed == self._written)
            if found.queued:
                self._queue.append(found)
            return found

    def _may_go_on(self) -> bool:
        if self._failure or self._stopped:
            return True
        behind = self._written - self._hashed
        if not self._queue and behind and self._thread is not None:
            # Far behind, it reads the file in its own time; when near, wait so that it can go
            # back to the buffers.
            return behind > BUFFER * BUFFERS
        return bool(self._free) or self._made < BUFFERS

    def _leave(self, buffer: _Buffer) -> None:
        buffer.left = True
        self._current = None
        if not buffer.queued:
            self._free.append(buffer)
        else:
            self._let_go(buffer)

    def _let_go(self, buffer: _Buffer) -> None:
        if buffer.left and buffer.hashed == buffer.filled and self._queue:
            self._free.append(self._queue.popleft())

    def _run(self) -> None:
        try:
            while self._step(wait=True):
                pass
        except BaseException as error:  # the writer's to hear, whatever it is
            with self._wake:
                self._failure = error
                self._wake.notify_all()

    def _step(self, wait: bool = False) -> bool:
        """Hash the next piece; False: there is none, or no more will come."""
        with self._wake:
            if wait:
                self._wake.wait_for(lambda: self._hashed < self._written or self._stopped)
            if self._stopped or self._hashed == self._written:
                return False
            at, end = self._hashed, self._written
            buffer = self._queue[0] if self._queue else None
            if buffer is not None and buffer.at + buffer.hashed == at:
                piece = buffer.data[buffer.hashed : buffer.filled]
            else:
                piece, end = None, min(end, buffer.at if buffer else end)
        if piece is None:
            buffer = None
            piece = self._from_file(at, min(BUFFER, end - at))
        self._hasher.update(piece)
        with self._wake:
            self._hashed += len(piece)
            if buffer is not None:
                buffer.hashed += len(piece)
                self._let_go(buffer)
            self._wake.notify_all()
        return True

    def _from_file(self, at: int, count: int) -> memoryview:
        if self._scratch is None:
            self._scratch = memoryview(bytearray(BUFFER))
        got = self._read(self._scratch[:count], at)
        if not got:
            raise OSError(f"the file ends at {at} bytes, before what was written to it")
        return self._scratch[:got]

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

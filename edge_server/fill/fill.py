# SPDX-License-Identifier: Apache-2.0
"""One blob on its way into the store, as those see it who wait for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_server.fill.choose import DeltaWant
from edge_server.fill.errors import FillError, Restarted
from edge_server.store.errors import PartialClosed
from registry.delta.block_index import BlockIndex
from registry.digest import check_digest
from registry.errors import RegistryError

_RATE_SPAN = 1.0  # seconds over which the rate of a progress is smoothed


@dataclass(frozen=True, slots=True)
class Want:
    """A blob that is wanted: `name` is the repository to ask for it in, `size` in bytes.

    `urgent`: someone waits for it now, so windows do not hold it back and it goes before what is
    not. `index` is its block index, `holders` are those of blobs in the store that may share blocks
    with it, `deltas` make it out of others.
    """

    name: str
    digest: str
    size: int | None = None
    urgent: bool = False
    index: BlockIndex | None = None
    holders: tuple[BlockIndex, ...] = ()
    deltas: tuple[DeltaWant, ...] = ()

    def __post_init__(self) -> None:
        check_digest(self.digest)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fill is: bytes here of bytes in all (None: not known yet), who gives them now, and
    bytes a second over about the last second."""

    digest: str
    done: int
    total: int | None
    source: str
    rate: float


class Arriving(Protocol):
    """What is read while it arrives; the store's Partial is one."""

    @property
    def offset(self) -> int:
        """Bytes that can be read, from the blob's start."""

    def pread(self, offset: int, count: int) -> bytes:
        """Some of them."""


class Fill:
    """A blob on its way. Safe for threads; many wait for one.

    What is read before `wait` returned is not verified yet: a reader that passes it on relies on
    whoever checks the digest at the end.
    """

    def __init__(
        self,
        want: Want,
        clock: Callable[[], float] = time.monotonic,
        after: Fill | None = None,
    ) -> None:
        """`after`: one of the same blob that was told to stop and has yet to let go of it."""
        self.want = want
        self.after = after
        self.digest = want.digest
        self.size = want.size  # bytes; may be learnt late
        self.sources: dict[str, int] = {}  # bytes by `local`, `delta`, `peer NAME`, `origin NAME`
        self.stop = threading.Event()
        self.wake = threading.Event()  # ends the wait for a window early: stopped, or urgent now
        self.ended = threading.Event()  # well or not
        self.urgent = want.urgent
        self.wanted_by = 1  # how many started it and did not cancel
        self.attempt = 0  # counts how often it began again from nothing
        self.notes: list[str] = []  # what went wrong on the way and did not matter
        self.waiting = ""  # `window` while one is waited for
        self._clock = clock
        self._condition = threading.Condition()
        self._arriving: Arriving | None = None
        self._path: Path | None = None
        self._error: RegistryError | None = None
        self._callbacks: list[Callable[[Fill], None]] = []
        self._source = ""
        self._interrupt: Callable[[], None] = _nothing
        self._meter = _Meter()

    @property
    def available(self) -> int:
        """Bytes that can be read now, from the blob's start."""
        with self._condition:
            return self._available()

    @property
    def error(self) -> RegistryError | None:
        """Why it ended badly, None where it did not."""
        return self._error

    @property
    def path(self) -> Path | None:
        """The verified blob in the store, None where it is not there yet."""
        return self._path

    def progress(self) -> Progress:
        """How far it is."""
        now = self._clock()
        with self._condition:
            done = self._available()
            return Progress(self.digest, done, self.size, self._source, self._meter.rate(now))

    def subscribe(self, callback: Callable[[Fill], None]) -> Callable[[], None]:
        """Have `callback` called, by the thread that fills, whenever more is available, its size is
        known, or it ended; at once where it has. Returns what ends the subscription."""
        with self._condition:
            ended = self._path is not None or self._error is not None
            if not ended:
                self._callbacks.append(callback)
        if ended:
            callback(self)

        def unsubscribe() -> None:
            with self._condition:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return unsubscribe

    def wait(self, timeout: float | None = None) -> Path:
        """The verified blob in the store. Raises what the fill failed with (FillError, or the
        store's error), TimeoutError after `timeout` seconds."""
        with self._condition:
            ended = self._condition.wait_for(
                lambda: self._path is not None or self._error is not None, timeout
            )
            if self._error is not None:
                raise self._error
            if not ended or self._path is None:
                raise TimeoutError(f"{self.digest} is still on its way after {timeout} s")
            return self._path

    def wait_size(self, timeout: float | None = None) -> int:
        """The blob's size in bytes once it is known; errors as of wait."""
        with self._condition:
            self._condition.wait_for(
                lambda: self.size is not None or self._error is not None, timeout
            )
            if self._error is not None:
                raise self._error
            if self.size is None:
                raise TimeoutError(f"the size of {self.digest} is not known after {timeout} s")
            return self.size

    def read(
        self, offset: int, limit: int, timeout: float | None = None, *, attempt: int | None = None
    ) -> bytes:
        """At most `limit` bytes from `offset` as soon as there is one; empty at the end. Errors as
        of wait; Restarted where the fill has begun again since `attempt`, the value of
        Fill.attempt when the reader began."""
        while True:
            with self._condition:
                ready = self._condition.wait_for(lambda: self._readable(offset, attempt), timeout)
                if self._error is not None:
                    raise self._error
                if attempt is not None and attempt != self.attempt:
                    raise Restarted(
                        f"{self.digest}: what came first was wrong and is fetched again",
                        "ask again",
                    )
                if not ready:
                    raise TimeoutError(f"{self.digest}: nothing at {offset} after {timeout} s")
                path, arriving = self._path, self._arriving
            if path is not None:
                return _pread(path, offset, limit)
            if arriving is None:
                return b""  # at the end already
            try:
                return arriving.pread(offset, limit)
            except PartialClosed:  # it ended, or begins again, since we looked
                self._changed(arriving, timeout)

    def cancel(self) -> None:
        """One who started it no longer wants it; after the last one it stops. What arrived is
        kept."""
        with self._condition:
            self.wanted_by -= 1
            last = self.wanted_by <= 0
            if last:
                self.stop.set()  # with the lock: nobody joins any longer
        if last:
            self.halt()

    def join(self, *, urgent: bool) -> bool:
        """One more wants it; False where it was told to stop already."""
        with self._condition:
            if self.stop.is_set():
                return False
            self.wanted_by += 1
            hurry = urgent and not self.urgent
            self.urgent = self.urgent or urgent
        if hurry:
            self.wake.set()
        return True

    def halt(self) -> None:
        """Stop it whoever wants it, also where it waits for a source."""
        self.stop.set()
        self.wake.set()
        with self._condition:
            interrupt = self._interrupt
        interrupt()

    # What the thread that fills says.

    def arriving(self, partial: Arriving | None, size: int | None) -> None:
        """The blob is read from here from now on; None: from nowhere for a moment."""
        with self._condition:
            if self._arriving is not None and self._available():
                self.attempt += partial is None
            self._arriving = partial
            self.size = size
        self._tell()

    def interrupts(self, interrupt: Callable[[], None] | None) -> None:
        """What to call at a halt so that this thread hears of it; None: nothing."""
        with self._condition:
            self._interrupt = interrupt or _nothing

    def told(self, source: str, count: int) -> None:
        """`count` more bytes came from `source`."""
        now = self._clock()
        with self._condition:
            self._source = source
            self.sources[source] = self.sources.get(source, 0) + count
            self._meter.add(now, count)
        self._tell()

    def finished(self, path: Path) -> None:
        """It is in the store."""
        with self._condition:
            self._path = path
            self._arriving = None
        self._tell(last=True)

    def failed(self, error: RegistryError) -> None:
        """It is not, and nobody tries any longer."""
        with self._condition:
            self._error = error.with_traceback(None)  # which would keep buffers and connections
            self._arriving = None
        self._tell(last=True)

    def _tell(self, *, last: bool = False) -> None:
        with self._condition:
            self._condition.notify_all()
            callbacks = tuple(self._callbacks)
            if last:
                self._callbacks.clear()
                self.ended.set()
        for callback in callbacks:
            callback(self)

    def _changed(self, arriving: Arriving, timeout: float | None) -> None:
        with self._condition:
            self._condition.wait_for(
                lambda: self._arriving is not arriving or self._error is not None, timeout
            )

    def _available(self) -> int:
        if self._path is not None:
            return self.size or 0
        return self._arriving.offset if self._arriving is not None else 0

    def _readable(self, offset: int, attempt: int | None) -> bool:
        if self._path is not None or self._error is not None:
            return True
        if attempt is not None and attempt != self.attempt:
            return True
        return self._available() > offset or (self.size is not None and offset >= self.size)


@dataclass(slots=True)
class _Meter:
    """Bytes a second, over spans of about a second."""

    _begin: float | None = None
    _count: int = 0
    _last: float = 0.0
    _whole: list[float] = field(default_factory=list)

    def add(self, now: float, count: int) -> None:
        if self._begin is None:
            self._begin = now
        self._count += count
        if now - self._begin >= _RATE_SPAN:
            self._last = self._count / (now - self._begin)
            self._begin, self._count = now, 0

    def rate(self, now: float) -> float:
        if self._begin is None:
            return 0.0
        open_for = now - self._begin
        if self._last and open_for < _RATE_SPAN:
            return self._last
        return self._count / open_for if open_for > 0 else 0.0


def _nothing() -> None:
    pass


def _pread(path: Path, offset: int, limit: int) -> bytes:
    """Raises FillError where the store let go of the blob meanwhile."""
    try:
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), limit, offset)
    except FileNotFoundError:
        raise FillError(f"{path.name} left the store while it was read", "ask again") from None

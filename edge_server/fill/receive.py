# SPDX-License-Identifier: Apache-2.0
"""One answer of one source into one sink, distrusting all of it.

Bytes go from the socket into the sink's own buffers, so on the way nothing is copied.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edge_server.fill.errors import Lied, SlowSource, Stopped, WrongRange
from edge_server.fill.rate import Rate
from edge_server.fill.source import Answer, BlobSource
from edge_server.fill.time import REAL_TIME, Time
from registry.remote.errors import Truncated

LEAST_RATE = 1 << 10  # bytes a second
OVER = 30.0  # seconds of waiting for bytes over which the least rate is looked at
EDGE = 1 << 20  # bytes; a fill pauses where its offset is a multiple of these


class Sink(Protocol):
    """Where bytes go, in order."""

    @property
    def offset(self) -> int:
        """Where in the blob the next byte goes."""

    def buffer(self) -> memoryview:
        """Room for the next bytes."""

    def advance(self, count: int) -> None:
        """So many bytes were put there."""

    def to_edge(self) -> int:
        """Bytes up to where a pause is well placed; 0 where it is now."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked for: bytes `first` to before `end` of a blob; `size` is that of the blob."""

    name: str
    digest: str
    first: int
    end: int | None  # None: to the end, wherever that is
    size: int | None  # None: not known yet

    @property
    def last(self) -> int | None:
        """As BlobSource.open_blob takes it."""
        return None if self.end is None or self.end == self.size else self.end - 1


@dataclass(slots=True)
class Drip:
    """Notices a source that sends next to nothing. Only time spent waiting for it counts."""

    least: int = LEAST_RATE  # bytes a second
    over: float = OVER  # seconds
    _seconds: float = 0.0
    _count: int = 0

    def note(self, seconds: float, count: int) -> None:
        """So many bytes came after so many seconds of waiting. Raises SlowSource."""
        self._seconds += seconds
        self._count += count
        if self._seconds < self.over:
            return
        if self._count < self.least * self._seconds:
            raise SlowSource(
                f"it sent {self._count} bytes in {self._seconds:.0f} s;"
                f" at least {self.least} bytes a second are wanted"
            )
        self._seconds, self._count = 0.0, 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds every transfer back."""

    rate: Rate = field(default_factory=Rate)
    least_rate: int = LEAST_RATE
    over: float = OVER
    time: Time = REAL_TIME


def ask(source: BlobSource, span: Span, etag: str = "") -> tuple[Answer, int]:
    """The source's answer, and how many bytes at its beginning are before the span (a source that
    ignores ranges sends the whole). Raises RemoteError."""
    answer = source.open_blob(span.name, span.digest, span.first, span.last, etag)
    try:
        return answer, before_span(answer, span)
    except BaseException:
        answer.close()
        raise


def before_span(answer: Answer, span: Span) -> int:
    """Bytes of the answer that are before the span. RFC 9110, 14.4 and 15.3.7: a 206 says what it
    holds, a 200 is the whole. Raises WrongRange."""
    if None not in (answer.total, span.size) and answer.total != span.size:
        raise WrongRange(
            f"{span.digest}: it has {answer.total} bytes there; the blob has {span.size}"
        )
    if answer.status == 206 and answer.start != span.first:
        raise WrongRange(
            f"{span.digest}: bytes from {span.first} were asked for, and from {answer.start} came"
        )
    return 0 if answer.status == 206 else span.first


class Receiver:
    """Takes answers in for one fill. `stop` ends it at once, `pausing` at the next edge; `tell`
    gets the bytes of each step."""

    def __init__(
        self,
        limits: Limits,
        stop: threading.Event,
        pausing: Callable[[], bool],
        tell: Callable[[int], None],
    ) -> None:
        self._limits = limits
        self._stop = stop
        self._pausing = pausing
        self._tell = tell
        self._scratch: memoryview | None = None

    def skip(
        self, answer: Answer, count: int, known: Callable[[int, int], bytes] | None, drip: Drip
    ) -> None:
        """Read `count` bytes from the blob's start which are here already, and compare them with
        those (`known(offset, count)`). Raises RemoteError; Lied where they differ."""
        if self._scratch is None:
            self._scratch = memoryview(bytearray(EDGE))
        at = 0
        while at < count:
            view = self._scratch[: min(self._limits.rate.step, count - at)]
            got, seconds = self._read(answer, view, at, count)
            if known is not None and known(at, got) != view[:got]:
                raise Lied("the beginning that it sends is not the one that is here")
            at += got
            self._settle(drip, seconds, got)

    def take(self, answer: Answer, end: int, sink: Sink, drip: Drip) -> bool:
        """Receive until the sink's offset is `end` (True), or a pause is due (False). More than
        that is never read, however much there is. Raises RemoteError, Stopped and what the sink
        raises; what was received before is in the sink."""
        rate = self._limits.rate
        offset = sink.offset
        while offset < end:
            count = min(rate.step, end - offset)
            if self._pausing():
                to_edge = sink.to_edge()
                if not to_edge:
                    return False
                count = min(count, to_edge)
            got, seconds = self._read(answer, sink.buffer()[:count], offset, end)
            sink.advance(got)
            offset += got
            self._tell(got)
            self._settle(drip, seconds, got)
        return True

    def _read(self, answer: Answer, view: memoryview, at: int, end: int) -> tuple[int, float]:
        """Bytes received, and the seconds that it took."""
        now = self._limits.time.now
        begin = now()
        got = answer.readinto(view)
        if not got:
            raise Truncated(f"it ended after {at} bytes of {end}")
        return got, now() - begin

    def _settle(self, drip: Drip, seconds: float, got: int) -> None:
        """What has to be looked at after each step."""
        if self._stop.is_set():
            raise Stopped("the fill was stopped", "start it again: it goes on where it was")
        drip.note(seconds, got)
        self._limits.rate.take(got, self._stop)

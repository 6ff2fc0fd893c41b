# SPDX-License-Identifier: Apache-2.0
"""Requests out, answers in, without I/O and without a clock of its own.

Each request carries a sequence number, and is sent again, unchanged, when nothing answers in time.
An answer counts if its number, group, command and operation are those of a request in flight; all
others are stale: late answers to what was given up, second answers to what was sent twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from firmware_bridge.errors import BadReply
from firmware_bridge.smp.errors import BadPayload, SmpError, refusal
from firmware_bridge.smp.framing import Deframer, encode_frames
from firmware_bridge.smp.header import SIZE, V2, Group, Header, Op
from firmware_bridge.smp.message import Request, split


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for the first answer, its growth with each try up to `most`, and how often
    the request is sent in all."""

    first: float
    factor: float
    most: float
    tries: int

    def wait(self, tries: int) -> float:
        """Seconds to wait after the request was sent for the `tries`-th time, from 1."""
        return min(self.most, self.first * self.factor ** (tries - 1))


QUICK = Patience(0.4, 1.5, 1.0, 6)  # 4.9 s; a page of flash takes some 0.1 s
ERASING = Patience(1.0, 2.0, 8.0, 8)  # 47 s: a slot of 1 MiB is erased first
HASHING = Patience(2.0, 2.0, 8.0, 4)
ONCE = Patience(2.0, 1.0, 2.0, 1)  # a second reset would end a trial before it is confirmed
PATIENCE: Mapping[tuple[int, int, int], Patience] = {
    (Op.WRITE, Group.OS, 5): ONCE,
    (Op.WRITE, Group.IMG, 0): HASHING,
    (Op.WRITE, Group.IMG, 5): ERASING,
    (Op.READ, Group.FS, 2): HASHING,
    (Op.READ, Group.ATTEST, 0): HASHING,  # P-256 in software
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for the request `ticket`: a map, or an error (SmpError, BadReply).

    `tries`: how often it had been sent; `seconds`: since its last byte left, by the line's rate."""

    ticket: int
    payload: dict[str, object]
    error: SmpError | BadReply | None
    tries: int
    seconds: float


@dataclass(slots=True)
class _Flight:
    ticket: int
    expected: tuple[int, int, int]  # operation, group and command of its answer
    command: str
    frames: bytes
    patience: Patience
    tries: int = 0
    left: float = 0.0  # when its last byte has left
    deadline: float = 0.0


class Exchange:
    """One side of one line. The caller moves bytes: `outgoing` to the line, what comes to
    `receive`, and calls `expired` when `deadline` has come.

    `clock`: seconds; `bytes_per_second`: the line's rate, None where it has none worth counting;
    `sequence`: the first number, best a random one, so that answers to an earlier run are stale.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        bytes_per_second: float | None = None,
        version: int = V2,
        sequence: int = 0,
    ) -> None:
        self.version = version
        self.stale = 0
        self.sent_again = 0
        self.deframer = Deframer()
        self._clock = clock
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._line_free = 0.0
        self._next = sequence
        self._flights: dict[int, _Flight] = {}  # by sequence number
        self._outgoing: list[bytes] = []

    @property
    def in_flight(self) -> int:
        """Requests that wait for an answer."""
        return len(self._flights)

    def send(self, request: Request[Any], patience: Patience | None = None) -> int:
        """Put a request onto the line; the ticket its answer will bear. At most 255 at once."""
        ticket = self._next
        while ticket & 255 in self._flights:
            ticket += 1
        self._next = ticket + 1
        numbers = (int(request.OP), int(request.GROUP), request.COMMAND)
        frames = encode_frames(request.build(ticket & 255, self.version))
        if patience is None:
            patience = PATIENCE.get(numbers, QUICK)
        expected = (numbers[0] | 1, *numbers[1:])
        flight = _Flight(ticket, expected, type(request).__qualname__.lower(), frames, patience)
        self._flights[ticket & 255] = flight
        self._launch(flight)
        return ticket

    def forget(self, ticket: int) -> None:
        """What answers this request from now on is stale."""
        self._flights.pop(ticket & 255, None)

    def outgoing(self) -> bytes:
        """All bytes that are to be written now; they are handed over once."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def receive(self, data: bytes) -> list[Answer]:
        """The answers that `data` completes, in order of arrival."""
        answers = (self._match(message) for message in self.deframer.feed(data))
        return [answer for answer in answers if answer is not None]

    def deadline(self) -> float | None:
        """When `expired` has something to do; None while nothing is in flight."""
        return min((flight.deadline for flight in self._flights.values()), default=None)

    def expired(self) -> list[int]:
        """Send again what waits too long; the tickets of those that were sent often enough, which
        are given up."""
        now = self._clock()
        given_up = []
        for number, flight in list(self._flights.items()):
            if flight.deadline > now:
                continue
            if flight.tries >= flight.patience.tries:
                del self._flights[number]
                given_up.append(flight.ticket)
            else:
                self.sent_again += 1
                self._launch(flight)
        return given_up

    def _launch(self, flight: _Flight) -> None:
        flight.tries += 1
        self._outgoing.append(flight.frames)
        start = max(self._line_free, self._clock())
        self._line_free = flight.left = start + len(flight.frames) * self._seconds_per_byte
        flight.deadline = flight.left + flight.patience.wait(flight.tries)

    def _match(self, message: bytes) -> Answer | None:
        if len(message) < SIZE:
            self.stale += 1
            return None
        header = Header.unpack(message)
        flight = self._flights.get(header.sequence)
        if flight is None or (header.op, header.group, header.command) != flight.expected:
            self.stale += 1
            return None
        del self._flights[header.sequence]
        payload: dict[str, object] = {}
        error: SmpError | BadReply | None
        try:
            payload = split(message)[1]
            error = refusal(payload, flight.command)
        except BadPayload as why:
            error = BadReply(f"the answer to {flight.command} makes no sense: {why}")
        seconds = max(0.0, self._clock() - flight.left)
        return Answer(flight.ticket, payload, error, flight.tries, seconds)

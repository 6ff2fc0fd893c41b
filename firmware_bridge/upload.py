# SPDX-License-Identifier: Apache-2.0
"""Sending an image in chunks, several in flight, without I/O.

A genuine server handles requests in order and answers each with the offset at which it wants the
next byte; a chunk for another offset is dropped and answered all the same (img_mgmt.c). So an
answer also tells about all chunks before it, whose own answers are not waited for, and where the
offset is not the expected one we go back to it: go-back-N, as in TCP without selective
acknowledgement. Chunks are as long as the losses so far advise, so that a noisy line carries what
it can.

| phase   | in flight                      | an answer leads to                              |
| ------- | ------------------------------ | ----------------------------------------------- |
| ANEW    | first chunk without hash       | FIRST: what the server held of it is forgotten  |
| FIRST   | first chunk, with size, hash   | STREAM from the offset it names; DONE at the end |
| STREAM  | up to `window` chunks          | STREAM; FIRST if it names 0; DONE at the end    |
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from firmware_bridge.errors import BadReply, CardSilent, CardVanished, Garbled
from firmware_bridge.exchange import ERASING, Answer, Exchange, Patience
from firmware_bridge.smp.errors import MGMT_EBUSY, MGMT_ENOMEM, BadPayload, SmpError
from firmware_bridge.smp.header import SIZE
from firmware_bridge.smp.img import Upload, UploadReply

ALIGN = 8  # bytes; flash is written in such units
LEAST = 64  # bytes in a chunk, on the worst of lines
OPENING = 64  # bytes in the first chunk, which is sent as it is until it is answered
WINDOW = 8  # requests in flight, however many buffers the server has
OVERHEAD = 90  # bytes on the line for each chunk that are not its data: frames, headers, the answer
MEMORY = 0.9  # of earlier bytes and losses, at each loss
FORGET = 0.99  # what a loss still counts after each chunk that arrived
CROWDED = 4  # losses in a row, after which fewer are put into flight
ROUNDS = 5  # beginnings, before the line or the card is blamed
STALL = 20.0  # seconds without a new byte
_MAP = (
    1 + 4 + 5 + 5 + 3
)  # CBOR around a chunk: map, "off" and 32 bits, "data" and its 16-bit length
_AGAIN = "run the same command again: it goes on where it stopped"


class Phase(Enum):
    """See the table above."""

    ANEW = auto()
    FIRST = auto()
    STREAM = auto()
    DONE = auto()


@dataclass(slots=True)
class _Chunk:
    ticket: int
    end: int
    epoch: int


class Sending:
    """One upload. Feed it `answered` and `given_up`, and call `fill` before each wait.

    `message_limit`: bytes of header and payload that the server takes; `window`: requests it
    buffers; `anew`: begin at 0 even where the server holds a part of these very bytes."""

    def __init__(
        self,
        exchange: Exchange,
        clock: Callable[[], float],
        data: bytes,
        sha: bytes,
        *,
        message_limit: int,
        window: int,
        image: int | None = None,
        upgrade: bool | None = None,
        anew: bool = False,
    ) -> None:
        self.phase = Phase.ANEW if anew else Phase.FIRST
        self.offset = 0  # bytes that the server has
        self.resumed_at: int | None = None  # the offset of the first answer
        self.match: bool | None = None  # what the server says of the hash
        self.losses = 0
        self.rounds = 0
        self.window = max(1, min(window, WINDOW))
        self._exchange, self._clock = exchange, clock
        self._data, self._sha = data, sha
        self._image, self._upgrade = image, upgrade
        self._limit = message_limit
        self._most = max(LEAST, (message_limit - SIZE - _MAP) // ALIGN * ALIGN)
        self._size = self._most  # of a chunk
        self._next = 0  # offset of the next chunk
        self._epoch = 0
        self._flights: deque[_Chunk] = deque()
        self._sent = 0.0  # bytes that arrived or were the first to be lost, as far as remembered
        self._recent_losses = 0.0  # as far as remembered
        self._row = 0  # losses since a chunk arrived
        self._round_trip = 0.1  # seconds, smoothed; the spread is covered by RTO's factor
        self._backoff = 1.0
        self._progress_at = clock()
        self._heard_at: float | None = None

    @property
    def done(self) -> bool:
        return self.phase is Phase.DONE

    def fill(self) -> None:
        """Put as many chunks into flight as the window has room for."""
        if self.phase is not Phase.STREAM:
            if not self._flights and not self.done:
                self._send_first()
            return
        wait = min(2.0, (0.03 + 4 * self._round_trip) * self._backoff)
        patience = Patience(wait, 1.0, wait, 1)
        window = max(1, self.window - self._row // CROWDED)
        while len(self._flights) < window and self._next < len(self._data):
            end = min(self._next + self._size, len(self._data))
            request = Upload(self._next, self._data[self._next : end])
            self._fly(request, end, patience)

    def answered(self, answer: Answer) -> None:
        """An answer to one of this upload's tickets; others are ignored.

        Raises SmpError (the server refuses), Garbled, CardVanished."""
        chunk = self._land(answer.ticket)
        if chunk is None:
            return
        self._heard_at = self._clock()
        if answer.error is not None:
            self._failed(answer.error)
            return
        try:
            reply = UploadReply.from_map(answer.payload)
        except BadPayload:
            self._failed(BadReply("an answer to upload makes no sense"))
            return
        if answer.tries == 1 and self.phase is Phase.STREAM:
            self._round_trip += (answer.seconds - self._round_trip) / 8
        self._backoff = 1.0
        self._moved(chunk, reply)

    def given_up(self, ticket: int) -> None:
        """No answer came for that ticket. Raises CardSilent, CardVanished."""
        chunk = self._land(ticket)
        if chunk is None:
            return
        if self.phase is not Phase.STREAM:
            if self._heard_at is None:
                raise CardSilent("the card does not answer", "look at its power and the port")
            raise CardVanished(f"the card is silent since byte {self.offset}", _AGAIN)
        if chunk.epoch == self._epoch:
            self._backoff = min(8.0, self._backoff * 2)
            self._lost(self.offset)

    def _fly(self, request: Upload, end: int, patience: Patience) -> None:
        ticket = self._exchange.send(request, patience)
        self._flights.append(_Chunk(ticket, end, self._epoch))
        self._next = end

    def _send_first(self) -> None:
        """The chunk at 0: short, since it carries size and hash too and must get through."""
        sha = None if self.phase is Phase.ANEW else self._sha
        total = len(self._data)
        bare = Upload(0, b"", total, sha, self._image, self._upgrade)
        room = self._limit - SIZE - 2 - len(bare.build(0)) + SIZE
        end = min(total, max(32, min(room, OPENING) // ALIGN * ALIGN))
        request = Upload(0, self._data[:end], total, sha, self._image, self._upgrade)
        self._fly(request, end, ERASING)

    def _land(self, ticket: int) -> _Chunk | None:
        """The chunk of that ticket; those before it were handled or lost before it, so that they
        are no longer waited for."""
        if all(chunk.ticket != ticket for chunk in self._flights):
            return None
        while (chunk := self._flights.popleft()).ticket != ticket:
            self._exchange.forget(chunk.ticket)
        return chunk

    def _moved(self, chunk: _Chunk, reply: UploadReply) -> None:
        at = reply.off
        if at is None or not 0 <= at <= len(self._data):
            raise BadReply(f"the card wants byte {at} of {len(self._data)}")
        if self.phase is Phase.ANEW:
            self.phase, self._next = Phase.FIRST, 0
            return
        if self.resumed_at is None:
            self.resumed_at = 0 if at == chunk.end else at
        if at != self.offset:
            self._progress_at = self._clock()
        if at == len(self._data):
            self._finish(reply.match)
        elif at == 0:
            self._begin_again("has restarted")
        elif self.phase is Phase.FIRST:
            self.phase, self.offset, self._next = Phase.STREAM, at, at
        elif chunk.epoch == self._epoch:
            self.offset = at
            if at == chunk.end:
                self._arrived()
            else:
                self._lost(at)
        elif at > self.offset:
            self.offset = at

    def _finish(self, match: bool | None) -> None:
        if match is False:
            self._begin_again("received other bytes than were sent")
            return
        self.match = match
        self.offset = len(self._data)
        self.phase = Phase.DONE
        self._drop_flights()

    def _begin_again(self, why: str) -> None:
        self.rounds += 1
        if self.rounds >= ROUNDS:
            raise Garbled(
                f"the card {why}, {self.rounds} times in one upload",
                "look at the card's power and cable, or take a lower --baud",
            )
        self._drop_flights()
        self._epoch += 1
        self.phase = Phase.FIRST
        self.offset = self._next = 0

    def _drop_flights(self) -> None:
        for chunk in self._flights:
            self._exchange.forget(chunk.ticket)
        self._flights.clear()

    def _arrived(self) -> None:
        self._row = 0
        self._sent += self._size + OVERHEAD
        self._recent_losses *= FORGET
        self._fit()

    def _fit(self) -> None:
        """The chunk that wastes least. Where one byte in B is damaged, a chunk of s bytes costs its
        OVERHEAD, and is lost with a chance of about s / B: least for s = sqrt(OVERHEAD * B)."""
        if self._recent_losses < 0.01:
            self._size = self._most
            return
        best = math.sqrt(OVERHEAD * self._sent / self._recent_losses)
        self._size = int(max(LEAST, min(self._most, best))) // ALIGN * ALIGN

    def _lost(self, at: int) -> None:
        """Go back to `at`. Chunks of the old epoch in flight still fill the server's buffers, so
        they count for the window, and their answers say nothing new."""
        self.losses += 1
        self._row += 1
        self._sent = (self._sent + self._size + OVERHEAD) * MEMORY
        self._recent_losses = self._recent_losses * MEMORY + 1
        self._fit()
        self._epoch += 1
        self._next = at
        self._check_stall()

    def _failed(self, error: SmpError | BadReply) -> None:
        """A refusal ends the upload, unless it is one that passes."""
        passing = isinstance(error, BadReply) or (
            error.group is None and error.rc in (MGMT_ENOMEM, MGMT_EBUSY)
        )
        if not passing:
            raise error
        if self.phase is Phase.STREAM:
            self._lost(self.offset)
        else:
            self._check_stall()

    def _check_stall(self) -> None:
        silent = self._clock() - self._progress_at
        if silent > STALL:
            raise CardVanished(
                f"no byte arrived for {silent:.0f} s, at byte {self.offset} of {len(self._data)}",
                _AGAIN,
            )

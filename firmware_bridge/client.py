# SPDX-License-Identifier: Apache-2.0
"""A card's controller, as a person at the host sees it: one method for each thing it does.

Synchronous and for one thread. Every method may raise CardSilent, CardVanished, SmpError (the card
refuses, and says why), BadReply and BadPayload.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from firmware_bridge.errors import CardSilent, CardVanished
from firmware_bridge.exchange import Answer, Exchange, Patience
from firmware_bridge.port import BAUD, Port
from firmware_bridge.smp import attest, enumeration, faults, fs, img, os, settings, stat
from firmware_bridge.smp.errors import MGMT_ENOTSUP, SmpError
from firmware_bridge.smp.header import SIZE, V2
from firmware_bridge.smp.message import R, Request
from firmware_bridge.upload import Sending

DEFAULT_BUFFER = 384  # Zephyr's, where the parameters cannot be asked for
_FRAME = 4  # bytes of a buffer that a frame's length and CRC take
_FILE_CHUNK = 36  # CBOR around a chunk of a file, the name itself not counted
Progress = Callable[[int, int], None]  # bytes there, bytes in all


class Wire(Protocol):
    """What carries bytes: a Port, or a line in memory."""

    url: str
    bytes_per_second: float | None

    def transfer(self, outgoing: bytes | memoryview, timeout: float) -> tuple[int, bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Uploaded:
    """`resumed_at`: bytes that the card had already; `match`: whether it found the hash to be that
    of the file, None where it does not look; `losses`: how often a part was sent again."""

    size: int
    resumed_at: int
    match: bool | None
    losses: int
    seconds: float


class Controller:
    """A controller at the end of a wire, which it owns from now on."""

    def __init__(
        self,
        port: Wire,
        *,
        clock: Callable[[], float] = time.monotonic,
        version: int = V2,
        sequence: int | None = None,
    ) -> None:
        self.port = port
        self._clock = clock
        self.exchange = Exchange(
            clock,
            bytes_per_second=port.bytes_per_second,
            version=version,
            sequence=secrets.randbelow(256) if sequence is None else sequence,
        )
        self._unsent = memoryview(b"")
        self._parameters: os.ParametersReply | None = None

    @classmethod
    def open(cls, url: str, baud: int = BAUD) -> Self:
        """The controller at a serial device, a pty, socket:// or rfc2217://. PortBusy, NoPort."""
        return cls(Port(url, baud))

    def close(self) -> None:
        """Let go of the port."""
        self.port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, request: Request[R], patience: Patience | None = None) -> R:
        """Ask and wait; retransmission inside."""
        ticket = self.exchange.send(request, patience)
        while True:
            answers, given_up = self._turn()
            for answer in answers:
                if answer.ticket == ticket:
                    if answer.error is not None:
                        raise answer.error
                    return request.read_reply(answer.payload)
            if ticket in given_up:
                raise CardSilent(
                    f"{self.port.url}: nothing answers", "look at the card's power and the port"
                )

    # OS

    def echo(self, text: str) -> str:
        return self.call(os.Echo(text)).r

    def parameters(self) -> os.ParametersReply:
        """The server's buffers; asked for once."""
        if self._parameters is None:
            try:
                self._parameters = self.call(os.Parameters())
            except SmpError as error:
                if error.rc != MGMT_ENOTSUP:
                    raise
                self._parameters = os.ParametersReply(DEFAULT_BUFFER, 2)
        return self._parameters

    def reset(self, force: bool = False) -> None:
        """Have the controller restart. Sent once only: a second reset would end the trial of a new
        image. CardSilent means that it may have restarted or not; look at `images`."""
        self.call(os.Reset(force=1 if force else None))
        self._parameters = None

    def application_info(self, letters: str = "s") -> str:
        return self.call(os.Application(letters)).output

    def bootloader_info(self, query: str | None = None) -> os.BootloaderReply:
        return self.call(os.Bootloader(query))

    def datetime(self) -> str:
        return self.call(os.DateTimeRead()).datetime

    def set_datetime(self, text: str) -> None:
        self.call(os.DateTimeWrite(text))

    # images

    def images(self) -> tuple[img.Slot, ...]:
        return self.call(img.StateRead()).images

    def slot_info(self) -> tuple[img.ImageSlots, ...]:
        """How large slots are, which a server may not tell (SmpError, "not supported")."""
        return self.call(img.SlotInfo()).images

    def upload(
        self,
        data: bytes,
        sha: bytes | None = None,
        on_progress: Progress | None = None,
        resume: bool = True,
        *,
        image: int | None = None,
        upgrade: bool | None = None,
        window: int | None = None,
    ) -> Uploaded:
        """Put an image file into the second slot.

        `sha`: SHA-256 of `data`, computed if not given, by which the card knows an upload that was
        broken off; `resume` False begins anew; `window`: requests in flight, default what the card
        has buffers for. Raises Garbled too, and CardVanished when the card falls silent."""
        limits = self.parameters()
        start = self._clock()
        sending = Sending(
            self.exchange,
            self._clock,
            data,
            hashlib.sha256(data).digest() if sha is None else sha,
            message_limit=limits.buf_size - _FRAME,
            window=limits.buf_count - 1 if window is None else window,
            image=image,
            upgrade=upgrade,
            anew=not resume,
        )
        told = -1
        try:
            while not sending.done:
                sending.fill()
                answers, given_up = self._turn()
                for answer in answers:
                    sending.answered(answer)
                for ticket in given_up:
                    sending.given_up(ticket)
                if on_progress is not None and sending.offset != told:
                    told = sending.offset
                    on_progress(told, len(data))
        except (CardSilent, CardVanished) as error:
            raise type(error)(f"{self.port.url}: {error}", error.remedy) from error
        return Uploaded(
            len(data),
            sending.resumed_at or 0,
            sending.match,
            sending.losses,
            self._clock() - start,
        )

    def test(self, hash: bytes) -> tuple[img.Slot, ...]:
        """Run the image with that hash after the next reset, on trial."""
        return self.call(img.StateWrite(hash, False)).images

    def confirm(self, hash: bytes | None = None) -> tuple[img.Slot, ...]:
        """Keep the running image, or the one with that hash."""
        return self.call(img.StateWrite(hash, True)).images

    def erase(self, slot: int | None = None) -> None:
        """Empty slot 1, or another that is not in use."""
        self.call(img.Erase(slot))

    # telemetry, settings, files, groups

    def stats(self, group: str) -> dict[str, int]:
        return self.call(stat.Data(group)).fields

    def stat_groups(self) -> tuple[str, ...]:
        return self.call(stat.List()).stat_list

    def setting_get(self, name: str) -> bytes:
        return self.call(settings.Get(name)).val

    def setting_set(self, name: str, value: bytes) -> None:
        """Until the next reset, unless `settings_save` follows."""
        self.call(settings.Set(name, value))

    def setting_delete(self, name: str) -> None:
        self.call(settings.Delete(name))

    def settings_commit(self) -> None:
        self.call(settings.Commit())

    def settings_load(self) -> None:
        self.call(settings.Load())

    def settings_save(self, name: str | None = None) -> None:
        self.call(settings.Save(name))

    def file_read(self, name: str, on_progress: Progress | None = None) -> bytes:
        """The whole file."""
        chunk = self.call(fs.Read(0, name))
        size = chunk.len if chunk.len is not None else 0
        found = bytearray(chunk.data)
        while len(found) < size and chunk.data:
            if on_progress is not None:
                on_progress(len(found), size)
            chunk = self.call(fs.Read(len(found), name))
            found += chunk.data
        if on_progress is not None:
            on_progress(len(found), size)
        return bytes(found)

    def file_write(self, name: str, data: bytes, on_progress: Progress | None = None) -> None:
        """Write the file anew."""
        limit = self.parameters().buf_size - _FRAME - SIZE - _FILE_CHUNK - len(name.encode())
        at = 0
        while True:
            part = data[at : at + limit]
            at = self.call(fs.Write(at, part, name, len(data) if at == 0 else None)).off
            if on_progress is not None:
                on_progress(at, len(data))
            if at >= len(data):
                return

    def file_status(self, name: str) -> int:
        """Its size in bytes."""
        return self.call(fs.Status(name)).len

    def file_hash(self, name: str, kind: str = fs.SHA256) -> bytes | int:
        return self.call(fs.Hash(name, kind)).output

    def file_close(self) -> None:
        self.call(fs.Close())

    def groups(self) -> tuple[int, ...]:
        return self.call(enumeration.List()).groups

    # Tepi's own

    def attest(self, nonce: bytes, spki_sha256: bytes) -> attest.Attestation:
        """The card's proof, for the node whose key's SubjectPublicKeyInfo has that SHA-256."""
        return self.call(attest.Attest(nonce, spki_sha256))

    def fault_log(self, since: int = 0) -> list[faults.Fault]:
        """All faults with a number above `since`, oldest first."""
        found: list[faults.Fault] = []
        while True:
            page = self.call(faults.Log(since)).log
            newer = [fault for fault in page if fault.n > since]
            if not newer:
                return found
            found += newer
            since = max(fault.n for fault in newer)

    def _turn(self) -> tuple[list[Answer], list[int]]:
        """Move bytes once, at most until something must be sent again."""
        data = self.exchange.outgoing()
        if data:
            self._unsent = memoryview(bytes(self._unsent) + data)
        deadline = self.exchange.deadline()
        wait = 0.0 if deadline is None else max(0.0, deadline - self._clock())
        sent, got = self.port.transfer(self._unsent, wait)
        self._unsent = self._unsent[sent:]
        answers = self.exchange.receive(got) if got else []
        return answers, self.exchange.expired()

# SPDX-License-Identifier: Apache-2.0
"""A line in memory with a clock of its own, and a small server that can be told to misbehave."""

from collections.abc import Callable
from hashlib import sha256
from random import Random

from firmware_bridge.smp import img, os
from firmware_bridge.smp.framing import Deframer, encode_frames
from firmware_bridge.smp.message import Record, build_reply, split
from tests.firmware_bridge.commands import request_type


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class BitErrors:
    """Flips bits, each with that chance."""

    def __init__(self, chance: float, seed: int) -> None:
        self._chance = chance
        self._random = Random(seed)
        self.flipped = 0

    def __call__(self, data: bytes) -> bytes:
        if not self._chance:
            return data
        damaged = bytearray(data)
        at = -1
        while (at := at + 1 + int(self._random.expovariate(self._chance))) < len(data) * 8:
            damaged[at // 8] ^= 1 << at % 8
            self.flipped += 1
        return bytes(damaged)


class MemoryWire:
    """A Wire: `server` turns bytes into bytes; waiting in vain costs the clock's time only.

    `bytes_per_second`: what bytes cost of it; `noise`: what happens to them, both ways."""

    def __init__(
        self,
        server: Callable[[bytes], bytes],
        clock: Clock,
        noise: Callable[[bytes], bytes] = lambda data: data,
        bytes_per_second: float | None = None,
    ) -> None:
        self.url = "memory"
        self.bytes_per_second = bytes_per_second
        self.sent = bytearray()
        self.closed = False
        self._server, self._clock, self._noise = server, clock, noise
        self._waiting = b""

    def transfer(self, outgoing: bytes | memoryview, timeout: float) -> tuple[int, bytes]:
        data = bytes(outgoing)
        if data:
            self.sent += data
            if self.bytes_per_second:
                self._clock.now += len(data) / self.bytes_per_second
            self._waiting += self._noise(self._server(self._noise(data)))
        if not self._waiting:
            self._clock.now += timeout
        got, self._waiting = self._waiting, b""
        return len(data), got

    def close(self) -> None:
        self.closed = True


class SmallServer:
    """Echo, parameters and uploads, as a genuine server does them; what `plan` says, it does
    otherwise: request numbers from 1 with "lose" (the request), "mute" (its answer), "twice" (its
    answer), "late" (its answer comes before the next), "restart", "full" (rc 2)."""

    def __init__(
        self, *, buf_size: int = 512, buf_count: int = 4, plan: dict[int, str] | None = None
    ) -> None:
        self.parameters = os.ParametersReply(buf_size, buf_count)
        self.plan = plan or {}
        self.checks = True  # CONFIG_IMG_ENABLE_IMAGE_CHECK
        self.damage_once = False
        self.requests = 0
        self.most_at_once = 0
        self.received = b""  # the last upload that was completed
        self.starts = 0  # of uploads, from nothing
        self._deframer = Deframer(buf_size - 4)
        self._upload: tuple[int, bytes, bytearray] | None = None
        self._late = b""

    def __call__(self, data: bytes) -> bytes:
        out = b""
        messages = self._deframer.feed(data)
        self.most_at_once = max(self.most_at_once, len(messages))
        for message in messages:
            self.requests += 1
            out += self._handle(message, self.plan.get(self.requests, ""))
        return out

    def _handle(self, message: bytes, what: str) -> bytes:
        if what == "restart":
            self._upload = None
        if what in ("lose", "restart"):
            return b""
        header, payload = split(message)
        kind = request_type(header)
        if what == "full" or kind is None:
            return encode_frames(build_reply(header, {"rc": 2 if kind else 8}))
        reply = self._reply(kind.from_map(payload))
        frames = encode_frames(build_reply(header, reply))
        late, self._late = self._late, b""
        if what == "late":
            self._late = frames
            return late
        return late + frames * {"mute": 0, "twice": 2}.get(what, 1)

    def _reply(self, request: Record) -> Record | dict[str, object]:
        if isinstance(request, os.Echo):
            return os.EchoReply(request.d)
        if isinstance(request, os.Parameters):
            return self.parameters
        if isinstance(request, img.Upload):
            return self._chunk(request)
        return {"rc": 8}

    def _chunk(self, request: img.Upload) -> Record:
        if request.off == 0 and request.len is not None:
            sha = request.sha or b""
            if self.checks and sha and sha == sha256(self.received).digest():
                return img.UploadReply(len(self.received), True)
            if self._upload is None or not sha or self._upload[1] != sha:
                self._upload = (request.len, sha, bytearray())
                self.starts += 1
        if self._upload is None:
            return img.UploadReply(0)
        size, sha, data = self._upload
        if request.off != len(data):
            return img.UploadReply(len(data))
        data += request.data
        if len(data) < size:
            return img.UploadReply(len(data))
        self._upload = None
        if self.damage_once:
            self.damage_once = False
            data[size // 2] ^= 1
        self.received = bytes(data)
        return img.UploadReply(size, sha256(data).digest() == sha if self.checks else None)

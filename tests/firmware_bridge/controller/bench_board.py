# SPDX-License-Identifier: Apache-2.0
"""A small card for tests: slots of a few pages, the vendor's keys in memory, a clock that stands
still until it is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random
from typing import Any

from firmware_bridge.controller.controller import Controller
from firmware_bridge.controller.flash import PAGE, Flash, Layout
from firmware_bridge.controller.identity import factory_image, manufacture
from firmware_bridge.controller.injected import Injected
from firmware_bridge.controller.vendor import Vendor
from firmware_bridge.smp import cbor
from firmware_bridge.smp.framing import Deframer, encode_frames
from firmware_bridge.smp.header import SIZE, V2, Header, Op

NOW = 1_800_000_000.0
VENDOR = Vendor.new(lambda: NOW)
SMALL = Layout(slot=8 * PAGE)
SERIAL = "TC1-TEST"


class Refusal(AssertionError):
    """The controller answered an error that the test did not expect."""


def firmware(version: str, counter: int, pages: float = 3.5, **more: Any) -> bytes:
    """A signed image of so many pages."""
    body = Random(version).randbytes(int(pages * PAGE) - 0x300)
    return factory_image(VENDOR, version, counter, body=body, **more)


def blank(path: Path, layout: Layout = SMALL) -> Flash:
    """A card as it leaves the factory, firmware 1.0.0 with counter 1."""
    flash = Flash(path, layout)
    manufacture(flash, VENDOR, SERIAL, lambda: NOW, body=Random("1.0.0").randbytes(3 * PAGE))
    return flash


class Board:
    """A controller with power, and a host's end of its line."""

    def __init__(self, flash: Flash, injected: Injected | None = None) -> None:
        self.now = 0.0
        self.load = 0.0
        self.controller = Controller(
            flash,
            [VENDOR.image_key.public_key()],
            wall=lambda: NOW + self.now,
            load=lambda: self.load,
            injected=injected,
            reset_s=0.25,
        )
        self.sequence = 0

    def ask(
        self,
        group: int,
        command: int,
        payload: dict[str, object] | None = None,
        *,
        op: int = Op.READ,
        version: int = V2,
    ) -> dict[str, Any]:
        """The answer's map, whatever it is."""
        self.sequence = (self.sequence + 1) % 256
        data = cbor.encode(payload or {})
        header = Header(op, group, command, self.sequence, len(data), version)
        frames = self.controller.receive(encode_frames(header.pack() + data), self.now)
        (message,) = Deframer().feed(frames)
        answered = Header.unpack(message)
        assert (answered.sequence, answered.group, answered.command) == (
            self.sequence,
            group,
            command,
        )
        assert answered.op == op + 1
        return cbor.decode(message[SIZE:])

    def write(self, group: int, command: int, payload: dict[str, object]) -> dict[str, Any]:
        """A write that is to succeed."""
        answer = self.ask(group, command, payload, op=Op.WRITE)
        if answer.get("rc") or "err" in answer:
            raise Refusal(answer)
        return answer

    def upload(self, image: bytes, chunk: int = 1024) -> dict[str, Any]:
        """Upload as a client does, from wherever the controller is."""
        first = {"len": len(image), "sha": hashlib.sha256(image).digest(), "image": 0}
        answer = self.write(1, 1, {"off": 0, "data": image[:chunk], **first})
        while answer["off"] < len(image):
            at = answer["off"]
            answer = self.write(1, 1, {"off": at, "data": image[at : at + chunk]})
        return answer

    def images(self) -> list[dict[str, Any]]:
        """The state of both slots."""
        images: list[dict[str, Any]] = self.ask(1, 0)["images"]
        return images

    def active(self) -> bytes:
        """The hash of what runs."""
        (running,) = [image for image in self.images() if image["active"]]
        named: bytes = running["hash"]
        return named

    def reset(self) -> None:
        """Order a reset, and wait for it."""
        self.write(0, 5, {})
        self.now += 0.3
        self.controller.tick(self.now)

# SPDX-License-Identifier: Apache-2.0
"""Emulated controllers behind ptys, each in a thread of this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firmware_bridge.controller.controller import Controller
from firmware_bridge.controller.flash import Flash
from firmware_bridge.controller.identity import manufacture
from firmware_bridge.controller.injected import Injected
from firmware_bridge.controller.line import Line, Pty
from firmware_bridge.controller.vendor import CARD_CA, IMAGE_PUBLIC_KEY, Vendor
from tests.firmware_bridge.controller.bench_board import SMALL, VENDOR


@dataclass
class PtyCard:
    """A card that is there."""

    port: str
    controller: Controller

    @property
    def running(self) -> str:
        """The version of what runs."""
        return str(self.controller.image.version) if self.controller.image else ""


@contextmanager
def card_on_pty(
    folder: Path, serial: str, injected: Injected | None = None, vendor: Vendor = VENDOR
) -> Iterator[PtyCard]:
    """A card as it leaves the factory, behind the link `folder`/serial.mcu."""
    faults = injected or Injected()
    stop, told = socket.socketpair()
    with Flash(folder / f"{serial}.flash", SMALL) as flash, stop, told:
        manufacture(flash, vendor, serial, time.time)
        controller = Controller(
            flash,
            [vendor.image_key.public_key()],
            wall=time.time,
            now=time.monotonic(),
            injected=faults,
            reset_s=0.02,
        )
        link = folder / f"{serial}.mcu"
        line = Line(controller, lambda: Pty(link), faults, baud=None, clock=time.monotonic)
        thread = threading.Thread(target=line.run, args=(told.fileno(),), name=serial)
        thread.start()
        try:
            yield PtyCard(str(link), controller)
        finally:
            stop.send(b"x")
            thread.join()
            line.close()


def vendor_folder(folder: Path) -> Path:
    """The public half of the vendor's keys."""
    folder.mkdir()
    public = VENDOR.image_key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / IMAGE_PUBLIC_KEY).write_bytes(pem)
    (folder / CARD_CA).write_bytes(VENDOR.ca.public_bytes(Encoding.PEM))
    return folder

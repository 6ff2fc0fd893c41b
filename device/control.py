# SPDX-License-Identifier: Apache-2.0
"""The control socket of `tepi card serve`: faults to order, a line of JSON each way.

A request is {"plan": [...]} (device.binding.planned), {"remove_s": 1.5}: surprise removal for so
many seconds, or {"registers": true}, whose answer holds the card's registers and "busy_ns" of each
worker, for the card's management controller. Other answers are {"ok": true} or {"error": "…"}.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from device.binding.planned import PlannedFault, read_plan

LINE_BYTES = 1 << 16
SECONDS = 10.0
REMOVED_MOST = 3600.0


class Unreachable(OSError):
    """Nobody answers at the control socket; the message says what to do."""


class Served(Protocol):
    """What is used of device.binding.CardServer."""

    def plan_faults(self, plan: list[PlannedFault]) -> None:
        """Raises ValueError."""

    def detach(self) -> None:
        """Surprise removal."""

    def attach(self) -> None:
        """And its end."""


class _Removal:
    """Takes the card away and puts it back, by a timer."""

    def __init__(self, card: Served) -> None:
        self._card = card
        self._timer: threading.Timer | None = None

    def start(self, seconds: float) -> None:
        self.end()
        self._card.detach()
        self._timer = threading.Timer(seconds, self._card.attach)
        self._timer.start()

    def end(self) -> None:
        """Before the card goes: the timer must not touch it any more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            timer.join()
            self._card.attach()


Registers = Callable[[], dict[str, Any]]


def registers_at(kind: str) -> Registers:
    """What reads the registers of the card that Card.open knows by that name; it raises OSError
    while the card is away."""

    def read() -> dict[str, Any]:
        from device.binding import Card
        from device.errors import CardError

        try:
            with Card.open(kind) as card:
                return {**card.info, "busy_ns": card.busy_ns}
        except CardError as error:
            raise OSError(str(error)) from None

    return read


def _none() -> dict[str, Any]:
    raise ValueError("this card's registers are not told here")


@contextmanager
def served(path: Path | None, card: Served, registers: Registers = _none) -> Iterator[None]:
    """Answer at `path` while the block runs; None: nowhere. Raises OSError."""
    if path is None:
        yield
        return
    removal = _Removal(card)

    class Handler(socketserver.StreamRequestHandler):
        """One connection."""

        def handle(self) -> None:
            self.connection.settimeout(SECONDS)
            with suppress(OSError):
                while line := self.rfile.readline(LINE_BYTES):
                    answer = json.dumps(_answer(line, card, removal, registers))
                    self.wfile.write(answer.encode() + b"\n")

    if path.is_socket():
        path.unlink()
    mask = os.umask(0o177)
    try:
        server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
    finally:
        os.umask(mask)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="tepi-control")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        removal.end()
        path.unlink(missing_ok=True)


def _answer(line: bytes, card: Served, removal: _Removal, registers: Registers) -> dict[str, Any]:
    try:
        asked = json.loads(line)
        if not isinstance(asked, dict) or len(asked) != 1:
            raise ValueError("a request is an object with one field, plan, remove_s or registers")
        ((name, value),) = asked.items()
        if name == "plan":
            card.plan_faults(read_plan(json.dumps(value)))
        elif name == "remove_s":
            if type(value) not in (int, float) or not 0 <= value <= REMOVED_MOST:
                raise ValueError(f"remove_s must be 0 to {REMOVED_MOST:g} seconds, got {value!r}")
            removal.start(float(value))
        elif name == "registers":
            return {"ok": True, **registers()}
        else:
            raise ValueError(
                f"unknown request {name!r}; the requests are plan, remove_s and registers"
            )
    except (ValueError, OSError) as error:
        return {"error": str(error)}
    return {"ok": True}


def ask(path: Path, request: dict[str, Any]) -> None:
    """Send one request. Raises ValueError where it is refused, Unreachable."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(connection.makefile().readline() or "{}")
    except OSError as error:
        raise Unreachable(
            f"no card answers at {path} ({error.strerror or error}); "
            f"start one with `tepi card serve --control {path}`"
        ) from None
    if "error" in answer:
        raise ValueError(answer["error"])
    if "ok" not in answer:
        raise Unreachable(f"what listens at {path} is no card's control socket")

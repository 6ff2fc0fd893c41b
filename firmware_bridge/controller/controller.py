# SPDX-License-Identifier: Apache-2.0
"""A card's management controller, without I/O: bytes in, bytes out, and time passed in.

It boots from its flash as MCUboot would, answers SMP as Zephyr would, and watches over the card
that the telemetry models. Where no slot holds a firmware that may run, only what MCUboot's serial
recovery has answers: echo, reset, and images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from firmware_bridge.controller import dump
from firmware_bridge.controller.boot import Bootloader
from firmware_bridge.controller.faultlog import Code, FaultLog
from firmware_bridge.controller.flash import Flash
from firmware_bridge.controller.groups.fs import Files
from firmware_bridge.controller.groups.group import Group
from firmware_bridge.controller.groups.img import Images
from firmware_bridge.controller.groups.os import BUF_SIZE, System
from firmware_bridge.controller.groups.own import Attestation, Enumeration, Faults
from firmware_bridge.controller.groups.settings import Settings
from firmware_bridge.controller.groups.stat import Statistics
from firmware_bridge.controller.identity import Identity
from firmware_bridge.controller.injected import Injected
from firmware_bridge.controller.server import Server
from firmware_bridge.controller.telemetry import Card, Limits
from firmware_bridge.errors import BridgeError
from firmware_bridge.image import Image, PublicKey
from firmware_bridge.smp.framing import Deframer, encode_frames

RESET_S = 0.25
"""From the answer to a reset to the reset (CONFIG_MCUMGR_GRP_OS_RESET_MS)."""
_EVENTS = {
    "temperature": Code.OVER_TEMPERATURE,
    "power": Code.POWER_LIMITED,
    "fan": Code.FAN_FAILED,
}


class NotMade(BridgeError):
    """The flash holds no identity: this card never left the factory."""


class Wanted(Enum):
    """What the controller has its line do."""

    NOTHING = "nothing"
    VANISH = "vanish"


class Controller:
    """One controller with power on.

    keys: of whoever may sign its firmware. wall: seconds since 1970. load: how busy the card is,
    0 to 1. reset_s: from the answer to a reset to the reset. Raises NotMade.
    """

    def __init__(
        self,
        flash: Flash,
        keys: Sequence[PublicKey],
        *,
        wall: Callable[[], float],
        now: float = 0.0,
        load: Callable[[], float] = lambda: 0.0,
        injected: Injected | None = None,
        reset_s: float = RESET_S,
    ) -> None:
        identity = Identity.read(flash)
        if identity is None:
            raise NotMade(f"the flash {flash.path} has no identity", "make the card first")
        self.identity = identity
        self.flash = flash
        self.wanted = Wanted.NOTHING
        self.requests = 0
        self.boots = 0
        self._keys = keys
        self._wall = wall
        self._load = load
        self._injected = injected or Injected()
        self._reset_s = reset_s
        self._deframer = Deframer(BUF_SIZE - 4)
        self.log = FaultLog(flash, wall)
        self.card = Card(fan_stuck=self._injected.fan_stuck)
        self.image: Image | None = None
        self._start(now)

    def _start(self, now: float) -> None:
        """Power on, or a reset: all that is not in flash is forgotten."""
        self._now = self._started = self._asked = now
        self._reset_at: float | None = None
        self._wedged = False
        self.boots += 1
        self.log = FaultLog(self.flash, self._wall)
        boot = Bootloader(self.flash, self._keys, self.identity.board, self.log.add)
        self.image = boot.boot()
        self._deframer.reset()
        groups: list[Group] = [
            System(self._names(), self._order_reset, self._wall),
            Images(boot.slots, running=self.image is not None),
        ]
        self._server = Server(groups)
        if self.image is None:
            self.log.add(Code.RECOVERY, "no slot holds a firmware that may run")
        else:
            groups += [
                Statistics(self.statistics),
                Settings(self.flash, self.identity, self._set_limits),
                Files(lambda: dump.stored(self.flash)),
                Attestation(self.identity),
                Faults(self.log),
            ]
        self._server = Server([*groups, Enumeration(lambda: self._server.groups)])

    def _names(self) -> dict[str, str]:
        """What `os info` says, by uname's letters."""
        version = str(self.image.version) if self.image else "recovery"
        return {
            "s": "Tepi",
            "n": self.identity.serial,
            "r": version,
            "v": version,
            "b": "emulated",
            "m": "arm",
            "p": "cortex-m33",
            "i": f"{self.identity.board}/{self.identity.revision}",
            "o": "Zephyr",
        }

    def _set_limits(self, limits: Limits) -> None:
        self.card.limits = limits

    def _order_reset(self, _: bool) -> bool:
        self._reset_at = self._now + self._reset_s
        return True

    @property
    def due(self) -> float | None:
        """When `tick` is wanted at the latest."""
        return self._reset_at

    def tick(self, now: float) -> None:
        """Let time pass."""
        self._advance(now)
        if self._reset_at is not None and now >= self._reset_at:
            self._start(now)

    def _advance(self, now: float) -> None:
        passed, self._now = now - self._now, now
        if self.image is None:
            return
        self.card.load = min(max(self._load(), 0.0), 1.0)
        for event in self.card.advance(passed):
            self.log.add(_EVENTS[event.name], event.text)

    def statistics(self) -> dict[str, dict[str, int]]:
        """What STAT shows."""
        self._advance(self._now)
        counts = self.log.counts()
        last = self.log.entries[-1] if self.log.entries else {"n": 0, "code": 0, "t": 0}
        return {
            **self.card.statistics(),
            "fault": {
                "last_n": last["n"],
                "last_code": last["code"],
                "last_t": last["t"],
                **{code.name.lower(): count for code, count in counts.items()},
            },
            "system": {
                "uptime_ms": round((max(self._asked, self._now) - self._started) * 1000),
                "boots": self.boots,
                "requests": self.requests,
                "bad_frames": self._deframer.bad,
            },
        }

    def receive(self, data: bytes, now: float) -> bytes:
        """What the controller answers to bytes from the line, as bytes for the line."""
        self._asked = now
        if now - self._now > 0.1:
            self._advance(now)
        answers = []
        for message in self._deframer.feed(data):
            self.requests += 1
            if self._suffers():
                break
            answer = self._server.answer(message)
            if answer is not None:
                answers.append(encode_frames(answer))
        return b"".join(answers)

    def _suffers(self) -> bool:
        """Whether an injected fault swallows this request and what comes with it."""
        injected, count = self._injected, self.requests
        if injected.wedge_after is not None and count > injected.wedge_after:
            self._wedged = True
        if count == injected.assert_after:
            self.crash("injected assertion")
        elif count == injected.reset_after:
            self._start(self._now)
        elif count == injected.vanish_after:
            self.wanted = Wanted.VANISH
        else:
            return self._wedged
        return True

    def crash(self, reason: str) -> None:
        """The firmware asserts: it writes a dump, and resets."""
        version = str(self.image.version) if self.image else ""
        uptime = int(self._now - self._started)
        crash = dump.Crash(reason, int(self._wall()), uptime, version, self.card.statistics())
        dump.store(self.flash, crash.packed())
        self.log.add(Code.ASSERTED, reason)
        self._start(self._now)

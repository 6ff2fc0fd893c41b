# SPDX-License-Identifier: Apache-2.0
"""The link to one card over an update: a controller that restarts takes its port along, and brings
it back, perhaps under the same name only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from firmware_bridge.client import Controller
from firmware_bridge.errors import BadReply, BridgeError, CardSilent, CardVanished, NoPort, PortBusy
from firmware_bridge.smp.errors import BadPayload, SmpError
from firmware_bridge.update.errors import NotBack
from firmware_bridge.update.facts import read_slots
from firmware_bridge.update.steps import Slots

BACK_SECONDS: Final = 120.0  # a bootloader swaps 1 MiB of flash in some 20 s, and may do it twice
_PAUSE_SECONDS: Final = 0.1
_AGAIN_SECONDS: Final = 5.0  # a restart begins within half a second
_PASSING: Final = (
    BadPayload,
    BadReply,
    CardSilent,
    CardVanished,
    NoPort,
    PortBusy,
    SmpError,
    OSError,
)


class Line:
    """Opens the card's port when it is first asked for, and again when it has vanished."""

    def __init__(
        self,
        port: str,
        connect: Callable[[str], Controller],
        *,
        back_seconds: float = BACK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`connect` opens a port and gives a controller whose `close` closes it."""
        self.port = port
        self._connect = connect
        self._back_seconds = back_seconds
        self._clock = clock
        self._sleep = sleep
        self._controller: Controller | None = None

    def controller(self) -> Controller:
        """Raises PortBusy, NoPort."""
        if self._controller is None:
            self._controller = self._connect(self.port)
        return self._controller

    def slots(self) -> Slots:
        """What the card's slots hold now."""
        return read_slots(self.controller())

    def close(self) -> None:
        """The port is free for others; `controller` opens it again."""
        if self._controller is not None:
            controller, self._controller = self._controller, None
            controller.close()

    def reset(self) -> None:
        """Have the controller restart. Its answer may be lost with its port: whether it restarted
        is seen from its slots, by `wait_for`."""
        try:
            self.controller().reset()
        except (CardSilent, CardVanished):
            self.close()

    def wait_for(self, wanted: Callable[[Slots], bool]) -> Slots:
        """Ask until the slots are as wanted. A card that answers and has not restarted is told so
        again: its line may have lost that. Raises NotBack after `back_seconds`."""
        until = self._clock() + self._back_seconds
        again = self._clock() + _AGAIN_SECONDS
        while True:
            try:
                slots = self.slots()
                if wanted(slots):
                    return slots
                why = "it answers, and has not restarted"
                if self._clock() >= again:
                    self.reset()
                    again = self._clock() + _AGAIN_SECONDS
            except _PASSING as error:
                why = str(error)
                if isinstance(error, CardVanished | NoPort | OSError):
                    self.close()
            if self._clock() >= until:
                raise NotBack(
                    f"not back {self._back_seconds:.0f} s after it was told to restart: {why}",
                    "switch its power off and on: it boots what it ran before, or the new firmware "
                    "on trial; then run the same command again, which goes on from there",
                )
            self._sleep(_PAUSE_SECONDS)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        except BridgeError:
            self._controller = None

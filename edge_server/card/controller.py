# SPDX-License-Identifier: Apache-2.0
"""Watches the card's management controller: its readings go to metrics and `tepi card top`, its
thermal and power events let the card rest.

The card itself may run for seconds after the controller knows better; requests that go without it
meanwhile are answered all the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from device.errors import CardError
from edge_server import log
from edge_server.card.link import CardLink
from edge_server.clock import Clock
from edge_server.rpc import defect
from firmware_bridge.errors import BridgeError

PERIOD: Final = 1.0  # seconds between two looks
CALM: Final = 5  # looks without trouble after which the card is used again
_AWAY: Final = 5.0  # seconds until a controller that does not answer is asked again
_MARGIN: Final = 1.03  # by which a sensor may pass its limit while the controller throttles
_KEPT: Final = 20  # entries of its fault log
_WHO: Final = "controller"
OPERATOR: Final = "operator"
"""Who withholds a card that was drained. Its controller is left alone then: it may be flashed."""


class ControllerFault(NamedTuple):
    """An entry of the controller's log. `t`: seconds since 1970; `event`: a name of
    firmware_bridge, such as OVER_TEMPERATURE."""

    number: int
    t: int
    event: str
    info: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What the controller says. `sensors`: "group.sensor_unit", for example "temp.core_c".
    `limits`: what a sensor may not exceed, by the same names."""

    serial: str
    firmware: str
    sensors: Mapping[str, float]
    limits: Mapping[str, float]
    faults: Sequence[ControllerFault] = ()


class ControllerLike(Protocol):
    """A controller's line."""

    def read(self, since: int) -> Reading:
        """Everything, with the faults after that number. Raises BridgeError; may take seconds."""


_UNITS: Final = {"c": "°C", "w": "W", "v": "V", "mhz": "MHz"}
TROUBLE: Final = frozenset({"OVER_TEMPERATURE", "POWER_LIMITED", "FAN_FAILED"})
"""Events of its log that the card rests for."""


@dataclass(slots=True)
class ControllerView:
    """What the rest of the server sees of it."""

    port: str
    error: str = "not asked yet"
    reading: Reading | None = None
    faults: deque[ControllerFault] = field(default_factory=lambda: deque(maxlen=_KEPT))
    looks_failed: int = 0


class ControllerWatch:
    """Looks at one controller for as long as the server runs. Lives on the event loop."""

    def __init__(
        self,
        port: str,
        line: ControllerLike,
        link: CardLink,
        clock: Clock,
    ) -> None:
        self.view = ControllerView(port)
        self._line = line
        self._link = link
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._seen = -1  # number of the newest entry; those from before the start are old news
        self._calm = 0
        self._relief: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.ensure_future(self._watch())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._relief is not None:
            self._relief.cancel()

    async def _watch(self) -> None:
        while True:
            if OPERATOR in self._link.withheld:
                self.view.error, self.view.reading = "left alone while the card is drained", None
                await self._clock.sleep(PERIOD)
                continue
            try:
                reading = await self._link.call(self._look)
            except BridgeError as error:
                self._lost(error)
                await self._clock.sleep(_AWAY)
                continue
            except Exception:
                defect("controller")
                await self._clock.sleep(_AWAY)
                continue
            self._take(reading)
            await self._clock.sleep(PERIOD)

    def _look(self) -> Reading:
        return self._line.read(max(self._seen, 0))

    def _lost(self, error: BridgeError) -> None:
        """It is silent: that is no reason to leave a card that answers."""
        view = self.view
        view.looks_failed += 1
        if view.error != str(error):
            log.warning(
                "controller does not answer", port=view.port, reason=error, remedy=error.remedy
            )
        view.error, view.reading = str(error), None

    def _take(self, reading: Reading) -> None:
        view = self.view
        if view.error:
            log.info("controller answers", port=view.port, serial=reading.serial)
        view.error, view.reading = "", reading
        first = self._seen < 0
        fresh = [] if first else list(reading.faults)
        view.faults.extend(reading.faults)
        self._seen = max([self._seen, 0, *(fault.number for fault in reading.faults)])
        for fault in fresh:
            log.warning("controller fault", port=view.port, fault=fault.event, info=fault.info)
        self._judge(trouble(reading, fresh))

    def _judge(self, why: str) -> None:
        """Rest at once, be used again once it has been calm for a while."""
        self._calm = 0 if why else self._calm + 1
        if why:
            self._link.withhold(_WHO, why)
        elif _WHO in self._link.withheld and self._calm >= CALM:
            self._relief = asyncio.ensure_future(self._relieve())

    async def _relieve(self) -> None:
        try:
            await self._link.relieve(_WHO)
        except CardError as error:  # its supervisor goes on by itself
            log.info("card does not come back yet", reason=error)


def trouble(reading: Reading, fresh: Sequence[ControllerFault] = ()) -> str:
    """Why a card with this reading and these new faults is to rest; empty where it is well."""
    for name, limit in reading.limits.items():
        value = reading.sensors.get(name)
        if value is not None and value > limit * _MARGIN:
            sensor, _, unit = name.rpartition("_")
            unit = _UNITS.get(unit, unit)
            return f"its controller reads {value:.1f} {unit} at {sensor}; the limit is {limit:g}"
    for fault in fresh:
        if fault.event in TROUBLE:
            info = f": {fault.info}" if fault.info else ""
            return f"its controller reports {fault.event}{info}"
    return ""

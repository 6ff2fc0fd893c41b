# SPDX-License-Identifier: Apache-2.0
"""A physical model of the card: heat, power, clocks, voltages and a fan, driven by its load.

Two lumped thermal nodes. The constants are of no card that exists; the behaviour is that of all:
temperature follows power with inertia, the fan follows temperature, the clock falls where a limit
is met, and a card whose fan stands still throttles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_STEP = 0.1  # seconds
_STEPS_MOST = 6000  # ten minutes: then everything has settled
AMBIENT = 25.0  # degrees Celsius
CLOCK_MOST = 1200.0  # MHz
CLOCK_LEAST = 300.0
MEMORY_CLOCK = 1600.0
FAN_MOST = 6000.0  # rpm
_IDLE_W = 9.0
_BUSY_W = 61.0
"""What full load adds at the highest clock."""
_LEAK_W = 0.05
"""Watts that each degree over 40 adds."""
_DIE_JK = 30.0
_BOARD_JK = 220.0
_DIE_TO_BOARD = 4.0  # W/K
_FAN_WK = (0.4, 2.2)
"""Board to air: without a fan, and what the whole fan adds."""
_FAN_TARGET = 55.0
_FAN_GAIN = 4.0  # percent per degree
_FAN_LAG = 1.5  # seconds
_FAN_DEAD = 3.0  # seconds at a standstill until it is a fault
_RAMP = 60.0  # MHz per second
_HYSTERESIS = 3.0


@dataclass
class Limits:
    """What the settings hold the card to."""

    power_w: float = 75.0
    temp_c: float = 90.0
    fan_min_pct: float = 20.0


@dataclass
class Event:
    """A limit that was met, or a part that failed; told once until it has passed."""

    name: str
    text: str


@dataclass
class Card:
    """The state of the model. `load` is 0 to 1; `fan_stuck` is a fault to inject."""

    limits: Limits = field(default_factory=Limits)
    load: float = 0.0
    fan_stuck: bool = False
    die: float = AMBIENT + 12
    board: float = AMBIENT + 8
    clock: float = CLOCK_MOST
    watts: float = _IDLE_W
    joules: float = 0.0
    duty: float = 20.0
    rpm: float = FAN_MOST * 0.2
    seconds: float = 0.0
    throttled: float = 0.0
    """Seconds below the highest clock."""
    _still: float = 0.0
    _told: set[str] = field(default_factory=set)
    _left: float = 0.0

    def advance(self, seconds: float) -> list[Event]:
        """Let time pass. A long time is cut to what matters."""
        events: list[Event] = []
        self._left += max(seconds, 0.0)
        steps = int(self._left / _STEP)
        self._left -= steps * _STEP
        for _ in range(min(steps, _STEPS_MOST)):
            self._step()
            self._watch(events)
        return events

    def _demand(self) -> float:
        """Watts at a clock: dynamic power goes with f V², leakage with heat."""
        speed = self.clock / CLOCK_MOST
        dynamic = _BUSY_W * self.load * speed * (self.core_volts / 0.9) ** 2
        return _IDLE_W + dynamic + _LEAK_W * max(self.die - 40, 0)

    def _step(self) -> None:
        self.seconds += _STEP
        self.watts = self._demand()
        self.joules += self.watts * _STEP
        to_board = (self.die - self.board) * _DIE_TO_BOARD
        air = _FAN_WK[0] + _FAN_WK[1] * self.rpm / FAN_MOST
        self.die += (self.watts - to_board) * _STEP / _DIE_JK
        self.board += (to_board - (self.board - AMBIENT) * air) * _STEP / _BOARD_JK
        asked = self.limits.fan_min_pct + _FAN_GAIN * (self.die - _FAN_TARGET)
        self.duty = min(max(asked, self.limits.fan_min_pct), 100.0)
        wanted = 0.0 if self.fan_stuck else FAN_MOST * self.duty / 100
        self.rpm += (wanted - self.rpm) * min(_STEP / _FAN_LAG, 1)
        hot = self.die > self.limits.temp_c
        ramp = -_RAMP if hot or self.watts > self.limits.power_w else _RAMP / 4
        self.clock = min(max(self.clock + ramp * _STEP, CLOCK_LEAST), CLOCK_MOST)
        self.throttled += _STEP if self.clock < CLOCK_MOST - 1 else 0
        self._still = self._still + _STEP if self.rpm < 100 else 0.0

    def _watch(self, events: list[Event]) -> None:
        limits = self.limits
        die, watts = self.die, self.watts
        self._event(
            events,
            "temperature",
            die > limits.temp_c,
            die < limits.temp_c - _HYSTERESIS,
            f"{die:.0f} °C, the limit is {limits.temp_c:.0f}",
        )
        self._event(
            events,
            "power",
            watts > limits.power_w,
            watts < limits.power_w - _HYSTERESIS,
            f"{watts:.0f} W, the limit is {limits.power_w:.0f}",
        )
        self._event(
            events,
            "fan",
            self._still > _FAN_DEAD,
            self.rpm > 100,
            f"the fan stands still at {self.duty:.0f} % duty",
        )

    def _event(self, events: list[Event], name: str, begins: bool, ends: bool, text: str) -> None:
        if begins and name not in self._told:
            self._told.add(name)
            events.append(Event(name, text))
        elif ends:
            self._told.discard(name)

    @property
    def core_volts(self) -> float:
        """The core's voltage follows its clock."""
        return 0.65 + 0.25 * self.clock / CLOCK_MOST

    def _ripple(self, share: float, rate: float) -> float:
        return 1 + share * math.sin(self.seconds * rate)

    def statistics(self) -> dict[str, dict[str, int]]:
        """The groups that STAT shows: whole numbers, units in their names."""
        droop = 1 - 0.0008 * self.watts
        return {
            "temp": {
                "die_mc": round(self.die * 1000),
                "board_mc": round(self.board * 1000),
                "vrm_mc": round((self.board + 0.18 * self.watts) * 1000),
                "limit_mc": round(self.limits.temp_c * 1000),
            },
            "power": {
                "card_mw": round(self.watts * 1000),
                "limit_mw": round(self.limits.power_w * 1000),
                "energy_mj": round(self.joules * 1000),
            },
            "clock": {
                "core_khz": round(self.clock * 1000),
                "core_max_khz": round(CLOCK_MOST * 1000),
                "memory_khz": round(MEMORY_CLOCK * 1000),
                "throttled_ms": round(self.throttled * 1000),
                "load_permille": round(self.load * 1000),
            },
            "volt": {
                "core_mv": round(self.core_volts * 1000 * self._ripple(0.004, 6.1)),
                "memory_mv": round(1100 * self._ripple(0.003, 4.7)),
                "aux_mv": round(3300 * self._ripple(0.002, 3.3)),
                "input_mv": round(12000 * droop * self._ripple(0.002, 2.9)),
            },
            "fan": {
                "rpm": round(self.rpm),
                "duty_permille": round(self.duty * 10),
            },
        }

# SPDX-License-Identifier: Apache-2.0
"""A controller's serial line as the watch sees it: statistics as sensors and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge_server.card.controller import ControllerFault, Reading
from firmware_bridge.client import Controller
from firmware_bridge.controller.faultlog import Code
from firmware_bridge.smp.errors import SmpError
from firmware_bridge.smp.faults import Fault

_SCALED: Final = {
    "mc": ("c", 1e-3),  # degrees Celsius
    "mw": ("w", 1e-3),
    "mj": ("j", 1e-3),
    "mv": ("v", 1e-3),
    "khz": ("mhz", 1e-3),
    "ms": ("s", 1e-3),
    "permille": ("pct", 0.1),
}
_LIMITED: Final = {"temp.limit_c": "temp.die_c", "power.limit_w": "power.card_w"}
"""The sensor that each limit is for."""


def sensors_of(stats: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Fields of statistics groups as "group.sensor_unit", in plain units; "group.unit" where the
    group has one sensor of a kind, as the fan."""
    found = {}
    for group, fields in stats.items():
        for name, value in fields.items():
            sensor, underscore, unit = name.rpartition("_")
            plain, factor = _SCALED.get(unit, (unit, 1.0))
            found[f"{group}.{sensor}{underscore}{plain}"] = round(value * factor, 6)
    return found


def fault_of(entry: Fault) -> ControllerFault:
    """An entry of its log, with the event by name."""
    names = {int(code): code.name for code in Code}
    event = names.get(entry.code, "") if isinstance(entry.code, int) else ""
    event = event or f"CODE_{entry.code}"
    return ControllerFault(entry.n, entry.t, event, str(entry.info or ""))


class SmpLine:
    """See edge_server.card.controller.ControllerLike. The port is open for a look only, some ten
    milliseconds of each second: `tepi card flash` and its like get it meanwhile."""

    def __init__(self, port: str) -> None:
        self._port = port

    def read(self, since: int) -> Reading:
        """See ControllerLike."""
        with Controller.open(self._port) as card:
            groups = (group for group in card.stat_groups() if group != "fault")
            sensors = sensors_of({group: card.stats(group) for group in groups})
            limits = {s: sensors.pop(limit) for limit, s in _LIMITED.items() if limit in sensors}
            running = next((slot.version for slot in card.images() if slot.active), "")
            faults = [fault_of(entry) for entry in card.fault_log(since)]
            return Reading(_text(card, "id/serial"), running, sensors, limits, faults)


def _text(card: Controller, name: str) -> str:
    try:
        return card.setting_get(name).decode(errors="replace")
    except SmpError:
        return ""  # a controller of somebody else's

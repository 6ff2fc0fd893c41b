# SPDX-License-Identifier: Apache-2.0
"""Group 2, statistics: the card's telemetry, which stock clients can read (Zephyr's stat_mgmt)."""

from __future__ import annotations

from collections.abc import Callable

from firmware_bridge.controller.groups.group import Group, Payload, need
from firmware_bridge.smp import stat
from firmware_bridge.smp.header import Op


class Statistics(Group):
    """now: all groups as they are at this moment."""

    number = stat.Data.GROUP
    name = "stat mgmt"
    v1 = {2: 5, 3: 5, 4: 3}  # noqa: RUF012

    def __init__(self, now: Callable[[], dict[str, dict[str, int]]]) -> None:
        super().__init__()
        self._now = now
        self.handlers = {(Op.READ, 0): self._data, (Op.READ, 1): self._list}

    def _data(self, payload: Payload) -> Payload:
        name = need(payload, "name", str)
        fields = self._now().get(name)
        if fields is None:
            raise self.refused(stat.ERR_INVALID_GROUP)
        return {"name": name, "fields": fields}

    def _list(self, _: Payload) -> Payload:
        return {"stat_list": list(self._now())}

# SPDX-License-Identifier: Apache-2.0
"""Group 0: echo, clock, reset, parameters, names (Zephyr's os_mgmt)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from firmware_bridge.controller.groups.group import Group, Payload, Refused, need, take
from firmware_bridge.smp import os as osmgmt
from firmware_bridge.smp.errors import MGMT_EBUSY
from firmware_bridge.smp.header import Op

BUF_SIZE = 2048
"""Bytes of a request or answer with its length and CRC; a message has at most 4 fewer."""
BUF_COUNT = 4
_SWAP_USING_SCRATCH = 1
_FORMATS = "snrvbmpio"


class System(Group):
    """The controller itself.

    names: what `format` letters stand for. reset: orders a reset; False refuses as busy.
    clock: seconds since 1970.
    """

    number = osmgmt.Echo.GROUP
    name = "os mgmt"

    def __init__(
        self,
        names: dict[str, str],
        reset: Callable[[bool], bool],
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self._names = names
        self._reset_order = reset
        self._clock = clock
        self._ahead: float | None = None
        self.handlers = {
            (Op.READ, 0): self._echo,
            (Op.WRITE, 0): self._echo,
            (Op.READ, 4): self._time,
            (Op.WRITE, 4): self._set_time,
            (Op.WRITE, 5): self._reset,
            (Op.READ, 6): lambda _: {"buf_size": BUF_SIZE, "buf_count": BUF_COUNT},
            (Op.READ, 7): self._application,
            (Op.READ, 8): self._bootloader,
        }

    def _echo(self, payload: Payload) -> Payload:
        return {"r": need(payload, "d", str)}

    def _time(self, _: Payload) -> Payload:
        if self._ahead is None:
            raise self.refused(osmgmt.ERR_RTC_NOT_SET)
        now = datetime.fromtimestamp(self._clock() + self._ahead, UTC)
        return {"datetime": now.strftime("%Y-%m-%dT%H:%M:%S")}

    def _set_time(self, payload: Payload) -> Payload:
        text = need(payload, "datetime", str)
        try:
            asked = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError:
            raise self.refused(osmgmt.ERR_INVALID_FORMAT) from None
        self._ahead = asked.timestamp() - self._clock()
        return {}

    def _reset(self, payload: Payload) -> Payload:
        if not self._reset_order(bool(payload.get("force"))):
            raise Refused(None, MGMT_EBUSY)
        return {}

    def _application(self, payload: Payload) -> Payload:
        """Fields come in their own order, whatever the order of the letters."""
        asked = take(payload, "format", str) or "s"
        if set(asked) - set(_FORMATS + "a"):
            raise self.refused(osmgmt.ERR_INVALID_FORMAT)
        wanted = _FORMATS if "a" in asked else asked
        return {"output": " ".join(self._names[key] for key in _FORMATS if key in wanted)}

    def _bootloader(self, payload: Payload) -> Payload:
        query = take(payload, "query", str)
        if not query:
            return {"bootloader": "MCUboot"}
        if query == "mode":
            return {"mode": _SWAP_USING_SCRATCH, "no-downgrade": True}
        raise self.refused(osmgmt.ERR_NO_ANSWER)

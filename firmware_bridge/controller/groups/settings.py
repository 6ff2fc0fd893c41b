# SPDX-License-Identifier: Apache-2.0
"""Group 3, settings: limits that may be set, and names that may be read (Zephyr's settings_mgmt).

Numbers are u32, little endian, 4 bytes, as firmware keeps them; names are UTF-8; the certificate is
DER. What is set counts at once and outlasts a reset once it is saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cbor2

from firmware_bridge.controller.boot import SecurityCounter
from firmware_bridge.controller.flash import Flash
from firmware_bridge.controller.groups.group import Group, Payload, Refused, need, take
from firmware_bridge.controller.identity import Identity
from firmware_bridge.controller.records import Records
from firmware_bridge.controller.telemetry import Limits
from firmware_bridge.smp import settings
from firmware_bridge.smp.errors import MGMT_EINVAL
from firmware_bridge.smp.header import Op

NAME_MOST = 32
VALUE_MOST = 1024
_NUMBER_BYTES = 4


@dataclass(frozen=True)
class Number:
    """A setting that is a number: what it is at first, and what it may be."""

    default: int
    least: int
    most: int


NUMBERS = {
    "limit/power_w": Number(75, 15, 90),
    "limit/temp_c": Number(90, 50, 105),
    "fan/min_pct": Number(20, 0, 100),
}


def _latest(records: list[bytes]) -> Iterable[bytes]:
    """One record for each name that has a value."""
    kept = {}
    for record in records:
        name, value = cbor2.loads(record)
        kept[name] = (record, value)
    return [record for record, value in kept.values() if value is not None]


class Settings(Group):
    """changed: is told the limits whenever they may have changed."""

    number = settings.Get.GROUP
    name = "settings mgmt"
    v1 = {2: 3, 3: 5, 4: 5}  # noqa: RUF012  settings_mgmt_translate_error_code

    def __init__(self, flash: Flash, identity: Identity, changed: Callable[[Limits], None]) -> None:
        super().__init__()
        self._records = Records(flash, flash.layout.settings, _latest)
        self._changed = changed
        self._fixed = {
            "id/serial": identity.serial.encode(),
            "id/board": identity.board.encode(),
            "id/revision": identity.revision.encode(),
            "id/cert": identity.certificate,
            "id/counter": SecurityCounter(flash).value.to_bytes(_NUMBER_BYTES, "little"),
        }
        self._values: dict[str, int] = {}
        self._load({})
        self.handlers = {
            (Op.READ, 0): self._get,
            (Op.WRITE, 0): self._set,
            (Op.WRITE, 1): self._delete,
            (Op.WRITE, 2): lambda _: {},
            (Op.READ, 3): self._load,
            (Op.WRITE, 3): self._save,
        }

    def _stored(self) -> dict[str, int]:
        stored = dict(map(cbor2.loads, self._records.all))
        return {name: value for name, value in stored.items() if value is not None}

    def _tell(self) -> None:
        power, temperature, fan = (self._values[name] for name in NUMBERS)
        self._changed(Limits(power, temperature, fan))

    def _name(self, payload: Payload, known: Iterable[str]) -> str:
        name = need(payload, "name", str)
        if not name:
            raise Refused(None, MGMT_EINVAL)
        if len(name.encode()) >= NAME_MOST:
            raise self.refused(settings.ERR_KEY_TOO_LONG)
        if name in known:
            return name
        roots = {setting.split("/")[0] for setting in (*NUMBERS, *self._fixed)}
        if name.split("/")[0] not in roots:
            raise self.refused(settings.ERR_ROOT_KEY_NOT_FOUND)
        if name in self._fixed:
            raise self.refused(settings.ERR_WRITE_NOT_SUPPORTED)
        raise self.refused(settings.ERR_KEY_NOT_FOUND)

    def _get(self, payload: Payload) -> Payload:
        """A value that is longer than was asked for is cut, as settings_runtime_get cuts it."""
        name = self._name(payload, (*NUMBERS, *self._fixed))
        asked = take(payload, "max_size", int)
        value = self._fixed.get(name)
        if value is None:
            value = self._values[name].to_bytes(_NUMBER_BYTES, "little")
        if asked is None or asked <= VALUE_MOST:
            return {"val": value[: VALUE_MOST if asked is None else asked]}
        return {"val": value[:VALUE_MOST], "max_size": VALUE_MOST}

    def _set(self, payload: Payload) -> Payload:
        name = self._name(payload, NUMBERS)
        raw = need(payload, "val", bytes)
        value = int.from_bytes(raw, "little")
        number = NUMBERS[name]
        if len(raw) != _NUMBER_BYTES or not number.least <= value <= number.most:
            raise Refused(None, MGMT_EINVAL)
        self._values[name] = value
        self._tell()
        return {}

    def _delete(self, payload: Payload) -> Payload:
        """Back to the default, in flash too."""
        name = self._name(payload, NUMBERS)
        if name in self._stored():
            self._records.add(cbor2.dumps([name, None]))
        self._values[name] = NUMBERS[name].default
        self._tell()
        return {}

    def _load(self, _: Payload) -> Payload:
        self._values = {name: number.default for name, number in NUMBERS.items()}
        self._values.update(self._stored())
        self._tell()
        return {}

    def _save(self, payload: Payload) -> Payload:
        """Only what differs from what is stored wears the flash."""
        only = self._name(payload, NUMBERS) if "name" in payload else None
        stored = self._stored()
        for name, number in NUMBERS.items():
            value = self._values[name]
            if only in (None, name) and stored.get(name, number.default) != value:
                self._records.add(cbor2.dumps([name, value]))
        return {}

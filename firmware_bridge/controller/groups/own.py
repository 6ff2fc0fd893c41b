# SPDX-License-Identifier: Apache-2.0
"""Groups that only list or sign: enumeration (10), attestation (65), the fault log (66)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cbor2

from firmware_bridge.controller.faultlog import FaultLog
from firmware_bridge.controller.groups.group import Group, Payload, Refused, need, take
from firmware_bridge.controller.groups.os import BUF_SIZE
from firmware_bridge.controller.identity import Identity
from firmware_bridge.smp import attest, enumeration, faults
from firmware_bridge.smp.errors import MGMT_EINVAL
from firmware_bridge.smp.header import Op

_SPKI_BYTES = 32
_LOG_BYTES = BUF_SIZE - 64


class Enumeration(Group):
    """groups: all that the server has, this one too, by their numbers."""

    number = enumeration.Count.GROUP
    name = "enum mgmt"

    def __init__(self, groups: Callable[[], Mapping[int, Group]]) -> None:
        super().__init__()
        self._groups = groups
        self.handlers = {
            (Op.READ, 0): lambda _: {"count": len(groups())},
            (Op.READ, 1): lambda _: {"groups": sorted(groups())},
            (Op.READ, 2): self._single,
            (Op.READ, 3): self._details,
        }

    def _single(self, payload: Payload) -> Payload:
        index = take(payload, "index", int) or 0
        numbers = sorted(self._groups())
        if index >= len(numbers):
            raise self.refused(enumeration.ERR_INDEX_TOO_LARGE)
        answer: Payload = {"group": numbers[index]}
        return {**answer, "end": True} if index + 1 == len(numbers) else answer

    def _details(self, payload: Payload) -> Payload:
        """handlers: the highest command and those below it, as Zephyr counts them."""
        asked = take(payload, "groups", list)
        return {
            "groups": [
                {
                    "group": number,
                    "name": group.name,
                    "handlers": 1 + max(command for _, command in group.handlers),
                }
                for number, group in sorted(self._groups().items())
                if asked is None or number in asked
            ]
        }


class Attestation(Group):
    """The card proves itself to a node."""

    number = attest.Attest.GROUP
    name = "tepi attest"

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._identity = identity
        self.handlers = {(Op.READ, 0): self._attest}

    def _attest(self, payload: Payload) -> Payload:
        nonce = need(payload, "nonce", bytes)
        spki = need(payload, "spki", bytes)
        if len(spki) != _SPKI_BYTES:
            raise Refused(None, MGMT_EINVAL)
        if len(nonce) not in attest.NONCE:
            raise self.refused(attest.ERR_NONCE)
        signature = self._identity.attest(nonce, spki)
        return {"sig": signature, "cert": self._identity.certificate}


class Faults(Group):
    """The fault log, as much of it as an answer takes, oldest first."""

    number = faults.Log.GROUP
    name = "tepi faults"

    def __init__(self, log: FaultLog) -> None:
        super().__init__()
        self._log = log
        self.handlers = {(Op.READ, 0): self._entries}

    def _entries(self, payload: Payload) -> Payload:
        left = _LOG_BYTES
        entries = []
        for entry in self._log.since(take(payload, "since", int) or 0):
            left -= len(cbor2.dumps(entry))
            if left < 0:
                break
            entries.append(entry)
        return {"log": entries}

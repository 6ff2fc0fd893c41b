# SPDX-License-Identifier: Apache-2.0
"""Requests in, answers out, as Zephyr's smp.c dispatches them.

Answers are maps of indefinite length, as Zephyr's encoder writes them. A group's error is told in
version 2; a request in version 1 gets the shared number that stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable

import cbor2

from firmware_bridge.controller.groups.group import Group, Payload, Refused
from firmware_bridge.smp import cbor
from firmware_bridge.smp.errors import (
    MGMT_EINVAL,
    MGMT_ENOTSUP,
    MGMT_TOO_NEW,
    BadPayload,
)
from firmware_bridge.smp.header import SIZE, V1, V2, Header, Op

_UNKNOWN = 1
_CORRUPT = 9
_SHORT_MAP = 0xB7  # a map of at most 23 pairs has a head of one byte
_INDEFINITE = b"\xbf"
_BREAK = b"\xff"


class Server:
    """Answers messages with the groups that it is given."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self.groups = {group.number: group for group in groups}

    def answer(self, message: bytes) -> bytes | None:
        """The answer to a message; None where there is nobody to answer."""
        if len(message) < SIZE:
            return None
        header = Header.unpack(message)
        if header.op not in (Op.READ, Op.WRITE):
            return None
        try:
            payload = self._handled(header, message)
        except Refused as refused:
            payload = self._refusal(header, refused)
        data = cbor2.dumps(payload)
        if data[0] <= _SHORT_MAP:
            data = _INDEFINITE + data[1:] + _BREAK
        return header.answer(len(data)).pack() + data

    def _handled(self, header: Header, message: bytes) -> Payload:
        if len(message) - SIZE < header.length:
            raise Refused(None, _CORRUPT)
        if header.version > V2:
            raise Refused(None, MGMT_TOO_NEW)
        group = self.groups.get(header.group)
        handler = group.handlers.get((header.op, header.command)) if group else None
        if handler is None:
            raise Refused(None, MGMT_ENOTSUP)
        try:
            end = SIZE + header.length
            payload = cbor.decode(message[SIZE:end]) if header.length else {}
        except BadPayload:
            raise Refused(None, MGMT_EINVAL) from None
        return handler(payload)

    def _refusal(self, header: Header, refused: Refused) -> Payload:
        if refused.group is None:
            return {"rc": refused.rc}
        if header.version == V1:
            return {"rc": self.groups[refused.group].v1.get(refused.rc, _UNKNOWN)}
        return {"err": {"group": refused.group, "rc": refused.rc}}

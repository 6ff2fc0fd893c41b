# SPDX-License-Identifier: Apache-2.0
"""What all groups share: handlers by operation and command, and how a handler refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from firmware_bridge.smp.errors import MGMT_EINVAL

Payload: TypeAlias = dict[str, object]
Handler: TypeAlias = Callable[[Payload], Payload]
T = TypeVar("T")


class Refused(Exception):
    """The answer is an error: `group` None for the numbers that all groups share."""

    def __init__(self, group: int | None, rc: int) -> None:
        super().__init__(group, rc)
        self.group = group
        self.rc = rc


class Group:
    """A group. `v1` turns its error numbers into those of version 1, where 1 is any other."""

    number: int
    name: str
    v1: Mapping[int, int] = {}

    def __init__(self) -> None:
        self.handlers: dict[tuple[int, int], Handler] = {}

    def refused(self, rc: int) -> Refused:
        """An error number of this group."""
        return Refused(self.number, rc)


def take(payload: Payload, key: str, kind: type[T]) -> T | None:
    """An optional value. Refuses one of another type, and a number below 0, as zcbor's decoders
    of unsigned numbers do."""
    value = payload.get(key)
    if value is None:
        return None
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise Refused(None, MGMT_EINVAL)
    return value


def need(payload: Payload, key: str, kind: type[T]) -> T:
    """A value that must be there."""
    value = take(payload, key, kind)
    if value is None:
        raise Refused(None, MGMT_EINVAL)
    return value

# SPDX-License-Identifier: Apache-2.0
"""Group 10: which groups a server has (Zephyr's smp_group_10.rst)."""

from dataclasses import dataclass

from firmware_bridge.smp.header import Group, Op
from firmware_bridge.smp.message import Record, Request

ERR_UNKNOWN, ERR_TOO_MANY, ERR_NO_MEMORY, ERR_INDEX_TOO_LARGE = 1, 2, 3, 4


@dataclass(frozen=True)
class CountReply(Record):
    count: int


@dataclass(frozen=True)
class Count(Request[CountReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.ENUM, 0, CountReply


@dataclass(frozen=True)
class ListReply(Record):
    groups: tuple[int, ...]


@dataclass(frozen=True)
class List(Request[ListReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.ENUM, 1, ListReply


@dataclass(frozen=True)
class SingleReply(Record):
    """`end` is True with the last one, else absent."""

    group: int
    end: bool | None = None


@dataclass(frozen=True)
class Single(Request[SingleReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.ENUM, 2, SingleReply
    index: int | None = None


@dataclass(frozen=True)
class Detail(Record):
    """`handlers`: commands that the group has."""

    group: int
    name: str | None = None
    handlers: int | None = None


@dataclass(frozen=True)
class DetailsReply(Record):
    groups: tuple[Detail, ...]


@dataclass(frozen=True)
class Details(Request[DetailsReply]):
    """Of those groups, or of all."""

    OP, GROUP, COMMAND, REPLY = Op.READ, Group.ENUM, 3, DetailsReply
    groups: tuple[int, ...] | None = None

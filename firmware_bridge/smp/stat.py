# SPDX-License-Identifier: Apache-2.0
"""Group 2: statistics, which carry the card's telemetry (Zephyr's smp_group_2.rst)."""

from dataclasses import dataclass

from firmware_bridge.smp.header import Group, Op
from firmware_bridge.smp.message import Record, Request

ERR_UNKNOWN, ERR_INVALID_GROUP, ERR_INVALID_STAT_NAME = 1, 2, 3


@dataclass(frozen=True)
class DataReply(Record):
    """`fields`: whole numbers; the name of each says its unit."""

    name: str
    fields: dict[str, int]


@dataclass(frozen=True)
class Data(Request[DataReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.STAT, 0, DataReply
    name: str


@dataclass(frozen=True)
class ListReply(Record):
    stat_list: tuple[str, ...]


@dataclass(frozen=True)
class List(Request[ListReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.STAT, 1, ListReply

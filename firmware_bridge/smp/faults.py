# SPDX-License-Identifier: Apache-2.0
"""Group 66, Tepi's: the controller's fault log."""

from dataclasses import dataclass

from firmware_bridge.smp.header import Group, Op
from firmware_bridge.smp.message import Record, Request

ERR_UNKNOWN = 1


@dataclass(frozen=True)
class Fault(Record):
    """`n` counts up for the card's life; `t`: seconds since the controller's start, or of the
    epoch where its clock is set; `code` and `info` say what happened."""

    n: int
    t: int
    code: str | int
    info: str | int | None = None


@dataclass(frozen=True)
class LogReply(Record):
    """Oldest first, as many as fit a message."""

    log: tuple[Fault, ...]


@dataclass(frozen=True)
class Log(Request[LogReply]):
    """Entries with a greater `n` than `since`."""

    OP, GROUP, COMMAND, REPLY = Op.READ, Group.FAULTS, 0, LogReply
    since: int = 0

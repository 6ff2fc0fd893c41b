# SPDX-License-Identifier: Apache-2.0
"""Group 0: echo, date and time, reset, parameters, application and bootloader (Zephyr's
smp_group_0.rst)."""

from dataclasses import dataclass
from typing import ClassVar

from firmware_bridge.smp.header import Group, Op
from firmware_bridge.smp.message import Done, Record, Request

ERR_UNKNOWN, ERR_INVALID_FORMAT, ERR_NO_ANSWER, ERR_RTC_NOT_SET = 1, 2, 3, 4


@dataclass(frozen=True)
class EchoReply(Record):
    r: str


@dataclass(frozen=True)
class Echo(Request[EchoReply]):
    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.OS, 0, EchoReply
    d: str


@dataclass(frozen=True)
class DateTime(Record):
    """`datetime`: RFC 3339 without zone, as in 2026-01-31T12:00:00."""

    datetime: str


@dataclass(frozen=True)
class DateTimeRead(Request[DateTime]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.OS, 4, DateTime


@dataclass(frozen=True)
class DateTimeWrite(Request[Done]):
    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.OS, 4, Done
    datetime: str


@dataclass(frozen=True)
class Reset(Request[Done]):
    """`force` 1 after a refusal with "busy"; `boot_mode` 1 asks for the bootloader."""

    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.OS, 5, Done
    force: int | None = None
    boot_mode: int | None = None


@dataclass(frozen=True)
class ParametersReply(Record):
    """`buf_size`: bytes of a frame without base64, so that a message has at most 4 fewer;
    `buf_count`: such buffers in the server, one of which an answer takes."""

    buf_size: int
    buf_count: int


@dataclass(frozen=True)
class Parameters(Request[ParametersReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.OS, 6, ParametersReply


@dataclass(frozen=True)
class ApplicationReply(Record):
    output: str


@dataclass(frozen=True)
class Application(Request[ApplicationReply]):
    """`format`: letters of snrvbmpioa (uname's), default s."""

    OP, GROUP, COMMAND, REPLY = Op.READ, Group.OS, 7, ApplicationReply
    format: str | None = None


@dataclass(frozen=True)
class BootloaderReply(Record):
    """Without a query: `bootloader` is "MCUboot". Query "mode": `mode`, 1 swap using scratch,
    3 swap without, and `no_downgrade` where that is set."""

    WIRE: ClassVar[dict[str, str]] = {"no_downgrade": "no-downgrade"}
    bootloader: str | None = None
    mode: int | None = None
    no_downgrade: bool | None = None


@dataclass(frozen=True)
class Bootloader(Request[BootloaderReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.OS, 8, BootloaderReply
    query: str | None = None

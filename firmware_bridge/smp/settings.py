# SPDX-License-Identifier: Apache-2.0
"""Group 3: settings by name (Zephyr's smp_group_3.rst)."""

from dataclasses import dataclass

from firmware_bridge.smp.header import Group, Op
from firmware_bridge.smp.message import Done, Record, Request

ERR_UNKNOWN, ERR_KEY_TOO_LONG, ERR_KEY_NOT_FOUND, ERR_READ_NOT_SUPPORTED = 1, 2, 3, 4
ERR_ROOT_KEY_NOT_FOUND, ERR_WRITE_NOT_SUPPORTED, ERR_DELETE_NOT_SUPPORTED = 5, 6, 7
ERR_SAVE_NOT_SUPPORTED = 8


@dataclass(frozen=True)
class Value(Record):
    """`max_size`: set where the server holds less than was asked for."""

    val: bytes
    max_size: int | None = None


@dataclass(frozen=True)
class Get(Request[Value]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.SETTINGS, 0, Value
    name: str
    max_size: int | None = None


@dataclass(frozen=True)
class Set(Request[Done]):
    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.SETTINGS, 0, Done
    name: str
    val: bytes


@dataclass(frozen=True)
class Delete(Request[Done]):
    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.SETTINGS, 1, Done
    name: str


@dataclass(frozen=True)
class Commit(Request[Done]):
    """Apply what was set."""

    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.SETTINGS, 2, Done


@dataclass(frozen=True)
class Load(Request[Done]):
    """Go back to what is stored."""

    OP, GROUP, COMMAND, REPLY = Op.READ, Group.SETTINGS, 3, Done


@dataclass(frozen=True)
class Save(Request[Done]):
    """Store all settings, or the one `name`, so that they outlast a reset."""

    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.SETTINGS, 3, Done
    name: str | None = None

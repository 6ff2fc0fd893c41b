# SPDX-License-Identifier: Apache-2.0
"""Group 8: files, which carry crash dumps (Zephyr's smp_group_8.rst)."""

from dataclasses import dataclass

from firmware_bridge.smp.header import Group, Op
from firmware_bridge.smp.message import Done, Record, Request

ERR_UNKNOWN, ERR_INVALID_NAME, ERR_NOT_FOUND, ERR_IS_FOLDER = 1, 2, 3, 4
ERR_INVALID_OFFSET, ERR_OFFSET_BEHIND_END, ERR_NO_SUCH_CHECKSUM = 11, 12, 13
ERR_NO_MOUNT, ERR_READ_ONLY, ERR_EMPTY = 14, 15, 16
CRC32, SHA256 = "crc32", "sha256"


@dataclass(frozen=True)
class Chunk(Record):
    """`len`: the file's size, with `off` 0."""

    off: int
    data: bytes
    len: int | None = None


@dataclass(frozen=True)
class Read(Request[Chunk]):
    """As much from `off` on as fits a message."""

    OP, GROUP, COMMAND, REPLY = Op.READ, Group.FS, 0, Chunk
    off: int
    name: str


@dataclass(frozen=True)
class Written(Record):
    """`off`: bytes that the file has now."""

    off: int


@dataclass(frozen=True)
class Write(Request[Written]):
    """`len`: the whole file's size, with `off` 0, which also begins the file anew."""

    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.FS, 0, Written
    off: int
    data: bytes
    name: str
    len: int | None = None


@dataclass(frozen=True)
class StatusReply(Record):
    len: int


@dataclass(frozen=True)
class Status(Request[StatusReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.FS, 1, StatusReply
    name: str


@dataclass(frozen=True)
class HashReply(Record):
    """`output`: a number (crc32) or bytes (sha256) over `len` bytes from `off` (0 if absent)."""

    type: str
    len: int
    output: int | bytes
    off: int | None = None


@dataclass(frozen=True)
class Hash(Request[HashReply]):
    """Of the whole file, or of `len` bytes at most from `off`."""

    OP, GROUP, COMMAND, REPLY = Op.READ, Group.FS, 2, HashReply
    name: str
    type: str | None = None
    off: int | None = None
    len: int | None = None


@dataclass(frozen=True)
class HashType(Record):
    """`format`: 0 a number, 1 bytes; `size` in bytes."""

    format: int
    size: int


@dataclass(frozen=True)
class HashTypesReply(Record):
    types: dict[str, HashType]


@dataclass(frozen=True)
class HashTypes(Request[HashTypesReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.FS, 3, HashTypesReply


@dataclass(frozen=True)
class Close(Request[Done]):
    """Close what reads and writes left open."""

    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.FS, 4, Done

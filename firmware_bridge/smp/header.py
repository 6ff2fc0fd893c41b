# SPDX-License-Identifier: Apache-2.0
"""The eight bytes before each payload (SMP specification, "Frame: The envelope").

Big-endian: version in bits 3-4 and operation in bits 0-2 of the first byte, flags, length of the
payload in bytes, group, sequence number, command.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

SIZE = 8
V1 = 0  # errors are {"rc": N}
V2 = 1  # errors are {"err": {"group": G, "rc": N}}
_LAYOUT = struct.Struct(">BBHHBB")


class Op(IntEnum):
    """Operation codes; an answer's is its request's plus one."""

    READ = 0
    READ_REPLY = 1
    WRITE = 2
    WRITE_REPLY = 3


class Group(IntEnum):
    """Groups that Tepi speaks. Below 64 they are Zephyr's; 64 is taken by another vendor's client,
    so ours begin at 65."""

    OS = 0
    IMG = 1
    STAT = 2
    SETTINGS = 3
    FS = 8
    SHELL = 9
    ENUM = 10
    ATTEST = 65
    FAULTS = 66


@dataclass(frozen=True, slots=True)
class Header:
    """`op` is kept as a number, since a receiver must be able to answer any."""

    op: int
    group: int
    command: int
    sequence: int = 0
    length: int = 0
    version: int = V2
    flags: int = 0

    def pack(self) -> bytes:
        """The 8 bytes. Reserved bits 5-7 of the first byte are zero."""
        first = self.version << 3 | self.op
        return _LAYOUT.pack(first, self.flags, self.length, self.group, self.sequence, self.command)

    @classmethod
    def unpack(cls, message: bytes) -> "Header":
        """The header at the start of `message`, of at least SIZE bytes; every value is accepted."""
        first, flags, length, group, sequence, command = _LAYOUT.unpack_from(message)
        return cls(first & 7, group, command, sequence, length, first >> 3 & 3, flags)

    def answer(self, length: int) -> "Header":
        """The header of the answer to this request, with `length` bytes of payload.

        The version is the request's, except that one we do not know is answered in V2
        (Zephyr's smp.c does likewise)."""
        version = min(self.version, V2)
        return Header(self.op | 1, self.group, self.command, self.sequence, length, version)

# SPDX-License-Identifier: Apache-2.0
"""What is known of a partial blob: a file of lines beside it, each of which says it all.

A line is added after the bytes it speaks of are on the medium. The last one that reads counts:
a line torn by a power cut is as if it had not been written.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

RECORD_LIMIT = 64 << 20  # bytes of lines


@dataclass(frozen=True, slots=True)
class Record:
    """`size`: bytes of the whole blob. `synced`: of them, the first so many are on the medium.
    `boot`: the boot in which the file was written to; in it, all that is in the file counts.
    `etags`: what each origin called the blob, for If-Range."""

    size: int
    synced: int
    boot: str
    etags: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> bytes:
        """Begins a line of its own, so that it reads after a torn one."""
        text = json.dumps(
            {
                "size": self.size,
                "synced": self.synced,
                "boot": self.boot,
                "etags": dict(self.etags),
            }
        ).encode()
        return b"\n%08x %s\n" % (zlib.crc32(text), text)

    def usable(self, found: int, boot: str) -> int:
        """How many of the `found` bytes in the file can be gone on from in this boot."""
        good = found if boot and boot == self.boot else min(found, self.synced)
        return good if good <= self.size else 0


def last_record(data: bytes) -> Record | None:
    """The newest line that reads; None where there is none."""
    for line in reversed(data.split(b"\n")):
        check, _, text = line.partition(b" ")
        try:
            if int(check, 16) != zlib.crc32(text):
                continue
            found = json.loads(text)
            etags = {str(key): str(value) for key, value in found["etags"].items()}
            return Record(int(found["size"]), int(found["synced"]), str(found["boot"]), etags)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return None

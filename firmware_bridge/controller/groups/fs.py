# SPDX-License-Identifier: Apache-2.0
"""Group 8, files: crash dumps to read, and a small memory disk to write (Zephyr's fs_mgmt).

/dump/last.bin, /dump/index      read-only; index is JSON: file, bytes, reason, time
/ram/NAME                        lost at a reset
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from hashlib import sha256

import cbor2

from firmware_bridge.controller import dump
from firmware_bridge.controller.groups.group import Group, Payload, Refused, need, take
from firmware_bridge.controller.groups.os import BUF_SIZE
from firmware_bridge.smp import fs
from firmware_bridge.smp.errors import MGMT_EINVAL
from firmware_bridge.smp.header import SIZE, Op

LAST = "/dump/last.bin"
INDEX = "/dump/index"
NAME_MOST = 64
RAM_MOST = 256 << 10
_OVERHEAD = 48  # a chunk's map without its data
_CHUNK = BUF_SIZE - 4 - SIZE - _OVERHEAD
_FOLDERS = ("/dump", "/ram", "/")
_NO_SPACE = 10  # FS_MGMT_ERR_FILE_WRITE_FAILED


class Files(Group):
    """last_dump: the bytes of the last crash dump, or None."""

    number = fs.Read.GROUP
    name = "fs mgmt"
    v1 = {2: 3, 3: 5, 4: 3}  # noqa: RUF012

    def __init__(self, last_dump: Callable[[], bytes | None]) -> None:
        super().__init__()
        self._last_dump = last_dump
        self._ram: dict[str, bytearray] = {}
        self.handlers = {
            (Op.READ, 0): self._read,
            (Op.WRITE, 0): self._write,
            (Op.READ, 1): lambda payload: {"len": len(self._content(self._name(payload)))},
            (Op.READ, 2): self._hash,
            (Op.READ, 3): self._hash_types,
            (Op.WRITE, 4): lambda _: {},
        }

    def _name(self, payload: Payload) -> str:
        name = need(payload, "name", str)
        if not name or len(name.encode()) > NAME_MOST:
            raise Refused(None, MGMT_EINVAL)
        return name

    def _content(self, name: str) -> bytes | bytearray:
        if name in _FOLDERS:
            raise self.refused(fs.ERR_IS_FOLDER)
        if not name.startswith("/"):
            raise self.refused(fs.ERR_INVALID_NAME)
        found = self._ram.get(name)
        if name in (LAST, INDEX):
            last = self._last_dump()
            found = bytearray(last) if last is not None and name == LAST else None
            if name == INDEX:
                found = bytearray(_index(last))
        if found is None:
            raise self.refused(fs.ERR_NOT_FOUND)
        return found

    def _read(self, payload: Payload) -> Payload:
        offset = need(payload, "off", int)
        content = self._content(self._name(payload))
        data = bytes(content[offset : offset + _CHUNK])
        if offset:
            return {"off": offset, "data": data}
        return {"off": 0, "data": data, "len": len(content)}

    def _write(self, payload: Payload) -> Payload:
        offset = need(payload, "off", int)
        name = self._name(payload)
        data = take(payload, "data", bytes) or b""
        if offset == 0:
            need(payload, "len", int)
        if name.startswith("/dump/"):
            raise self.refused(fs.ERR_READ_ONLY)
        if not name.startswith("/ram/") or name.count("/") != 2 or name == "/ram/":
            raise self.refused(fs.ERR_NO_MOUNT)
        content = self._ram.get(name, bytearray())
        if offset == 0:
            content = bytearray()
        elif offset != len(content):
            raise self.refused(fs.ERR_INVALID_OFFSET)
        used = sum(map(len, self._ram.values())) - len(self._ram.get(name, b"")) + len(content)
        if used + len(data) > RAM_MOST:
            raise self.refused(_NO_SPACE)
        content += data
        self._ram[name] = content
        return {"off": len(content)}

    def _hash(self, payload: Payload) -> Payload:
        kind = take(payload, "type", str) or fs.CRC32
        content = self._content(self._name(payload))
        offset = take(payload, "off", int) or 0
        length = take(payload, "len", int)
        if kind not in (fs.CRC32, fs.SHA256):
            raise self.refused(fs.ERR_NO_SUCH_CHECKSUM)
        if not content:
            raise self.refused(fs.ERR_EMPTY)
        if offset >= len(content):
            raise self.refused(fs.ERR_OFFSET_BEHIND_END)
        data = content[offset:] if length is None else content[offset : offset + length]
        output = zlib.crc32(data) if kind == fs.CRC32 else sha256(data).digest()
        answer: Payload = {"type": kind, "len": len(data), "output": output}
        return {**answer, "off": offset} if offset else answer

    def _hash_types(self, _: Payload) -> Payload:
        return {
            "types": {
                fs.CRC32: {"format": 0, "size": 4},
                fs.SHA256: {"format": 1, "size": 32},
            }
        }


def _index(last: bytes | None) -> bytes:
    if last is None:
        return b"[]\n"
    told = cbor2.loads(last[len(dump.MAGIC) :])
    entry = {"file": LAST, "bytes": len(last), "reason": told["reason"], "time": told["time"]}
    return json.dumps([entry]).encode() + b"\n"

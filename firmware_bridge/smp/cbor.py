# SPDX-License-Identifier: Apache-2.0
"""The part of CBOR (RFC 8949) that SMP uses, read with bounds.

cbor2 reads all of CBOR: shared references that make endless structures, regular expressions, big
numbers. What comes over a wire that strangers may hold needs none of that, so tags are refused,
lengths are compared with what is there before anything is made, and depth is limited.
"""

import struct
from typing import cast

import cbor2

from firmware_bridge.smp.errors import BadPayload

DEPTH = 8
_BREAK = 0xFF
_INDEFINITE = 31
_NUMBER = {
    24: struct.Struct(">B"),
    25: struct.Struct(">H"),
    26: struct.Struct(">I"),
    27: struct.Struct(">Q"),
}
_FLOAT = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_SIMPLE = {20: False, 21: True, 22: None, 23: None}


def encode(payload: dict[str, object]) -> bytes:
    """CBOR of a map, definite lengths, keys in the order given."""
    return cbor2.dumps(payload)


def decode(data: bytes) -> dict[str, object]:
    """The map in `data`, which it must fill. Definite and indefinite lengths; keys are text.

    BadPayload for anything else. Time and memory are linear in len(data)."""
    reader = _Reader(data)
    try:
        found = reader.item(0)
    except (IndexError, struct.error):
        raise BadPayload("CBOR ends in the middle of an item") from None
    except UnicodeDecodeError:
        raise BadPayload("CBOR text is not UTF-8") from None
    if type(found) is not dict:
        raise BadPayload("the payload is not a CBOR map")
    if reader.at != len(data):
        raise BadPayload(f"{len(data) - reader.at} bytes behind the CBOR map")
    return cast("dict[str, object]", found)


class _Reader:
    """A position in bytes; each method moves it over what it returns."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def item(self, depth: int) -> object:
        first = self.data[self.at]
        self.at += 1
        major, minor = first >> 5, first & 31
        if major == 7:
            return self.simple(minor)
        if minor == _INDEFINITE:
            return self.indefinite(major, depth)
        count = self.number(minor)
        if major == 0:
            return count
        if major == 1:
            return -1 - count
        if major in (2, 3):
            return self.string(major, count)
        if major == 6:
            raise BadPayload("CBOR tags are not used in SMP")
        if depth == DEPTH:
            raise BadPayload(f"CBOR nested deeper than {DEPTH}")
        if count > len(self.data) - self.at:  # each takes a byte at least
            raise BadPayload("a CBOR container is longer than the message")
        if major == 4:
            return [self.item(depth + 1) for _ in range(count)]
        return dict(self.pair(depth) for _ in range(count))

    def number(self, minor: int) -> int:
        if minor < 24:
            return minor
        layout = _NUMBER.get(minor)
        if layout is None:
            raise BadPayload(f"CBOR additional information {minor} is reserved")
        value: int = layout.unpack_from(self.data, self.at)[0]
        self.at += layout.size
        return value

    def string(self, major: int, count: int) -> bytes | str:
        end = self.at + count
        if end > len(self.data):
            raise BadPayload("a CBOR string is longer than the message")
        value = self.data[self.at : end]
        self.at = end
        return value if major == 2 else value.decode()

    def simple(self, minor: int) -> object:
        if minor in _SIMPLE:
            return _SIMPLE[minor]
        layout = _FLOAT.get(minor)
        if layout is None:
            raise BadPayload(f"CBOR simple value {minor} is not used in SMP")
        value: float = layout.unpack_from(self.data, self.at)[0]
        self.at += layout.size
        return value

    def pair(self, depth: int) -> tuple[str, object]:
        key = self.item(DEPTH)
        if type(key) is not str:
            raise BadPayload("a key of a CBOR map is not text")
        return key, self.item(depth + 1)

    def more(self) -> bool:
        """Whether the indefinite item goes on; moves over the break where it does not."""
        if self.data[self.at] != _BREAK:
            return True
        self.at += 1
        return False

    def indefinite(self, major: int, depth: int) -> object:
        if major in (2, 3):
            return self.pieces(major)
        if major not in (4, 5):
            raise BadPayload("a CBOR number of indefinite length")
        if depth == DEPTH:
            raise BadPayload(f"CBOR nested deeper than {DEPTH}")
        if major == 4:
            items = []
            while self.more():
                items.append(self.item(depth + 1))
            return items
        pairs = {}
        while self.more():
            key, value = self.pair(depth)
            pairs[key] = value
        return pairs

    def pieces(self, major: int) -> bytes | str:
        """A string in definite pieces of its own kind (RFC 8949, 3.2.3)."""
        found: list[bytes | str] = []
        while self.more():
            first = self.data[self.at]
            self.at += 1
            if first >> 5 != major or first & 31 == _INDEFINITE:
                raise BadPayload("a piece of a CBOR string is of another kind")
            found.append(self.string(major, self.number(first & 31)))
        if major == 2:
            return b"".join(cast("list[bytes]", found))
        return "".join(cast("list[str]", found))

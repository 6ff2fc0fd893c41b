# SPDX-License-Identifier: Apache-2.0
"""Messages with types: a dataclass for each payload, usable on both sides of the wire.

A client builds requests and reads replies; a server reads requests and builds replies. Keys that a
class does not name are ignored when read, since servers differ in what they add; fields that are
None are not written, since stock clients reject keys they do not know.
"""

import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import (
    Any,
    ClassVar,
    Generic,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from firmware_bridge.smp import cbor
from firmware_bridge.smp.errors import BadPayload
from firmware_bridge.smp.header import SIZE, V2, Header

_Read = Callable[[object], object]
_SHAPES: dict[type, tuple[tuple[str, str, _Read, bool], ...]] = {}
_PLAIN = (int, str, bytes, bool, float)


@dataclass(frozen=True)
class Record:
    """A map with a class. `WIRE` holds the keys that are not the field's name."""

    WIRE: ClassVar[dict[str, str]] = {}

    def to_map(self) -> dict[str, object]:
        """The map to encode."""
        return {
            key: _plain(value)
            for name, key, _, _ in _shape(type(self))
            if (value := getattr(self, name)) is not None
        }

    @classmethod
    def from_map(cls, payload: dict[str, object]) -> Self:
        """BadPayload names the class and the key that is missing or of another type."""
        values: dict[str, Any] = {}
        for name, key, read, needed in _shape(cls):
            value = payload.get(key)
            if value is not None:
                try:
                    values[name] = read(value)
                except TypeError:
                    raise BadPayload(f"{cls.__name__}: {key!r} is of another type") from None
            elif needed:
                raise BadPayload(f"{cls.__name__}: {key!r} is missing")
        return cls(**values)


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Request(Record, Generic[R]):
    """A command with its numbers, and the class of what answers it."""

    OP: ClassVar[int]
    GROUP: ClassVar[int]
    COMMAND: ClassVar[int]
    REPLY: ClassVar[type[Record]]

    def build(self, sequence: int, version: int = V2) -> bytes:
        """Header and payload."""
        payload = cbor.encode(self.to_map())
        header = Header(self.OP, self.GROUP, self.COMMAND, sequence, len(payload), version)
        return header.pack() + payload

    def read_reply(self, payload: dict[str, object]) -> R:
        """The answer, from its map. BadPayload."""
        return cast("R", self.REPLY.from_map(payload))


@dataclass(frozen=True)
class Done(Record):
    """An answer without content."""


def build_reply(request: Header, reply: Record | dict[str, object]) -> bytes:
    """The message that answers `request`."""
    payload = cbor.encode(reply.to_map() if isinstance(reply, Record) else reply)
    return request.answer(len(payload)).pack() + payload


def split(message: bytes) -> tuple[Header, dict[str, object]]:
    """Header and map of a message. BadPayload where the header's length is not the payload's."""
    if len(message) < SIZE:
        raise BadPayload("shorter than a header")
    header = Header.unpack(message)
    if header.length != len(message) - SIZE:
        raise BadPayload(f"{len(message) - SIZE} bytes of payload, {header.length} announced")
    return header, cbor.decode(message[SIZE:]) if header.length else {}


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return value.to_map()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _shape(cls: type[Record]) -> tuple[tuple[str, str, _Read, bool], ...]:
    """(field, key, reader, whether it must be there) for each field; made once for a class."""
    shape = _SHAPES.get(cls)
    if shape is None:
        shape = _SHAPES[cls] = _make_shape(cls)
    return shape


def _make_shape(cls: type[Record]) -> tuple[tuple[str, str, _Read, bool], ...]:
    hints = get_type_hints(cls)
    return tuple(
        (
            f.name,
            cls.WIRE.get(f.name, f.name),
            _reader(hints[f.name]),
            f.default is MISSING and f.default_factory is MISSING,
        )
        for f in fields(cls)
    )


def _reader(hint: Any) -> _Read:
    """What turns a decoded value into a field of that type; it raises TypeError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None)]
        return _reader(kinds[0]) if len(kinds) == 1 else _one_of(tuple(kinds))
    if hint in _PLAIN:
        return _one_of((hint,))
    if origin is tuple:
        return _list_of(_reader(inner[0]))
    if origin is dict:
        return _map_of(_reader(inner[1]))
    if hint is object:
        return lambda value: value
    return _record(hint)


def _one_of(kinds: tuple[type, ...]) -> _Read:
    def read(value: object) -> object:
        if type(value) not in kinds:
            raise TypeError
        return value

    return read


def _list_of(item: _Read) -> _Read:
    def read(value: object) -> object:
        if type(value) is not list:
            raise TypeError
        return tuple(map(item, value))

    return read


def _map_of(item: _Read) -> _Read:
    def read(value: object) -> object:
        if type(value) is not dict:
            raise TypeError
        return {key: item(inner) for key, inner in value.items()}

    return read


def _record(cls: type[Record]) -> _Read:
    def read(value: object) -> object:
        if type(value) is not dict:
            raise TypeError
        return cls.from_map(value)

    return read

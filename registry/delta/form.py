# SPDX-License-Identifier: Apache-2.0
"""The file of a delta: how one version of a blob becomes another, window by window.

All numbers little-endian:

    bytes  8     magic "tepidlt" and the version, 1
    u32          count of steps
    u32          bytes of the table
    bytes 32     SHA-256 of the old blob         u64    its size in bytes
    bytes 32     SHA-256 of the new blob         u64    its size in bytes
    ...          payloads of the steps, in order, without gaps
    ...          the table, to the end of the file: one zstd frame of `count` steps of 40 bytes

    a step:  u8   kind        u8  coding    u8  width      u8  0
             u32  bytes of its first payload
             u64  size: bytes of the new blob that it makes
             u64  source: where in the old blob it begins to read
             u32  base: bytes of the old blob that PATCH reads
             u32  bytes of its second payload
             u32  columns: ADD's residual is written sorted, of rows of so many bytes; 0: it is not
             u32  bytes of the payload that says how it is sorted; it leads the first

Steps make the new blob from its start to its end. Payloads are zstd frames that state their content
size. All bounds that keep a stranger's delta from costing more memory or time than a blob of its
declared size may cost are checked by `read_header` and `read_steps`, before a byte is made.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import zstandard

from registry.digest import hex_of
from registry.errors import RegistryError

MEDIA_TYPE = "application/vnd.tepi.delta.v1"
WINDOW = 2 << 20  # bytes that a step makes at most, unless it copies
BASE_LIMIT = 8 << 20  # bytes that a PATCH reads at most
SMALL_BASE = 64 << 10  # bytes that it may read however little it makes

_MAGIC = b"tepidlt\x01"
_HEADER = struct.Struct("<8sII32sQ32sQ")
_STEP = struct.Struct("<BBBBIQQIIII")
_STEPS = 1 << 17
_SIZE_LIMIT = 1 << 50
_SLACK = 4 << 10  # bytes that an incompressible payload may exceed its window by

HEADER_BYTES = _HEADER.size


class BadDelta(RegistryError):
    """A delta that is damaged, hostile, or yields other bytes than it promises."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not a usable delta: {why}", "fetch the whole blob instead")


class WrongBase(RegistryError):
    """The old blob is not the one that the delta was made from."""


class Kind(enum.IntEnum):
    """What a step does."""

    COPY = 0  # size bytes of the old blob
    ADD = 1  # size bytes of the old blob, plus a residual
    DATA = 2  # bytes of its own
    PATCH = 3  # bytes that were compressed with a part of the old blob as dictionary


class Coding(enum.IntEnum):
    """How ADD's residual is written: registry.delta.residual."""

    WHOLE = 0
    GAPS = 1
    MASK = 2


class Step(NamedTuple):
    """One step; sizes and offsets in bytes."""

    kind: Kind
    size: int
    source: int = 0
    coding: Coding = Coding.WHOLE
    width: int = 1
    base: int = 0
    first: int = 0
    second: int = 0
    columns: int = 0
    rates: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What a delta makes of what; sizes in bytes."""

    old: str
    old_size: int
    new: str
    new_size: int
    steps: int
    table: int

    def encode(self) -> bytes:
        """Its bytes."""
        old, new = bytes.fromhex(hex_of(self.old)), bytes.fromhex(hex_of(self.new))
        return _HEADER.pack(_MAGIC, self.steps, self.table, old, self.old_size, new, self.new_size)


def read_header(data: bytes) -> Header:
    """The header in these bytes; raises BadDelta."""
    if len(data) < _HEADER.size:
        raise BadDelta(f"it ends after {len(data)} bytes")
    magic, steps, table, old, old_size, new, new_size = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise BadDelta("it does not begin as one of version 1 does")
    if steps > _STEPS or table > _STEPS * _STEP.size or max(old_size, new_size) > _SIZE_LIMIT:
        raise BadDelta(f"{steps} steps, a table of {table} or a blob of {new_size} bytes")
    return Header(f"sha256:{old.hex()}", old_size, f"sha256:{new.hex()}", new_size, steps, table)


def write_steps(steps: Sequence[Step], level: int) -> bytes:
    """The table."""
    if len(steps) > _STEPS:
        raise BadDelta(f"it would take {len(steps)} steps; at most {_STEPS} are taken")
    rows = (
        _STEP.pack(
            s.kind,
            s.coding,
            s.width,
            0,
            s.first,
            s.size,
            s.source,
            s.base,
            s.second,
            s.columns,
            s.rates,
        )
        for s in steps
    )
    return zstandard.ZstdCompressor(level=level).compress(b"".join(rows))


def read_steps(table: bytes, header: Header, payload: int) -> list[Step]:
    """The steps of the table, of which the payloads have `payload` bytes; raises BadDelta."""
    rows = expand(table, header.steps * _STEP.size)
    steps = [_step(*row) for row in _STEP.iter_unpack(rows)]
    for number, step in enumerate(steps):
        if (why := _wrong(step, header.old_size)) is not None:
            raise BadDelta(f"step {number} {why}")
    if sum(step.size for step in steps) != header.new_size:
        raise BadDelta("its steps make more or fewer bytes than it promises")
    if sum(step.rates + step.first + step.second for step in steps) != payload:
        raise BadDelta("its payloads are cut short, or something follows them")
    return steps


def expand(frame: bytes | memoryview, size: int, dictionary: bytes | memoryview = b"") -> bytes:
    """The `size` bytes of a zstd frame; raises BadDelta before a frame of another size, a bomb say,
    is expanded."""
    data = bytes(frame)
    if content_size(data) != size:
        raise BadDelta(f"a payload expands to other than {size} bytes")
    if not size:
        return b""
    try:
        return _decompressor(dictionary).decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadDelta(f"a payload does not expand: {error}") from None


def content_size(frame: bytes) -> int:
    """How many bytes a zstd frame says it holds; raises BadDelta where it does not say."""
    try:
        size = zstandard.frame_content_size(frame)
    except zstandard.ZstdError as error:
        raise BadDelta(f"a payload is no zstd frame: {error}") from None
    if size < 0:
        raise BadDelta("a payload does not say what it expands to")
    return size


def _decompressor(dictionary: bytes | memoryview) -> zstandard.ZstdDecompressor:
    if not dictionary:
        return zstandard.ZstdDecompressor()
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdDecompressor(dict_data=raw)


def _step(
    kind: int,
    coding: int,
    width: int,
    zero: int,
    first: int,
    size: int,
    source: int,
    base: int,
    second: int,
    columns: int,
    rates: int,
) -> Step:
    if zero:
        raise BadDelta("a step holds what version 1 does not know")
    try:
        return Step(
            Kind(kind), size, source, Coding(coding), width, base, first, second, columns, rates
        )
    except ValueError as error:
        raise BadDelta(str(error)) from None


def _wrong(step: Step, old_size: int) -> str | None:
    """What is wrong with a step; None where nothing is."""
    kind = step.kind
    reads = {Kind.COPY: step.size, Kind.ADD: step.size, Kind.DATA: 0, Kind.PATCH: step.base}[kind]
    most = 0 if kind == Kind.COPY else WINDOW + _SLACK
    if not step.size or (kind != Kind.COPY and step.size > WINDOW):
        return f"makes {step.size} bytes"
    if step.source + reads > old_size:
        return f"reads at {step.source + reads}, behind the old blob's {old_size} bytes"
    if max(step.first, step.second, step.rates) > most:
        return f"has payloads of {step.rates}, {step.first} and {step.second} bytes"
    if kind == Kind.ADD and (step.width not in (1, 2, 4, 8) or step.size % step.width):
        return f"adds numbers of {step.width} bytes to {step.size} bytes"
    if step.columns and (kind != Kind.ADD or step.size % step.columns):
        return f"sorts {step.size} bytes by {step.columns} columns"
    if kind == Kind.PATCH and step.base > min(BASE_LIMIT, 4 * step.size + SMALL_BASE):
        return f"reads {step.base} bytes to make {step.size}"
    return None

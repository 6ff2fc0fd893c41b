# SPDX-License-Identifier: Apache-2.0
"""Makes the new version of a blob from the old one and a delta, in bounded memory.

A delta needs no trust. Its table is checked before a byte is made; no step makes more than a window
(registry.delta.form), whatever its payload claims to expand to; and all bytes together must have
the SHA-256 that the delta promises. That this is the blob that was asked for is for the caller to
check, who knows its digest from a signed manifest: the store's commit does so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from registry.delta.form import (
    HEADER_BYTES,
    BadDelta,
    Header,
    Kind,
    Step,
    WrongBase,
    expand,
    read_header,
    read_steps,
)
from registry.delta.residual import Packed, add, unpack
from registry.digest import digest_of_file

_COPY = 1 << 20  # bytes copied at once


def read_delta(delta: Path) -> Header:
    """What a delta makes of what. Raises BadDelta, OSError."""
    with delta.open("rb") as file:
        return read_header(file.read(HEADER_BYTES))


def apply_delta(delta: Path, old: Path, write: Callable[[bytes | memoryview], object]) -> None:
    """Give `write` the new blob's bytes, in order. What it wrote is worth nothing unless this
    returns. Raises BadDelta, WrongBase where `old` is not the delta's old blob, OSError, and what
    `write` raises."""
    with delta.open("rb") as file, old.open("rb") as source:
        header = read_header(file.read(HEADER_BYTES))
        size = os.fstat(source.fileno()).st_size
        if size != header.old_size:
            raise _wrong_base(header, f"has {size} bytes, not {header.old_size}")
        steps = _steps(file, header)
        hasher = hashlib.sha256()
        file.seek(HEADER_BYTES)
        for step in steps:
            for part in _made(step, file, source):
                hasher.update(part)
                write(part)
    if f"sha256:{hasher.hexdigest()}" == header.new:
        return
    if (found := digest_of_file(old)) != header.old:
        raise _wrong_base(header, f"is {found}")
    raise BadDelta(f"it yields sha256:{hasher.hexdigest()}, not {header.new}")


def _steps(file: BinaryIO, header: Header) -> list[Step]:
    payload = os.fstat(file.fileno()).st_size - HEADER_BYTES - header.table
    if payload < 0:
        raise BadDelta("it is cut short")
    file.seek(HEADER_BYTES + payload)
    return read_steps(file.read(header.table), header, payload)


def _made(step: Step, file: BinaryIO, source: BinaryIO) -> Iterator[bytes | memoryview]:
    if step.kind == Kind.COPY:
        end = step.source + step.size
        for at in range(step.source, end, _COPY):
            yield _old(source, at, min(_COPY, end - at))
        return
    rates, first, second = (_exactly(file, n) for n in (step.rates, step.first, step.second))
    if step.kind == Kind.ADD:
        octets = np.frombuffer(_old(source, step.source, step.size), np.uint8)
        packed = Packed(step.coding, first, second, step.columns, rates)
        residual = unpack(packed, step.size)
        yield add(residual, octets, step.width).data
    else:
        yield expand(first, step.size, _old(source, step.source, step.base))


def _old(source: BinaryIO, at: int, size: int) -> bytes:
    """So many bytes of the old blob; a file that shrank meanwhile is an error."""
    source.seek(at)
    return _exactly(source, size)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise BadDelta("it, or the old blob, was cut short while it was read")
    return data


def _wrong_base(header: Header, what: str) -> WrongBase:
    return WrongBase(
        f"the delta is made from {header.old}, but the old blob {what}",
        "fetch the whole blob instead, and run `tepi store verify`",
    )

# SPDX-License-Identifier: Apache-2.0
"""Makes a delta of two versions of a blob, each window of the new one in its cheapest way."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zstandard
from numpy.typing import NDArray

from registry.delta.align import Region
from registry.delta.form import (
    BASE_LIMIT,
    HEADER_BYTES,
    SMALL_BASE,
    WINDOW,
    Header,
    Kind,
    Step,
    write_steps,
)
from registry.delta.plan import plan
from registry.delta.residual import pack, subtract
from registry.digest import digest_of_file

Bytes = NDArray[np.uint8]
LEVEL = 19  # of zstd: publishing happens once, fetching at every node

_DEAR = 0.5  # of a window's size: an ADD that costs more is compared with the other ways
_WINDOW_LOG = 24  # a window of zstd that spans BASE_LIMIT and WINDOW


@dataclass(frozen=True, slots=True)
class DeltaInfo:
    """A delta that was made: its bytes, those of the new blob, and what it is made from."""

    size: int
    new_size: int
    old: str
    new: str

    @property
    def ratio(self) -> float:
        """Its share of the new blob's bytes."""
        return self.size / self.new_size if self.new_size else 1.0


class _Written:
    """Steps as they are found, their payloads in the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.steps: list[Step] = []

    def put(self, step: Step, first: bytes = b"", second: bytes = b"") -> None:
        last = self.steps[-1] if self.steps else None
        if last and step.kind == last.kind == Kind.COPY and last.source + last.size == step.source:
            self.steps[-1] = last._replace(size=last.size + step.size)
            return
        self._file.write(first)
        self._file.write(second)
        self.steps.append(step._replace(first=len(first), second=len(second)))


def encode_delta(
    old: Path,
    new: Path,
    out: Path,
    level: int = LEVEL,
    tell: Callable[[int], None] = lambda _bytes: None,
) -> DeltaInfo:
    """Write to `out` what makes `new` of `old`; `tell` gets the bytes of each step of the new blob.
    The same files give the same delta. Raises OSError."""
    with out.open("wb") as file, _mapped(old) as before, _mapped(new) as after:
        file.write(bytes(HEADER_BYTES))
        written = _Written(file)
        near = 0
        for region in plan(after, before):
            for part in _windows(region):
                _put(part, after, before, near, level, written)
                near = near + part.size if part.source is None else part.source + part.size
                tell(part.size)
        table = write_steps(written.steps, level)
        file.write(table)
        header = Header(
            digest_of_file(old),
            len(before),
            digest_of_file(new),
            len(after),
            len(written.steps),
            len(table),
        )
        file.seek(0)
        file.write(header.encode())
        file.flush()
        size = os.fstat(file.fileno()).st_size
    return DeltaInfo(size, header.new_size, header.old, header.new)


def _windows(region: Region) -> Iterator[Region]:
    for at in range(0, region.size, WINDOW):
        source = None if region.source is None else region.source + at
        yield Region(region.offset + at, min(WINDOW, region.size - at), source, region.width)


def _put(part: Region, new: Bytes, old: Bytes, near: int, level: int, written: _Written) -> None:
    """One window, the cheapest way. `near`: where in the old blob its like may be found."""
    octets = new[part.offset : part.end]
    ways: list[tuple[Step, bytes, bytes]] = []
    if part.source is not None:
        twin = old[part.source : part.source + part.size]
        if np.array_equal(octets, twin):
            written.put(Step(Kind.COPY, part.size, part.source))
            return
        coding, first, second = pack(subtract(octets, twin, part.width), level)
        step = Step(Kind.ADD, part.size, part.source, coding, part.width)
        ways.append((step, first, second))
    if not ways or len(ways[0][1]) + len(ways[0][2]) > _DEAR * part.size:
        ways += _plain(octets, old, near if part.source is None else part.source, level)
    written.put(*min(ways, key=lambda way: len(way[1]) + len(way[2])))


def _plain(octets: Bytes, old: Bytes, near: int, level: int) -> Iterator[tuple[Step, bytes, bytes]]:
    """Compressed by itself, and with the old bytes around `near` as dictionary (what `zstd
    --patch-from` does)."""
    size = len(octets)
    yield Step(Kind.DATA, size), zstandard.ZstdCompressor(level=level).compress(octets.data), b""
    reach = min(BASE_LIMIT, 4 * size + SMALL_BASE, len(old))
    if not reach:
        return
    source = min(max(0, near - (reach - size) // 2), len(old) - reach)
    raw = zstandard.ZstdCompressionDict(
        old[source : source + reach].tobytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    rules = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=_WINDOW_LOG, enable_ldm=True, write_content_size=True
    )
    patch = zstandard.ZstdCompressor(dict_data=raw, compression_params=rules)
    yield Step(Kind.PATCH, size, source, base=reach), patch.compress(octets.data), b""


@contextmanager
def _mapped(path: Path) -> Iterator[Bytes]:
    """A file's bytes, read only as they are looked at. mmap takes no empty file."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            yield np.empty(0, np.uint8)
            return
        # Not closed by hand: numpy's view holds it, and both go with this frame.
        yield np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

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
    Coding,
    Header,
    Kind,
    Step,
    write_steps,
)
from registry.delta.plan import plan
from registry.delta.residual import Packed, pack, subtract
from registry.digest import digest_of_file

Bytes = NDArray[np.uint8]
LEVEL = 19  # of zstd: publishing happens once, fetching at every node

_DEAR = 0.5  # of a window's size: an ADD that costs more is compared with the other ways
_NOTHING = Packed(Coding.WHOLE, b"")
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

    def put(self, step: Step, payload: Packed = _NOTHING) -> None:
        """One more step."""
        last = self.steps[-1] if self.steps else None
        if last and step.kind == last.kind == Kind.COPY and last.source + last.size == step.source:
            self.steps[-1] = last._replace(size=last.size + step.size)
            return
        self._file.write(payload.rates)
        self._file.write(payload.first)
        self._file.write(payload.second)
        self.steps.append(
            step._replace(
                coding=payload.coding,
                first=len(payload.first),
                second=len(payload.second),
                columns=payload.columns,
                rates=len(payload.rates),
            )
        )


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
    """Its parts, of whole rows where it has rows."""
    columns = region.columns if region.columns <= WINDOW // 2 else 0
    most = WINDOW // columns * columns if columns else WINDOW
    for at in range(0, region.size, most):
        source = None if region.source is None else region.source + at
        size = min(most, region.size - at)
        yield Region(region.offset + at, size, source, region.width, columns)


def _put(part: Region, new: Bytes, old: Bytes, near: int, level: int, written: _Written) -> None:
    """One window, the cheapest way. `near`: where in the old blob its like may be found."""
    octets = new[part.offset : part.end]
    ways: list[tuple[Step, Packed]] = []
    if part.source is not None:
        twin = old[part.source : part.source + part.size]
        if np.array_equal(octets, twin):
            written.put(Step(Kind.COPY, part.size, part.source))
            return
        packed = pack(subtract(octets, twin, part.width), level, part.columns)
        ways.append((Step(Kind.ADD, part.size, part.source, width=part.width), packed))
    if not ways or ways[0][1].size > _DEAR * part.size:
        ways += _plain(octets, old, near if part.source is None else part.source, level)
    written.put(*min(ways, key=lambda way: way[1].size))


def _plain(octets: Bytes, old: Bytes, near: int, level: int) -> Iterator[tuple[Step, Packed]]:
    """Compressed by itself, and with the old bytes around `near` as dictionary (what `zstd
    --patch-from` does)."""
    size = len(octets)
    alone = zstandard.ZstdCompressor(level=level)
    yield Step(Kind.DATA, size), Packed(Coding.WHOLE, alone.compress(octets.data))
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
    step = Step(Kind.PATCH, size, source, base=reach)
    yield step, Packed(Coding.WHOLE, patch.compress(octets.data))


@contextmanager
def _mapped(path: Path) -> Iterator[Bytes]:
    """A file's bytes, read only as they are looked at. mmap takes no empty file."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            yield np.empty(0, np.uint8)
            return
        # Not closed by hand: numpy's view holds it, and both go with this frame.
        yield np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

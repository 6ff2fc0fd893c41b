# SPDX-License-Identifier: Apache-2.0
"""What is added to old numbers to give new ones, and three ways to write it down.

After a fine-tune most int8 weights are what they were and most others moved by one. zstd spends at
least a bit on each byte that is not part of a longer match, so the bytes that changed are written
apart from where they are:

    WHOLE  all bytes of the residual
    GAPS   how many zeros lead each byte that is not zero (255: so many zeros and no byte yet);
           then those bytes. Best below a few percent.
    MASK   a bit for each byte, set where it is not zero; then those bytes. Best up to a half.

How often weights change differs between the neurons that they lead from and to: the rows and the
columns of a matrix. So the bytes of a matrix may be written sorted by how often their row and their
column changed, the rarest first; zstd, whose tables follow what it reads, then spends less. What is
sent for it is a number for each row and each column: the logarithm of its rate.

Wider numbers are subtracted as integers of their width (floats by their bits, which keep order) and
folded so that a small move in either direction is a small number; then the planes of their bytes
follow one another, so that high bytes, mostly zero, lie together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from registry.delta.form import BadDelta, Coding, content_size, expand

Bytes = NDArray[np.uint8]


_COLUMNS = 16  # fewer say little for what they cost
_RATE_STEPS = 2  # to a doubling of the rate
_SORTED = 0.002, 0.95  # shares that changed between which sorting is tried
_QUICK, _GAIN = 3, 1.6  # a level, and what 19 makes of its result at best
_RAREST = 12  # doublings below every byte that are told apart


class Packed(NamedTuple):
    """A residual written down: its payloads, and the columns of its rows where it is sorted."""

    coding: Coding
    first: bytes
    second: bytes = b""
    columns: int = 0
    rates: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of its payloads."""
        return len(self.first) + len(self.second) + len(self.rates)


def subtract(new: Bytes, old: Bytes, width: int) -> Bytes:
    """The residual between equally many bytes, a multiple of `width`."""
    if width == 1:
        return new - old
    difference = (_numbers(new, width) - _numbers(old, width)).view(f"<i{width}")
    folded = (difference << 1) ^ (difference >> (8 * width - 1))
    return np.ascontiguousarray(folded.view(np.uint8).reshape(-1, width).T).reshape(-1)


def add(residual: Bytes, old: Bytes, width: int) -> Bytes:
    """The new bytes; undoes subtract."""
    if width == 1:
        return residual + old
    folded = np.ascontiguousarray(residual.reshape(width, -1).T).reshape(-1).view(f"<u{width}")
    difference = (folded >> 1) ^ -(folded & 1)
    return np.asarray(difference + _numbers(old, width)).view(np.uint8)


def pack(residual: Bytes, level: int, columns: int = 0) -> Packed:
    """The smallest way to write a residual; sorted is one where it is of rows of `columns`."""
    plain = _pack(residual, level)
    changed = np.count_nonzero(residual) / max(1, len(residual))
    if columns < _COLUMNS or len(residual) < 2 * columns or not _SORTED[0] < changed < _SORTED[1]:
        return plain
    moved = residual.reshape(-1, columns) != 0
    found = np.concatenate([moved.mean(axis=1), moved.mean(axis=0)])
    steps = _RATE_STEPS * (np.log2(found + 2.0**-_RAREST) + _RAREST)
    rates = np.clip(np.rint(steps), 0, 255).astype(np.uint8)
    way = _pack(residual[_order(rates, columns)], level)
    told = zstandard.ZstdCompressor(level=level).compress(rates.tobytes())
    return min(plain, way._replace(columns=columns, rates=told), key=lambda way: way.size)


def unpack(packed: Packed, size: int) -> Bytes:
    """The residual of `size` bytes, a multiple of its columns; raises BadDelta."""
    written = _unpack(packed, size)
    if not packed.columns:
        return written
    lines = size // packed.columns + packed.columns
    rates = np.frombuffer(expand(packed.rates, lines), np.uint8)
    residual = np.empty(size, np.uint8)
    residual[_order(rates, packed.columns)] = written
    return residual


def _order(rates: Bytes, columns: int) -> NDArray[np.intp]:
    """The places of a matrix's bytes, those first whose row and column change least."""
    wide = rates.astype(np.uint16)
    rows = len(rates) - columns
    return np.argsort((wide[:rows, None] + wide[None, rows:]).reshape(-1), kind="stable")


def _pack(residual: Bytes, level: int) -> Packed:
    compressor = zstandard.ZstdCompressor(level=level)
    at = np.flatnonzero(residual)
    if 2 * len(at) >= len(residual):
        return Packed(Coding.WHOLE, compressor.compress(residual.tobytes()))
    values = compressor.compress(residual[at].tobytes())
    gaps = compressor.compress(_gaps(at).tobytes())
    mask = compressor.compress(np.packbits(residual != 0, bitorder="little").tobytes())
    found = [Packed(Coding.GAPS, gaps, values), Packed(Coding.MASK, mask, values)]
    best = min(found, key=lambda way: way.size)
    # Whole costs by far the most time, and zstd's quick levels tell when it has no chance.
    if len(zstandard.ZstdCompressor(level=_QUICK).compress(residual.tobytes())) < _GAIN * best.size:
        whole = Packed(Coding.WHOLE, compressor.compress(residual.tobytes()))
        best = min(best, whole, key=lambda way: way.size)
    return best


def _unpack(packed: Packed, size: int) -> Bytes:
    if packed.coding == Coding.WHOLE:
        return np.frombuffer(expand(packed.first, size), np.uint8)
    if packed.coding == Coding.GAPS:
        at = _positions(packed.first, size)
    else:
        mask = np.frombuffer(expand(packed.first, (size + 7) // 8), np.uint8)
        at = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
        if len(at) and at[-1] >= size:
            raise BadDelta("a mask names bytes behind its window")
    residual = np.zeros(size, np.uint8)
    residual[at] = np.frombuffer(expand(packed.second, len(at)), np.uint8)
    return residual


def _numbers(octets: Bytes, width: int) -> NDArray[np.unsignedinteger]:
    """As unsigned numbers: sums and differences wrap around."""
    return np.ascontiguousarray(octets).view(f"<u{width}")


def _gaps(at: NDArray[np.int64]) -> Bytes:
    gaps = np.diff(at, prepend=-1) - 1
    full, rest = np.divmod(gaps, 255)
    written = np.full(int(full.sum()) + len(gaps), 255, np.uint8)
    written[np.cumsum(full + 1) - 1] = rest
    return written


def _positions(frame: bytes, size: int) -> NDArray[np.int64]:
    count = content_size(frame)
    if count > size:  # no more bytes than positions
        raise BadDelta(f"{count} gaps in a window of {size} bytes")
    gaps = np.frombuffer(expand(frame, count), np.uint8)
    ends = gaps != 255
    at: NDArray[np.int64] = np.cumsum(gaps, dtype=np.int64)[ends]
    at += np.arange(len(at))
    if len(at) and at[-1] >= size:
        raise BadDelta("a gap leads behind its window")
    return at

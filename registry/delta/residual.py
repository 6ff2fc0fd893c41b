# SPDX-License-Identifier: Apache-2.0
"""What is added to old numbers to give new ones, and three ways to write it down.

After a fine-tune most int8 weights are what they were and most others moved by one. zstd spends at
least a bit on each byte that is not part of a longer match, so the bytes that changed are written
apart from where they are:

    WHOLE  all bytes of the residual
    GAPS   how many zeros lead each byte that is not zero (255: so many zeros and no byte yet);
           then those bytes. Best below a few percent.
    MASK   a bit for each byte, set where it is not zero; then those bytes. Best up to a half.

Wider numbers are subtracted as integers of their width (floats by their bits, which keep order) and
folded so that a small move in either direction is a small number; then the planes of their bytes
follow one another, so that high bytes, mostly zero, lie together.
"""

from __future__ import annotations

import numpy as np
import zstandard
from numpy.typing import NDArray

from registry.delta.form import BadDelta, Coding, content_size, expand

Bytes = NDArray[np.uint8]


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


def pack(residual: Bytes, level: int) -> tuple[Coding, bytes, bytes]:
    """The smallest coding, with its two payloads."""
    compressor = zstandard.ZstdCompressor(level=level)
    at = np.flatnonzero(residual)
    found = [(Coding.WHOLE, compressor.compress(residual.tobytes()), b"")]
    if 2 * len(at) < len(residual):
        values = compressor.compress(residual[at].tobytes())
        gaps = compressor.compress(_gaps(at).tobytes())
        mask = compressor.compress(np.packbits(residual != 0, bitorder="little").tobytes())
        found += [(Coding.GAPS, gaps, values), (Coding.MASK, mask, values)]
    return min(found, key=lambda way: len(way[1]) + len(way[2]))


def unpack(coding: Coding, first: bytes, second: bytes, size: int) -> Bytes:
    """The residual of `size` bytes; raises BadDelta."""
    if coding == Coding.WHOLE:
        return np.frombuffer(expand(first, size), np.uint8)
    if coding == Coding.GAPS:
        at = _positions(first, size)
    else:
        mask = np.frombuffer(expand(first, (size + 7) // 8), np.uint8)
        at = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
        if len(at) and at[-1] >= size:
            raise BadDelta("a mask names bytes behind its window")
    residual = np.zeros(size, np.uint8)
    residual[at] = np.frombuffer(expand(second, len(at)), np.uint8)
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

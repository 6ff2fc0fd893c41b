# SPDX-License-Identifier: Apache-2.0
"""A file of a JSON header and sections of bytes that may be mapped: of compiled models, of golden
vectors.

    0   8 bytes   what kind of file it is
    8   u32       bytes of the header, little-endian, at most HEADER_LIMIT
    12  4 bytes   0
    16  32 bytes  SHA-256 of the header
    48  …         header: JSON; its "sections" lists [offset, size, SHA-256 in hexadecimal]
    then the sections, in order and without overlap, each at a multiple of the kind's alignment,
    zeros between; the file ends where the last section does

Reading is for bytes of strangers: nothing is believed before it was checked, and what is wrong is
a BadSections that says where. The same content gives the same file.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PAGE = 4096  # bytes; an alignment for what is to be mapped
HEADER_LIMIT = 64 << 20
SECTIONS_LIMIT = 100_000
MAPPED = 1 << 20  # bytes; smaller sections are copied
_START = 48
_KEY = "sections"

Bytes = bytes | mmap.mmap


class BadSections(ValueError):
    """The file is not what it should be; the message says where."""


def write_sections(
    path: Path,
    kind: bytes,
    header: Mapping[str, Any],
    sections: Sequence[Bytes],
    alignment: int = PAGE,
) -> None:
    """Write the file beside its place, sync and rename it. Raises OSError."""
    assert len(kind) == 8 and _KEY not in header
    sums = [hashlib.sha256(section).hexdigest() for section in sections]
    text = _placed(header, [len(section) for section in sections], sums, alignment)
    start = kind + len(text).to_bytes(4, "little") + bytes(4) + hashlib.sha256(text).digest()
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(start + text)
            for section in sections:
                file.write(bytes(-file.tell() % alignment))
                file.write(section)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _placed(header: Mapping[str, Any], sizes: list[int], sums: list[str], alignment: int) -> bytes:
    """The header's JSON. Offsets follow the header, whose length the offsets' digits change."""
    length = 0
    while True:
        offset, rows = _START + length, []
        for size, total in zip(sizes, sums, strict=True):
            offset += -offset % alignment
            rows.append([offset, size, total])
            offset += size
        text = json.dumps(
            {**header, _KEY: rows}, sort_keys=True, separators=(",", ":"), allow_nan=False
        ).encode()
        if len(text) <= length:
            return text.ljust(length)
        length = len(text)


class Sections:
    """An open file. `header` is its JSON object, `len()` the number of sections.

    Raises BadSections where it is no file of this kind or is damaged, and OSError.
    """

    def __init__(self, path: Path, kind: bytes, alignment: int = PAGE) -> None:
        self._path = path
        self._alignment = alignment
        self._file = path.open("rb", buffering=0)
        try:
            self.header = self._read_header(kind)
            self._rows = self._read_rows()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()  # what is mapped stays mapped

    def __len__(self) -> int:
        return len(self._rows)

    def size(self, index: int) -> int:
        """Bytes of a section."""
        return self._rows[index][1]

    def read(self, index: int) -> bytes:
        """A section's bytes, checked. Raises BadSections."""
        offset, size, total = self._rows[index]
        data = os.pread(self._file.fileno(), size, offset)
        while len(data) < size and (more := self._more(size - len(data), offset + len(data))):
            data += more
        self._check(index, data, total)
        return data

    def map(self, index: int) -> Bytes:
        """As read; a large section is a shared mapping of the file, which takes no memory. The file
        must not be written to while it is mapped (replacing it is harmless)."""
        offset, size, total = self._rows[index]
        if size < MAPPED or offset % mmap.ALLOCATIONGRANULARITY:
            return self.read(index)
        found = mmap.mmap(self._file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)
        self._check(index, found, total)
        return found

    def _more(self, size: int, offset: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)

    def _check(self, index: int, data: Bytes, total: str) -> None:
        if hashlib.sha256(data).hexdigest() != total:
            raise self._bad(f"the bytes of section {index} are damaged")

    def _read_header(self, kind: bytes) -> dict[str, Any]:
        start = os.pread(self._file.fileno(), _START, 0)
        if len(start) < _START or not start.startswith(kind):
            raise self._bad(f"it does not begin as a file of the kind {kind.decode()!r} does")
        length = int.from_bytes(start[8:12], "little")
        if length > HEADER_LIMIT or start[12:16] != bytes(4):
            raise self._bad(f"a header of {length} bytes")
        text = os.pread(self._file.fileno(), length, _START)
        if hashlib.sha256(text).digest() != start[16:_START]:
            raise self._bad("the header is damaged")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._bad(f"the header is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise self._bad("the header is not an object")
        self._header_end = _START + length
        return found

    def _read_rows(self) -> list[tuple[int, int, str]]:
        rows = self.header.pop(_KEY, None)
        if not isinstance(rows, list) or len(rows) > SECTIONS_LIMIT:
            raise self._bad(f"the header has no list of at most {SECTIONS_LIMIT} sections")
        end, found = self._header_end, []
        for index, row in enumerate(rows):
            shaped = isinstance(row, list) and len(row) == 3
            if not shaped or type(row[0]) is not int or type(row[1]) is not int:
                raise self._bad(f"section {index} is not an offset, a size and a digest")
            offset, size, total = row
            if offset != end + -end % self._alignment or size < 0 or not isinstance(total, str):
                raise self._bad(f"section {index} is not where it belongs")
            end = offset + size
            found.append((offset, size, total))
        if os.fstat(self._file.fileno()).st_size != end:
            raise self._bad(f"the file does not end at byte {end}, where its sections do")
        return found

    def _bad(self, what: str) -> BadSections:
        return BadSections(f"{self._path.name}: {what}")

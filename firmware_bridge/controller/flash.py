# SPDX-License-Identifier: Apache-2.0
"""The controller's flash in a file: NOR flash as a microcontroller has it.

Erasing works on pages and leaves ones; programming works on words of 8 bytes and only turns ones
into zeros. What the file holds when the process is killed is what a board holds when its power is
cut, so that `kill -9` is a power cut. `Flash.before` is asked before each operation and may cut the
power in the middle of it: then part of a page is done and a word is half done.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType
from typing import NamedTuple

from firmware_bridge.errors import BridgeError

PAGE = 4096
WORD = 8
ERASED = b"\xff"


class FlashMisused(BridgeError):
    """The firmware asked for what flash cannot do: a defect of the emulator, never of its user."""


class BadFlash(BridgeError):
    """The file is no flash of a controller, or another process runs it."""


class PowerCut(BaseException):
    """The power failed in the middle of an operation. No code of the controller survives it, so it
    is no Exception."""


class Operation(NamedTuple):
    """What the flash is about to do: `erase` or `program`, of bytes that begin at `at`."""

    kind: str
    at: int
    size: int


class Cut(NamedTuple):
    """Where in an operation the power goes: after `done` bytes, with `seed` for the torn rest."""

    done: int
    seed: int


Before = Callable[[Operation], "Cut | None"]


@dataclass(frozen=True)
class Area:
    """A stretch of whole pages."""

    start: int
    size: int

    @property
    def pages(self) -> int:
        """How many there are."""
        return self.size // PAGE


@dataclass(frozen=True)
class Layout:
    """Where things are; `slot` bytes for each of the two images, whose last page is its trailer."""

    slot: int = 1 << 20

    def _after(self, pages: int, count: int) -> Area:
        return Area(2 * self.slot + pages * PAGE, count * PAGE)

    @property
    def slots(self) -> tuple[Area, Area]:
        """The running image's slot and the other one."""
        return Area(0, self.slot), Area(self.slot, self.slot)

    @property
    def scratch(self) -> Area:
        """One page on its way from slot to slot."""
        return self._after(0, 1)

    @property
    def status(self) -> Area:
        """How far a swap is: a header and three words for each page."""
        return self._after(1, 4)

    @property
    def identity(self) -> Area:
        """Written once, at the factory."""
        return self._after(5, 2)

    @property
    def counter(self) -> Area:
        """The security counter, as records."""
        return self._after(7, 2)

    @property
    def settings(self) -> Area:
        """Settings, as records."""
        return self._after(9, 4)

    @property
    def log(self) -> Area:
        """The fault log, as records."""
        return self._after(13, 8)

    @property
    def dump(self) -> Area:
        """The last crash dump."""
        return self._after(21, 16)

    @property
    def size(self) -> int:
        """Bytes of the whole flash."""
        return self.dump.start + self.dump.size


class Flash:
    """The flash of one controller; a second process that opens it is refused with BadFlash.

    before: asked before every operation, see the module.
    """

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        self.path = path
        self.before: Before | None = None
        self.operations = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.layout = self._claimed(layout)
        except BaseException:
            os.close(self._file)
            raise
        self._bytes = mmap.mmap(self._file, self.layout.size)

    def _claimed(self, layout: Layout | None) -> Layout:
        """Lock the file and have it hold a flash. An empty one becomes a flash whose content is
        not defined, as a chip's from the shelf is: the factory erases it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadFlash(
                f"another controller runs on {self.path}", "stop it, or give another --flash"
            ) from None
        found = os.fstat(self._file).st_size
        overhead = Layout(0).size
        if found == 0:
            layout = layout or Layout()
            os.ftruncate(self._file, layout.size)
            return layout
        slot = (found - overhead) // 2
        if slot < PAGE or found != Layout(slot).size or slot % PAGE:
            raise BadFlash(
                f"{self.path} is no flash of a controller: {found} bytes",
                "give a file that does not exist yet, and one is made",
            )
        return Layout(slot)

    def __enter__(self) -> Flash:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._bytes.close()
        os.close(self._file)

    def read(self, at: int, size: int) -> bytes:
        """Bytes at an address."""
        return self._bytes[at : at + size]

    def program(self, at: int, data: bytes) -> None:
        """Write whole words to where they are still erased, or where only ones become zeros."""
        size = len(data)
        if at % WORD or size % WORD or not 0 <= at <= at + size <= self.layout.size:
            raise FlashMisused(f"programs {size} bytes at {at:#x}")
        old = self._bytes[at : at + size]
        if old != ERASED * size:
            new = int.from_bytes(data, "little")
            if int.from_bytes(old, "little") & new != new:
                raise FlashMisused(f"programs ones over zeros at {at:#x}")
        cut = self._ask("program", at, size)
        if cut is None:
            self._bytes[at : at + size] = data
            return
        done = min(cut.done, size) // WORD * WORD
        self._bytes[at : at + done] = data[:done]
        if done < size:
            torn = slice(at + done, at + done + WORD)
            left = Random(cut.seed).randbytes(WORD)  # a bit that is set has not got its charge yet
            self._bytes[torn] = bytes(
                have & (want | keep)
                for have, want, keep in zip(
                    self._bytes[torn], data[done : done + WORD], left, strict=True
                )
            )
        raise PowerCut

    def erase(self, at: int, size: int = PAGE) -> None:
        """Erase whole pages, one operation each."""
        if at % PAGE or size % PAGE or not 0 <= at <= at + size <= self.layout.size:
            raise FlashMisused(f"erases {size} bytes at {at:#x}")
        for page in range(at, at + size, PAGE):
            cut = self._ask("erase", page, PAGE)
            if cut is None:
                self._bytes[page : page + PAGE] = ERASED * PAGE
                continue
            noise = Random(cut.seed)
            old = self._bytes[page : page + PAGE]
            self._bytes[page : page + PAGE] = b"".join(
                noise.choice(
                    (
                        old[word : word + WORD],
                        ERASED * WORD,
                        bytes(b | r for b, r in zip(old[word : word + WORD], noise.randbytes(WORD),
                                                    strict=True)),
                    )
                )
                for word in range(0, PAGE, WORD)
            )  # fmt: skip
            raise PowerCut

    def erase_used(self, at: int, size: int = PAGE) -> None:
        """Erase those pages that are not erased: what spares a real flash spares time here too."""
        for page in range(at, at + size, PAGE):
            if self._bytes[page : page + PAGE] != ERASED * PAGE:
                self.erase(page)

    def _ask(self, kind: str, at: int, size: int) -> Cut | None:
        self.operations += 1
        return self.before(Operation(kind, at, size)) if self.before else None

# SPDX-License-Identifier: Apache-2.0
"""What was done to cards from this machine: JSON lines that survive a power cut and a full disk.

One line is one fact about one card, appended with one write and an fsync, so that several commands
may write at a time and a torn last line is the only damage that a power cut can do; readers skip
it. `History.reserve` sets a spare block aside before a card is touched: a disk that fills up during
an update cannot keep the rest of its history from being written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from firmware_bridge.errors import BridgeError

DEFAULT_FOLDER: Final = Path("/var/lib/tepi/cards")
SPARE_BYTES: Final = 64 * 1024  # some 200 lines; an update writes 20
_LINE_BYTES: Final = 4096  # as long as a line may be
DRAINING: Final = "draining"  # outcomes that `left_drained` goes by
TAKEN: Final = "taken"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class HistoryFull(BridgeError):
    """There is no room to write down what would be done."""

    exit_code = 19


class HistoryUnwritable(BridgeError):
    """The history's folder cannot be written to."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line."""

    at: float  # seconds since 1970, by this machine's clock
    card: str  # its serial number, or its port where it did not say
    port: str
    run: str  # the same for all lines of one command about one card
    action: str  # flash, confirm, revert, erase, reset, limits
    step: str = ""  # of firmware_bridge.update.steps, or of the action
    outcome: str = ""  # an event of that step, `began`, `failed`
    version: str = ""  # of the image
    sha: str = ""  # of the image, hexadecimal
    detail: str = ""  # for people
    more: dict[str, Any] = field(default_factory=dict)


class History:
    """The history of one folder. Thread-safe: each line is one write."""

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        clock: Callable[[], float] = time.time,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        """`write` is os.write, apart from tests of full disks."""
        self.folder = folder
        self.path = folder / "history.jsonl"
        self._spare = folder / "history.spare"
        self._clock = clock
        self._write = write

    def reserve(self) -> None:
        """Make sure that an update's lines will fit, whatever fills the disk meanwhile.

        Raises HistoryFull and HistoryUnwritable. To be called before anything is done to a card.
        """
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if self._spare.stat().st_size >= SPARE_BYTES:
                    return
            self._set_aside()

    def _set_aside(self) -> None:
        handle = os.open(self._spare, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        try:
            for _ in range(SPARE_BYTES // _LINE_BYTES):
                _whole(self._write, handle, os.urandom(_LINE_BYTES))  # not to be compressed away
            os.fsync(handle)
        except OSError:
            self._spare.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)

    def add(
        self,
        card: str,
        port: str,
        run: str,
        action: str,
        step: str = "",
        outcome: str = "",
        **rest: Any,
    ) -> Record:
        """Append a line; it is on the disk when this returns. Raises as `reserve` does."""
        record = Record(self._clock(), card, port, run, action, step, outcome, **rest)
        line = json.dumps({k: v for k, v in asdict(record).items() if v}).encode() + b"\n"
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._append(line)
            except OSError as error:
                if error.errno not in _FULL or not self._spare.exists():
                    raise
                self._spare.unlink(missing_ok=True)
                self._append(line)
        return record

    def _append(self, line: bytes) -> None:
        handle = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # after a line that a power cut tore
            try:
                _whole(self._write, handle, line)
            except OSError:
                with contextlib.suppress(
                    OSError
                ):  # a torn line is passed over, as after power cuts
                    os.ftruncate(handle, size)
                raise
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise HistoryFull(
                    f"no room for the history in {self.folder}: {error.strerror}",
                    "free some space there, or keep it elsewhere with --history FOLDER; "
                    "what was not written down is not done",
                ) from error
            raise HistoryUnwritable(
                f"cannot write the history in {self.folder}: {error.strerror}",
                "run as a user who may, or keep it elsewhere with --history FOLDER",
            ) from error

    def read(self, card: str = "") -> list[Record]:
        """Every line about `card` (a serial number or a port; empty: all), the oldest first. Torn
        lines, and fields of later versions, are passed over."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        found = [record for line in lines if (record := _parsed(line)) is not None]
        return [record for record in found if card in ("", record.card, record.port)]

    def left_drained(self, card: str) -> str:
        """The address of the server that a run took this card from and, cut short, did not give
        it back to; empty where there is none."""
        server = ""
        for record in self.read(card):
            if record.outcome == DRAINING:
                server = str(record.more.get("server", ""))
            elif record.outcome == TAKEN:
                server = ""
        return server


def _whole(write: Callable[[int, bytes], int], handle: int, data: bytes) -> None:
    """All of it: a disk that fills up takes a part and says so at the next write."""
    rest = memoryview(data)
    while rest:
        rest = rest[write(handle, bytes(rest)) :]


def _parsed(line: bytes) -> Record | None:
    try:
        found = json.loads(line)
        known = {key: value for key, value in found.items() if key in Record.__slots__}
        return Record(**{"run": "", "port": "", **known})
    except (ValueError, TypeError, AttributeError):
        return None

# SPDX-License-Identifier: Apache-2.0
"""The fault table of device/abi/faults.h, and the exception that each fault becomes."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from device.binding._card import ffi, lib
from device.errors import (
    CardError,
    CardFault,
    CardFull,
    CardGone,
    CardTimeout,
    ProgramRejected,
)

if TYPE_CHECKING:
    from device.binding._card import CData


class Fault(NamedTuple):
    """One numbered fault. `grpc` is the name of the status that a server answers with."""

    code: int
    name: str
    severity: str
    grpc: str
    meaning: str
    remedy: str


def _text(value: CData) -> str:
    raw = ffi.string(value)
    assert isinstance(raw, bytes)
    return raw.decode("ascii")


def _row(row: CData) -> Fault:
    names = (row.name, row.severity, row.grpc, row.meaning, row.remedy)
    return Fault(row.code, *(_text(name) for name in names))


FAULTS: dict[int, Fault] = {
    fault.code: fault
    for fault in (_row(lib.tepi_fault_rows[i]) for i in range(lib.tepi_fault_row_count))
}
"""Every fault by its code."""

CODES: dict[str, int] = {fault.name: fault.code for fault in FAULTS.values()}

_GONE = {CODES[name] for name in ("GONE", "NOT_A_CARD", "STALE_GENERATION", "NO_PROGRAM")}
_TIMEOUT = {CODES[name] for name in ("DEADLINE", "TIMEOUT")}
_FULL = {CODES["NO_MEMORY"]}
_LOAD_AGAIN = {CODES["STALE_GENERATION"], CODES["NO_PROGRAM"]}


def _error_class(code: int, name: str) -> type[CardError]:
    if code in _GONE:
        return CardGone
    if code in _TIMEOUT:
        return CardTimeout
    if code in _FULL:
        return CardFull
    return ProgramRejected if name.startswith("PROGRAM_") else CardFault


def _unknown(code: int) -> Fault:
    remedy = "update the host software, which is older than the card's"
    return Fault(code, f"FAULT_{code}", "FATAL", "UNAVAILABLE", "an unknown fault", remedy)


def card_error(what: str, code: int, info: int = 0) -> CardError:
    """The exception for a fault, for the caller to raise; `what` says what was being done."""
    fault = FAULTS.get(code) or _unknown(code)
    remedy = fault.remedy
    meaning = fault.meaning
    if code == CODES["STALE_GENERATION"]:
        meaning = "the card was reset or replaced since the program was loaded"
        remedy = "load the program again"
    detail = f", info {info}" if info else ""
    return _error_class(code, fault.name)(
        f"{what}: {meaning} (fault {code} {fault.name}{detail}); {remedy}",
        code=code,
        fault=fault.name,
        info=info,
        remedy=remedy,
        fatal=fault.severity == "FATAL",
    )


def outcome(what: str, result: int, failure: CData) -> Exception:
    """The exception for a negative errno and its fault word, for the caller to raise."""
    if failure.fault:
        return card_error(what, failure.fault, failure.info)
    if result == -errno.ENOMEM:
        remedy = "run smaller batches or fewer at once, or give the process more memory"
        return CardFull(
            f"{what}: out of DMA memory on the host; {remedy}",
            code=CODES["NO_MEMORY"],
            fault="NO_MEMORY",
            remedy=remedy,
        )
    if result == -errno.E2BIG:
        return ValueError(f"{what}: an input or output reaches 4 GiB; use smaller batches")
    if result == -errno.EINVAL:
        return ValueError(f"{what}: an argument is out of range")
    return OSError(-result, f"{what}: {os.strerror(-result)}")

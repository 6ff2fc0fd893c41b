# SPDX-License-Identifier: Apache-2.0
"""The ways to a card, by the name that `Card.open` and --card take."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from device.binding._card import ffi, lib
from device.binding.abi import Isa
from device.binding.faults import CODES, card_error, outcome
from device.errors import CardError, CardGone, CardTimeout

if TYPE_CHECKING:
    from device.binding._card import CData

KINDS: Final = ("inproc", "vfio-user:PATH", "vfio:ADDRESS")
WORKERS_MAX = 256


def software_card(threads: int, memory: int, isa: str) -> int:
    """Check what a software card is asked to be; the number of its instruction set.

    Raises ValueError.
    """
    if not 1 <= threads <= WORKERS_MAX:
        raise ValueError(f"threads must be 1 to {WORKERS_MAX}, got {threads}")
    if memory <= 0:
        raise ValueError(f"memory must be a positive number of bytes, got {memory}")
    level = Isa.__members__.get(isa.upper())
    if level is None:
        known = ", ".join(name.lower() for name in Isa.__members__)
        raise ValueError(f"unknown isa {isa!r}; one of {known}")
    return level


def no_such_isa(isa: str) -> ValueError:
    """The error for an instruction set that this machine has not."""
    return ValueError(f"this machine lacks the instruction set {isa!r}; use isa='auto'")


def open_inproc(threads: int, memory: int, isa: str) -> CData:
    """A software card in this process. Raises as Card.open."""
    level = software_card(threads, memory, isa)
    handle = ffi.new("struct tepi_slot_card **")
    failure = ffi.new("struct tepi_failure *")
    result = lib.tepi_slot_open(threads, memory, level, handle, failure)
    if result == -errno.ENOTSUP:
        raise no_such_isa(isa)
    if result:
        raise outcome("opening the inproc card", result, failure)
    opened: CData = handle[0]
    return opened


def open_vfio_user(path: str, isa: str) -> CData:
    """The card behind the vfio-user socket at `path`. Raises as Card.open."""
    if isa.lower() != "auto":
        raise ValueError(
            f"isa {isa!r} cannot be asked of a card in another process; give it to the `tepi card "
            f"serve --isa` that serves {path}"
        )
    handle = ffi.new("struct tepi_slot_card **")
    failure = ffi.new("struct tepi_failure *")
    result = lib.tepi_slot_connect(os.fsencode(path), handle, failure)
    if result:
        raise _no_card(path, result, failure)
    opened: CData = handle[0]
    return opened


_START = "start it with `tepi card serve --socket {path}`"
_REFUSALS = {
    errno.ENOENT: ("GONE", "there is no socket at {path}", _START),
    errno.ECONNREFUSED: ("GONE", "nobody listens at {path}", _START),
    errno.EACCES: (
        "GONE",
        "this user may not connect to {path}",
        "join the socket's group, or run as the user who serves the card",
    ),
    errno.ECONNRESET: (
        "GONE",
        "the server at {path} hung up",
        "look at its log; it may have as many clients as it takes",
    ),
    errno.ENOSPC: ("GONE", "the card at {path} has no room for a further host", "close one"),
    errno.EPROTO: (
        "NOT_A_CARD",
        "what listens at {path} is no vfio-user server of a card",
        "name the socket of a `tepi card serve`",
    ),
    errno.EPROTONOSUPPORT: (
        "NOT_A_CARD",
        "the server at {path} speaks another version of vfio-user",
        "run the same release of Tepi on both sides",
    ),
    errno.ETIMEDOUT: (
        "TIMEOUT",
        "the server at {path} does not answer",
        "look whether its process is stopped or overloaded, and start it again",
    ),
}


def _no_card(path: str, result: int, failure: CData) -> Exception:
    what = f"opening the card at {path}"
    if failure.fault:
        return card_error(what, failure.fault, failure.info)
    if result == -errno.ENAMETOOLONG:
        return ValueError(f"{path}: too long for a UNIX socket; use a path of at most 107 bytes")
    if -result not in _REFUSALS:
        return outcome(what, result, failure)
    fault, meaning, remedy = (text.format(path=path) for text in _REFUSALS[-result])
    kind: type[CardError] = CardTimeout if fault == "TIMEOUT" else CardGone
    return kind(f"{meaning}; {remedy}", code=CODES[fault], fault=fault, remedy=remedy)

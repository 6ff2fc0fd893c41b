# SPDX-License-Identifier: Apache-2.0
"""Opening a PCIe card that is bound to vfio-pci."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from device.binding._card import ffi, lib
from device.binding.faults import CODES, outcome
from device.errors import CardGone

if TYPE_CHECKING:
    from device.binding._card import CData


def _text(value: CData) -> str:
    raw = ffi.string(value)
    assert isinstance(raw, bytes)
    return raw.decode(errors="replace")


def open_vfio(address: str) -> CData:
    """The card at a PCI address. Raises ValueError where it is none, CardGone with the reason and
    the remedy where the card cannot be had.
    """
    handle = ffi.new("struct tepi_slot_card **")
    reason = ffi.new("struct tepi_bus_reason *")
    failure = ffi.new("struct tepi_failure *")
    result = lib.tepi_slot_vfio(address.encode(), handle, reason, failure)
    what, remedy = _text(reason.what), _text(reason.remedy)
    if result == -errno.EINVAL and what:
        raise ValueError(f"{what}; {remedy}")
    if result == -errno.ENOMEM and not failure.fault:
        what = f"opening the card at {address}: the host may not lock memory for the card's DMA"
        remedy = "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=infinity)"
    if result and what:
        raise CardGone(f"{what}; {remedy}", code=CODES["GONE"], fault="GONE", remedy=remedy)
    if result:
        raise outcome(f"opening the card at {address}", result, failure)
    opened: CData = handle[0]
    return opened

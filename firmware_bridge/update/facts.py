# SPDX-License-Identifier: Apache-2.0
"""What a card says of itself, read before anything is decided about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from firmware_bridge.client import Controller
from firmware_bridge.smp import img
from firmware_bridge.smp.errors import SmpError
from firmware_bridge.update.steps import Slot, Slots


@dataclass(frozen=True, slots=True)
class Facts:
    """None, or empty: the card does not tell, as a controller that is not ours may not."""

    serial: str
    board: str
    counter: int | None  # security counter that an image must reach
    slot_bytes: int | None
    last_fault: int  # number of the newest entry in its fault log; 0: none
    slots: Slots


def read_slots(controller: Controller) -> Slots:
    """What the slots hold now. Raises BridgeError."""
    return slots_of(controller.images())


def slots_of(images: Iterable[img.Slot]) -> Slots:
    """Slots without a hash hold nothing that could be started."""
    return Slots(
        tuple(
            Slot(
                one.slot,
                one.version,
                one.hash,
                active=bool(one.active),
                confirmed=bool(one.confirmed),
                pending=bool(one.pending),
            )
            for one in images
            if one.hash is not None
        )
    )


def read_facts(controller: Controller) -> Facts:
    """Raises BridgeError where the card does not answer."""
    return Facts(
        serial=text_setting(controller, "id/serial"),
        board=text_setting(controller, "id/board"),
        counter=number_setting(controller, "id/counter"),
        slot_bytes=_slot_bytes(controller),
        last_fault=last_fault(controller),
        slots=read_slots(controller),
    )


def text_setting(controller: Controller, name: str) -> str:
    """A setting as text; empty where the card has none of that name."""
    try:
        return controller.setting_get(name).decode(errors="replace").strip("\0 \n")
    except SmpError:
        return ""


def number_setting(controller: Controller, name: str) -> int | None:
    """A setting that is a little-endian number; None where the card has none of that name."""
    try:
        return int.from_bytes(controller.setting_get(name), "little")
    except SmpError:
        return None


def _slot_bytes(controller: Controller) -> int | None:
    """What an image may have; servers before Zephyr 4.0 do not tell."""
    try:
        images = controller.call(img.SlotInfo()).images
    except SmpError:
        return None
    return next((one.max_image_size for one in images if one.max_image_size), None)


def last_fault(controller: Controller) -> int:
    """Number of the newest fault; 0 where there is none or the card keeps no log."""
    try:
        return max((fault.n for fault in controller.fault_log()), default=0)
    except SmpError:
        return 0

# SPDX-License-Identifier: Apache-2.0
"""The two slots of the flash: the image in each, and what their trailers order for the next boot.

A trailer is a slot's last page, laid out as MCUboot's (docs/design.md, "Image trailer") for an
alignment of 8: copy_done, image_ok and the magic are its last 32 bytes. One flag is ours, in the
place of MCUboot's swap_size, which the swap's own status makes needless: `fallback` says that the
slot holds what the running image replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from firmware_bridge.controller.flash import ERASED, PAGE, WORD, Flash
from firmware_bridge.image import Image, ImageError, parse_image

MAGIC = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")
SET = b"\x01".ljust(WORD, ERASED)
_FLAGS = {"image_ok": 24, "copy_done": 32, "fallback": 48}
"""Distance of each flag's word from the end of the slot."""


class SwapType(Enum):
    """What the next boot does (MCUboot's boot_swap_type)."""

    NONE = 1
    TEST = 2
    PERM = 3
    REVERT = 4


@dataclass(frozen=True)
class Trailer:
    """A slot's trailer; a flag that a power cut tore is not set."""

    magic: bool
    image_ok: bool
    copy_done: bool
    fallback: bool


class Slots:
    """Reads both slots and writes their trailers."""

    def __init__(self, flash: Flash) -> None:
        self.flash = flash
        self.areas = flash.layout.slots

    @property
    def largest(self) -> int:
        """Bytes of the largest image."""
        return self.flash.layout.slot - PAGE

    def image(self, slot: int) -> Image | None:
        """The image in a slot, unless there is none that can be read."""
        try:
            return parse_image(self.flash.read(self.areas[slot].start, self.largest))
        except ImageError:
            return None

    def trailer(self, slot: int) -> Trailer:
        """A slot's trailer."""
        area = self.areas[slot]
        end = self.flash.read(area.start + area.size - 64, 64)
        flags = {name: end[64 - at : 64 - at + WORD] == SET for name, at in _FLAGS.items()}
        return Trailer(magic=end.endswith(MAGIC), **flags)

    def swap_type(self) -> SwapType:
        """The table of MCUboot's bootutil_public.c, boot_swap_tables."""
        running, other = self.trailer(0), self.trailer(1)
        if other.magic:
            return SwapType.PERM if other.image_ok else SwapType.TEST
        if running.magic and running.copy_done and not running.image_ok:
            return SwapType.REVERT
        return SwapType.NONE

    def confirmed(self) -> bool:
        """Whether the running image is to stay; one that was never swapped in is."""
        running = self.trailer(0)
        return running.image_ok or not running.magic

    def set_flag(self, slot: int, name: str) -> None:
        """Set a flag in a trailer; a torn one becomes whole."""
        area = self.areas[slot]
        self.flash.program(area.start + area.size - _FLAGS[name], SET)

    def set_magic(self, slot: int) -> None:
        """Have a trailer count."""
        area = self.areas[slot]
        self.flash.program(area.start + area.size - len(MAGIC), MAGIC)

    def erase_trailer(self, slot: int) -> None:
        """Order nothing any more."""
        self.flash.erase_used(self.areas[slot].start + self.largest)

    def request(self, permanent: bool) -> None:
        """Have the next boot swap (boot_request_upgrade): the magic comes last, since it counts."""
        if permanent:
            self.set_flag(1, "image_ok")
        self.set_magic(1)

    def confirm(self) -> None:
        """Keep the running image (boot_write_img_confirmed)."""
        if not self.confirmed():
            self.set_flag(0, "image_ok")

    def erase(self, slot: int) -> None:
        """Empty a slot. The image's header goes first, so that no half of an image looks like
        one; the trailer goes last."""
        area = self.areas[slot]
        self.flash.erase_used(area.start, area.size)

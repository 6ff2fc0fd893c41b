# SPDX-License-Identifier: Apache-2.0
"""The bootloader, as MCUboot in its swap mode with validation, signature and downgrade prevention.

It starts slot 0, and nothing that is damaged, unsigned, another board's, or below the security
counter. The counter rises when a confirmed image boots; an image on trial never raises it, so that
the one before can come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from firmware_bridge.controller.faultlog import Code
from firmware_bridge.controller.flash import Flash
from firmware_bridge.controller.records import Records
from firmware_bridge.controller.slots import Slots, SwapType
from firmware_bridge.controller.swap import Swap
from firmware_bridge.image import Image, ImageError, PublicKey, check_image

Tell = Callable[[Code, str], None]


class SecurityCounter:
    """The lowest security counter that may boot; it only rises."""

    def __init__(self, flash: Flash) -> None:
        self._records = Records(flash, flash.layout.counter, lambda all_: all_[-1:])

    @property
    def value(self) -> int:
        """u32."""
        return max((int.from_bytes(record, "little") for record in self._records.all), default=0)

    def rise(self, value: int) -> None:
        """Never falls."""
        if value > self.value:
            self._records.add(value.to_bytes(4, "little"))


class Bootloader:
    """What runs before the firmware.

    keys: of whoever may sign images. board: this card's name. tell: receives what it met.
    """

    def __init__(self, flash: Flash, keys: Sequence[PublicKey], board: str, tell: Tell) -> None:
        self.slots = Slots(flash)
        self.counter = SecurityCounter(flash)
        self._swap = Swap(self.slots)
        self._keys = keys
        self._board = board
        self._tell = tell

    def boot(self) -> Image | None:
        """Do what the trailers order, and return the image that runs; None: no slot has a valid
        one, and only serial recovery is left."""
        resumed = self._swap.resume()
        if resumed is SwapType.REVERT:
            self._tell(Code.REVERTED, self._version())
        self._settle()
        ordered = self.slots.swap_type()
        if ordered is not SwapType.NONE and self._valid(1, ordered):
            self._swap.start(ordered)
            if ordered is SwapType.REVERT:
                self._tell(Code.REVERTED, self._version())
            self._settle()
        running = self._checked(0)
        if running is None and self._checked(1) is not None:
            self._tell(Code.IMAGE_REJECTED, "slot 0 is damaged; slot 1 takes its place")
            self._swap.start(SwapType.PERM)
            running = self._checked(0)
        return running

    def _version(self) -> str:
        image = self.slots.image(0)
        return f"back to {image.version}" if image else "back"

    def _settle(self) -> None:
        """A confirmed image needs its predecessor no more, and raises the counter."""
        if not self.slots.confirmed():
            return
        image = self._checked(0)
        if image is None:
            return
        self.counter.rise(image.security_counter or 0)
        if self.slots.trailer(1).fallback and self.slots.swap_type() is SwapType.NONE:
            self.slots.erase(1)

    def _checked(self, slot: int) -> Image | None:
        """The image in a slot, if it may run."""
        image = self.slots.image(slot)
        try:
            self._check(image)
        except ImageError:
            return None
        return image

    def _check(self, image: Image | None) -> None:
        if image is None or not image.bootable:
            raise ImageError("no bootable image")
        check_image(
            image,
            keys=self._keys,
            board=self._board,
            counter=self.counter.value,
            slot_size=self.slots.largest,
        )

    def _valid(self, slot: int, ordered: SwapType) -> bool:
        """Whether a swap may go ahead. An update that may not run is erased, as MCUboot does; a
        fallback that may not run is left, and the image on trial runs on."""
        try:
            self._check(self.slots.image(slot))
        except ImageError as error:
            self._tell(Code.IMAGE_REJECTED, str(error))
            if ordered is not SwapType.REVERT:
                self.slots.erase(slot)
            return False
        return True

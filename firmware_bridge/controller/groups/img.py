# SPDX-License-Identifier: Apache-2.0
"""Group 1, images, as Zephyr's img_mgmt does it with one image in two slots.

Built like CONFIG_MCUMGR_GRP_IMG_ALLOW_ERASE_PENDING and CONFIG_IMG_ENABLE_IMAGE_CHECK. The order
in which an upload is inspected is img_mgmt_upload_inspect's, since it decides which error is told.
"""

from __future__ import annotations

from hashlib import sha256

from firmware_bridge.controller.flash import ERASED, PAGE, WORD
from firmware_bridge.controller.groups.group import Group, Payload, Refused, take
from firmware_bridge.controller.slots import Slots, SwapType
from firmware_bridge.image import Version
from firmware_bridge.image.parse import HEADER, HEADER_BYTES, MAGIC
from firmware_bridge.smp import img
from firmware_bridge.smp.header import Op

_HASH_BYTES = 32
_BLOCK = 512
"""Bytes that are programmed at a time (CONFIG_IMG_BLOCK_BUF_SIZE)."""


class _Upload:
    """An upload on its way; a reset forgets it."""

    def __init__(self, slot: int, size: int, sha: bytes) -> None:
        self.slot = slot
        self.size = size
        self.sha = sha
        self.offset = 0
        self.written = 0
        self.buffer = bytearray()


class Images(Group):
    """Lists, uploads, tests, confirms and erases images.

    running: whether slot 0 holds a valid image that runs; else this is serial recovery, where any
    slot may be written.
    """

    number = img.StateRead.GROUP
    name = "img mgmt"
    v1 = {  # noqa: RUF012  img_mgmt_translate_error_code
        3: 5, 4: 5, 9: 6, 27: 6, 28: 6, 15: 2, 14: 3, 19: 3, 20: 3, 21: 3, 22: 3, 24: 3, 25: 3,
    }  # fmt: skip

    def __init__(self, slots: Slots, running: bool) -> None:
        super().__init__()
        self._slots = slots
        self._flash = slots.flash
        self._running = running
        self._upload: _Upload | None = None
        self.handlers = {
            (Op.READ, 0): lambda _: self._state(),
            (Op.WRITE, 0): self._set_state,
            (Op.WRITE, 1): self._upload_chunk,
            (Op.WRITE, 5): self._erase,
            (Op.READ, 6): self._slot_info,
        }

    def _next(self) -> tuple[int, SwapType]:
        """The slot that boots next, and why (img_mgmt_get_next_boot_slot)."""
        kind = self._slots.swap_type()
        return int(kind is not SwapType.NONE), kind

    def _state(self) -> Payload:
        """The flags are those of img_mgmt_state_read."""
        _, kind = self._next()
        confirmed = (kind is not SwapType.REVERT, kind is SwapType.REVERT)
        images = []
        for slot in (0, 1):
            image = self._slots.image(slot)
            if image is None:
                continue
            images.append(
                {
                    "slot": slot,
                    "version": str(image.version),
                    "hash": image.hash,
                    "bootable": image.bootable,
                    "pending": slot == 1 and kind in (SwapType.TEST, SwapType.PERM),
                    "confirmed": confirmed[slot],
                    "active": slot == 0 and self._running,
                    "permanent": slot == 1 and kind is SwapType.PERM,
                }
            )
        return {"images": images, "splitStatus": 0}

    def _set_state(self, payload: Payload) -> Payload:
        """img_mgmt_state_write and img_mgmt_set_next_boot_slot."""
        confirm = take(payload, "confirm", bool) or False
        named = take(payload, "hash", bytes) or b""
        if named:
            if len(named) != _HASH_BYTES:
                raise self.refused(img.ERR_HASH)
            slot = self._find(named)
        elif confirm:
            slot = 0
        else:
            raise self.refused(img.ERR_HASH)
        self._order(slot, confirm)
        return self._state()

    def _find(self, named: bytes) -> int:
        for slot in (0, 1):
            image = self._slots.image(slot)
            if image is not None and image.hash == named:
                return slot
        raise self.refused(img.ERR_HASH_NOT_FOUND)

    def _order(self, slot: int, confirm: bool) -> None:
        next_slot, kind = self._next()
        if not confirm and slot == 0:
            raise self.refused(img.ERR_TEST_ACTIVE)
        if kind is SwapType.TEST:
            if not confirm and slot == next_slot:
                return
            raise self.refused(img.ERR_PENDING)
        if kind is SwapType.REVERT:
            if not confirm:
                raise self.refused(img.ERR_PENDING)
            if slot == next_slot:
                return
        else:
            if confirm and slot == next_slot:
                return
            if kind is SwapType.PERM:
                raise self.refused(img.ERR_PENDING)
        if slot == 0:
            self._slots.confirm()
        else:
            self._slots.request(permanent=confirm)

    def _in_use(self, slot: int) -> bool:
        """img_mgmt_slot_in_use; in recovery nothing is."""
        if not self._running:
            return False
        return slot == 0 or self._next()[1] is SwapType.REVERT

    def _erase(self, payload: Payload) -> Payload:
        slot = take(payload, "slot", int)
        slot = 1 if slot is None else slot
        if slot > 1:
            raise self.refused(img.ERR_INVALID_SLOT)
        if self._slots.image(slot) is not None and self._in_use(slot):
            raise self.refused(img.ERR_NO_FREE_SLOT)
        self._upload = None
        self._slots.erase(slot)
        return {}

    def _slot_info(self, _: Payload) -> Payload:
        """Command 6 of Zephyr 4.0 and later; the size is what an image may have."""
        size = self._slots.largest
        slots = [{"slot": 0, "size": size}, {"slot": 1, "size": size, "upload_image_id": 0}]
        return {"images": [{"image": 0, "slots": slots, "max_image_size": size}]}

    def _upload_chunk(self, payload: Payload) -> Payload:
        try:
            return self._uploaded(payload)
        except Refused:
            self._upload = None
            raise

    def _uploaded(self, payload: Payload) -> Payload:
        offset = take(payload, "off", int)
        data = take(payload, "data", bytes) or b""
        if offset is None:
            raise self.refused(img.ERR_INVALID_OFFSET)
        if offset == 0:
            resumed = self._begin(payload, data)
            if resumed is not None:
                return resumed
        upload = self._upload
        if upload is None or offset != upload.offset:
            return {"off": upload.offset if upload else 0}
        if offset + len(data) > upload.size:
            raise self.refused(img.ERR_OVERRUN)
        upload.buffer += data
        upload.offset += len(data)
        done = upload.offset == upload.size
        self._write(upload, done)
        if not done:
            return {"off": upload.offset}
        self._upload = None
        return {"off": upload.size, "match": self._holds(upload)}

    def _begin(self, payload: Payload, data: bytes) -> Payload | None:
        """Take up a new upload, or answer where an old one is."""
        size = take(payload, "len", int)
        sha = take(payload, "sha", bytes) or b""
        slot = self._inspect(payload, data, size, sha)
        assert size is not None
        if sha and self._upload is not None and self._upload.sha == sha:
            return {"off": self._upload.offset}
        if slot is None:
            raise self.refused(img.ERR_NO_FREE_SLOT)
        if size > self._slots.largest:
            raise self.refused(img.ERR_TOO_LARGE)
        running = self._slots.image(0) if take(payload, "upgrade", bool) else None
        if running and running.version[:3] >= Version(*HEADER.unpack_from(data)[6:10])[:3]:
            raise self.refused(img.ERR_NOT_NEWER)
        upload = _Upload(slot, size, sha)
        if len(sha) == _HASH_BYTES and self._holds(upload):
            self._upload = None
            return {"off": size, "match": True}
        self._make_room(upload)
        self._upload = upload
        return None

    def _inspect(self, payload: Payload, data: bytes, size: int | None, sha: bytes) -> int | None:
        """The slot for it, after the checks that come before any state counts."""
        for wrong, code in (
            (len(data) < HEADER_BYTES, img.ERR_HEADER),
            (size is None, img.ERR_INVALID_LENGTH),
            (data[:4] != MAGIC.to_bytes(4, "little"), img.ERR_MAGIC),
            (len(sha) > _HASH_BYTES, img.ERR_HASH),
        ):
            if wrong:
                raise self.refused(code)
        return next((slot for slot in (0, 1) if not self._in_use(slot)), None)

    def _make_room(self, upload: _Upload) -> None:
        """Erase what the image takes, then the trailer (img_mgmt_erase_image_data)."""
        pages = -(-upload.size // PAGE)
        self._flash.erase_used(self._slots.areas[upload.slot].start, pages * PAGE)
        self._slots.erase_trailer(upload.slot)

    def _write(self, upload: _Upload, last: bool) -> None:
        """Program whole blocks; with the last chunk the rest, filled to whole words."""
        buffer = upload.buffer
        size = len(buffer) if last else len(buffer) // _BLOCK * _BLOCK
        if not size:
            return
        data = bytes(buffer[:size])
        del buffer[:size]
        data = data.ljust(-(-size // WORD) * WORD, ERASED)
        self._flash.program(self._slots.areas[upload.slot].start + upload.written, data)
        upload.written += size

    def _holds(self, upload: _Upload) -> bool:
        data = self._flash.read(self._slots.areas[upload.slot].start, upload.size)
        return sha256(data).digest() == upload.sha

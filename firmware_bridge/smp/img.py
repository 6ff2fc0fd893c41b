# SPDX-License-Identifier: Apache-2.0
"""Group 1: images in slots (Zephyr's smp_group_1.rst and img_mgmt.h)."""

from dataclasses import dataclass

from firmware_bridge.smp.header import Group, Op
from firmware_bridge.smp.message import Done, Record, Request

ERR_UNKNOWN, ERR_NO_IMAGE, ERR_HASH_NOT_FOUND, ERR_NO_FREE_SLOT = 1, 3, 8, 9
ERR_FLASH_WRITE, ERR_FLASH_ERASE, ERR_INVALID_SLOT = 12, 13, 14
ERR_INVALID_OFFSET, ERR_INVALID_LENGTH, ERR_HEADER, ERR_MAGIC, ERR_HASH = 20, 21, 22, 23, 24
ERR_NOT_NEWER, ERR_PENDING, ERR_TOO_LARGE, ERR_OVERRUN = 27, 28, 30, 31
ERR_CONFIRM_DENIED, ERR_TEST_ACTIVE = 32, 33


@dataclass(frozen=True)
class Slot(Record):
    """An image in a slot. `hash`: the image's SHA-256 TLV, 32 bytes; `version`: as 1.4.0.12.

    `pending`: runs after the next reset, for good if `permanent`; `confirmed`: stays;
    `active`: runs now. Servers may leave out what is false."""

    slot: int
    version: str
    image: int | None = None
    hash: bytes | None = None
    bootable: bool | None = None
    pending: bool | None = None
    confirmed: bool | None = None
    active: bool | None = None
    permanent: bool | None = None


@dataclass(frozen=True)
class StateReply(Record):
    images: tuple[Slot, ...]
    splitStatus: int | None = None


@dataclass(frozen=True)
class StateRead(Request[StateReply]):
    OP, GROUP, COMMAND, REPLY = Op.READ, Group.IMG, 0, StateReply


@dataclass(frozen=True)
class StateWrite(Request[StateReply]):
    """Test the image `hash`, or confirm it; confirm without hash means the running one."""

    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.IMG, 0, StateReply
    hash: bytes | None = None
    confirm: bool | None = None


@dataclass(frozen=True)
class UploadReply(Record):
    """`off`: where the server wants the next byte, whatever was sent; `match`, after the last
    byte: whether the SHA-256 is that of the first chunk."""

    off: int | None = None
    match: bool | None = None


@dataclass(frozen=True)
class Upload(Request[UploadReply]):
    """`len`, `sha` (of the whole file), `image` and `upgrade` go with `off` 0 only."""

    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.IMG, 1, UploadReply
    off: int
    data: bytes
    len: int | None = None
    sha: bytes | None = None
    image: int | None = None
    upgrade: bool | None = None


@dataclass(frozen=True)
class Erase(Request[Done]):
    """Default: slot 1."""

    OP, GROUP, COMMAND, REPLY = Op.WRITE, Group.IMG, 5, Done
    slot: int | None = None


@dataclass(frozen=True)
class SlotSize(Record):
    """`size` in bytes, of the slot or of what an image may take of it."""

    slot: int
    size: int | None = None
    upload_image_id: int | None = None


@dataclass(frozen=True)
class ImageSlots(Record):
    """`max_image_size`: bytes, where the server knows."""

    image: int
    slots: tuple[SlotSize, ...]
    max_image_size: int | None = None


@dataclass(frozen=True)
class SlotInfoReply(Record):
    images: tuple[ImageSlots, ...]


@dataclass(frozen=True)
class SlotInfo(Request[SlotInfoReply]):
    """Zephyr 4.0 and later have it."""

    OP, GROUP, COMMAND, REPLY = Op.READ, Group.IMG, 6, SlotInfoReply

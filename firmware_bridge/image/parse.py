# SPDX-License-Identifier: Apache-2.0
"""What an MCUboot image says of itself (MCUboot, docs/design.md, "Image format").

    header (32 bytes, padded to header_size) | body | protected TLVs (0x6908) | TLVs (0x6907)

The hash covers everything before the second TLV area. What follows that area (imgtool --pad) is no
part of the image. Reading never trusts a length: every one is held against the bytes that exist.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

import cbor2

from firmware_bridge.image.errors import ImageError, Truncated
from firmware_bridge.image.version import Compatibility, Version

MAGIC = 0x96F3B83D
HEADER = struct.Struct("<IIHHIIBBHII")
HEADER_BYTES = 32
AREA = struct.Struct("<HH")
"""Magic and length of a TLV area, the same four bytes counted in; also type and length of a TLV."""
AREA_MAGIC = 0x6907
PROTECTED_MAGIC = 0x6908

KEYHASH = 0x01
SHA256 = 0x10
ECDSA = 0x22
ED25519 = 0x24
SIG_PURE = 0x25
SECURITY_COUNTER = 0x50
BOARD = 0x00A0
COMPATIBILITY = 0x00A1

NON_BOOTABLE = 0x10
_ONCE = frozenset({KEYHASH, SHA256, SIG_PURE, SECURITY_COUNTER, BOARD, COMPATIBILITY})
_TLVS_MOST = 64
_COMPATIBILITY_MOST = 256


@dataclass(frozen=True)
class Tlv:
    """One piece of metadata."""

    kind: int
    value: bytes


@dataclass(frozen=True)
class Image:
    """An image that is whole; whether it is what it claims to be is `check_image`'s business."""

    header_size: int
    body_size: int
    flags: int
    load_address: int
    version: Version
    protected: tuple[Tlv, ...]
    unprotected: tuple[Tlv, ...]
    hashed_size: int
    """Bytes under the hash: header, body, protected TLVs."""
    end: int
    """Bytes of the whole image."""
    data: memoryview = field(repr=False)

    def one(self, kind: int, area: tuple[Tlv, ...]) -> bytes | None:
        """The value of the first TLV of a kind."""
        return next((tlv.value for tlv in area if tlv.kind == kind), None)

    @property
    def hash(self) -> bytes:
        """The SHA-256 that the image claims; it names the image everywhere."""
        value = self.one(SHA256, self.unprotected)
        assert value is not None, "parse_image lets no image without one through"
        return value

    @cached_property
    def digest(self) -> bytes:
        """The SHA-256 that its bytes have."""
        return sha256(self.data[: self.hashed_size]).digest()

    @property
    def security_counter(self) -> int | None:
        """From the protected TLVs alone: another could be changed without a key."""
        value = self.one(SECURITY_COUNTER, self.protected)
        return None if value is None else int.from_bytes(value, "little")

    @property
    def board(self) -> str | None:
        """The card it was made for; protected like the counter."""
        value = self.one(BOARD, self.protected)
        return None if value is None else value.decode()

    @property
    def compatibility(self) -> Compatibility | None:
        """What it works with; protected like the counter."""
        value = self.one(COMPATIBILITY, self.protected)
        return None if value is None else Compatibility.read(cbor2.loads(value))

    @property
    def bootable(self) -> bool:
        """Whether a bootloader may start it."""
        return not self.flags & NON_BOOTABLE


def parse_image(data: bytes | bytearray | memoryview) -> Image:
    """Read an image. Raises ImageError: it is none; Truncated: not all of it is there."""
    view = memoryview(data)
    if len(view) < HEADER_BYTES:
        if not MAGIC.to_bytes(4, "little").startswith(bytes(view[:4])):
            raise _no_image()
        raise Truncated(
            f"the file holds {len(view)} bytes, less than an image's header of {HEADER_BYTES}",
            "fetch or build the file again",
        )
    magic, load, header_size, protected_size, body_size, flags, *rest = HEADER.unpack_from(view)
    if magic != MAGIC:
        raise _no_image()
    if header_size < HEADER_BYTES:
        raise ImageError(f"the image claims a header of {header_size} bytes, less than its own 32")
    at = header_size + body_size
    _need(view, at + AREA.size)
    protected: tuple[Tlv, ...] = ()
    hashed = at
    if protected_size or AREA.unpack_from(view, at)[0] == PROTECTED_MAGIC:
        protected, hashed = _area(view, at, PROTECTED_MAGIC)
        if hashed - at != protected_size:
            raise ImageError(
                f"the header says {protected_size} bytes of protected metadata and the image "
                f"holds {hashed - at}"
            )
    unprotected, end = _area(view, hashed, AREA_MAGIC)
    image = Image(
        header_size=header_size,
        body_size=body_size,
        flags=flags,
        load_address=load,
        version=Version(*rest[:4]),
        protected=protected,
        unprotected=unprotected,
        hashed_size=hashed,
        end=end,
        data=view,
    )
    _make_sense(image)
    return image


def _no_image() -> ImageError:
    return ImageError(
        "this is no MCUboot image: its first bytes are not 0x96f3b83d",
        "give the file that `imgtool sign` wrote, not the one it was made from",
    )


def _need(view: memoryview, size: int) -> None:
    if len(view) < size:
        raise Truncated(
            f"the image needs {size} bytes or more and the file holds {len(view)}",
            "fetch or build the file again",
        )


def _area(view: memoryview, at: int, magic: int) -> tuple[tuple[Tlv, ...], int]:
    """The TLVs of the area at `at`, and where it ends."""
    _need(view, at + AREA.size)
    found, size = AREA.unpack_from(view, at)
    if found != magic or size < AREA.size:
        raise ImageError(f"metadata was to start at byte {at}, and it is not there")
    _need(view, at + size)
    return tuple(_tlvs(view, at + AREA.size, at + size)), at + size


def _tlvs(view: memoryview, at: int, end: int) -> Iterator[Tlv]:
    for _ in range(_TLVS_MOST):
        if at == end:
            return
        if at + AREA.size > end:
            break
        kind, size = AREA.unpack_from(view, at)
        at += AREA.size
        if at + size > end:
            break
        yield Tlv(kind, bytes(view[at : at + size]))
        at += size
    if at != end:
        raise ImageError(f"the image's metadata is cut at byte {at} or has over {_TLVS_MOST} parts")


def _make_sense(image: Image) -> None:
    """What the rest of the room takes for granted. Raises ImageError."""
    for area in (image.protected, image.unprotected):
        kinds = [tlv.kind for tlv in area if tlv.kind in _ONCE]
        if len(kinds) != len(set(kinds)):
            raise ImageError("the image says the same thing twice in its metadata")
    if image.one(SHA256, image.unprotected) is None:
        raise ImageError(
            "the image carries no SHA-256",
            "sign it with imgtool's --sha 256, its default, and not --pure",
        )
    for kind, size, area in (
        (SHA256, 32, image.unprotected),
        (KEYHASH, 32, image.unprotected),
        (SECURITY_COUNTER, 4, image.protected),
    ):
        value = image.one(kind, area)
        if value is not None and len(value) != size:
            raise ImageError(f"TLV 0x{kind:02x} holds {len(value)} bytes instead of {size}")
    compatibility = image.one(COMPATIBILITY, image.protected) or b""
    if len(compatibility) > _COMPATIBILITY_MOST:
        raise ImageError(f"a compatibility TLV of {len(compatibility)} bytes")
    try:
        _ = image.board, image.compatibility
    except (ValueError, RecursionError, cbor2.CBORDecodeError) as error:
        raise ImageError(f"the image's metadata cannot be read: {error}") from None

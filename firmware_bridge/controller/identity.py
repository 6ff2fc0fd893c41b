# SPDX-License-Identifier: Apache-2.0
"""Who a card is: written into its flash once, at the factory; and how it proves that.

The card's key stays inside: no command reads it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from firmware_bridge.controller.flash import ERASED, WORD, Flash
from firmware_bridge.controller.records import Records
from firmware_bridge.controller.vendor import Vendor
from firmware_bridge.image import Compatibility, Range, sign_image
from firmware_bridge.smp.attest import signed_bytes

BOARD = "tepi-c1"
REVISION = "A1"
FACTORY_VERSION = "1.0.0"
FACTORY_COUNTER = 1
COMPATIBILITY = Compatibility(driver=Range("0.1", "0"), abi=Range(1, 1))
_HEAD = struct.Struct("<II")


@dataclass(frozen=True)
class Identity:
    """A card's names, key and certificate (DER)."""

    serial: str
    board: str
    revision: str
    key: ec.EllipticCurvePrivateKey
    certificate: bytes

    @classmethod
    def read(cls, flash: Flash) -> Identity | None:
        """What the factory wrote; None where it did not finish."""
        area = flash.layout.identity
        raw = flash.read(area.start, area.size)
        size, crc = _HEAD.unpack_from(raw)
        data = raw[_HEAD.size : _HEAD.size + size]
        if len(data) != size or zlib.crc32(data) != crc or not size:
            return None
        found = cbor2.loads(data)
        key = load_der_private_key(found["key"], None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(found["serial"], found["board"], found["revision"], key, found["cert"])

    def write(self, flash: Flash) -> None:
        """Its head comes last, so that half an identity is none."""
        data = cbor2.dumps(
            {
                "serial": self.serial,
                "board": self.board,
                "revision": self.revision,
                "key": self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                "cert": self.certificate,
            }
        )
        area = flash.layout.identity
        flash.erase_used(area.start, area.size)
        padded = data.ljust(-(-len(data) // WORD) * WORD, ERASED)
        flash.program(area.start + _HEAD.size, padded)
        flash.program(area.start, _HEAD.pack(len(data), zlib.crc32(data)))

    def attest(self, nonce: bytes, spki: bytes) -> bytes:
        """ECDSA, DER, over the label, the nonce and the SHA-256 of a node's key."""
        return self.key.sign(signed_bytes(nonce, spki), ec.ECDSA(SHA256()))


def manufacture(
    flash: Flash,
    vendor: Vendor,
    serial: str,
    clock: Callable[[], float],
    *,
    board: str = BOARD,
    body: bytes | None = None,
) -> Identity:
    """What the factory does to a blank card: firmware, key, certificate. The identity comes last,
    so that a card whose making was interrupted is made again."""
    flash.erase_used(0, flash.layout.size)
    image = factory_image(vendor, board=board, body=body)
    flash.program(flash.layout.slots[0].start, image.ljust(-(-len(image) // WORD) * WORD, ERASED))
    for area in (flash.layout.counter, flash.layout.settings, flash.layout.log):
        Records(flash, area, lambda all_: all_)  # empty ones, so that no boot has to begin them
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = vendor.certify(key.public_key(), serial, board, clock)
    identity = Identity(serial, board, REVISION, key, certificate.public_bytes(Encoding.DER))
    identity.write(flash)
    return identity


def factory_image(
    vendor: Vendor,
    version: str = FACTORY_VERSION,
    counter: int = FACTORY_COUNTER,
    *,
    board: str = BOARD,
    body: bytes | None = None,
    compatibility: Compatibility | None = COMPATIBILITY,
) -> bytes:
    """A signed image of this card's firmware. Its body names the version, since the emulator does
    not execute it."""
    if body is None:
        body = f"firmware {version} of {board}\n".encode() * 512
    return sign_image(
        body,
        vendor.image_key,
        version=version,
        counter=counter,
        board=board,
        compatibility=compatibility,
    )

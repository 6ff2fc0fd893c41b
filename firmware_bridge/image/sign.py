# SPDX-License-Identifier: Apache-2.0
"""Makes signed images, as `imgtool sign` does: for a vendor's factory, and for tests."""

from __future__ import annotations

from hashlib import sha256
from typing import TypeAlias

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from firmware_bridge.image import parse
from firmware_bridge.image.check import key_hash
from firmware_bridge.image.version import Compatibility, Version

PrivateKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def _tlv(kind: int, value: bytes) -> bytes:
    return parse.AREA.pack(kind, len(value)) + value


def _area(magic: int, tlvs: bytes) -> bytes:
    return parse.AREA.pack(magic, parse.AREA.size + len(tlvs)) + tlvs


def sign_image(
    body: bytes,
    key: PrivateKey,
    *,
    version: str,
    counter: int | None,
    board: str | None,
    compatibility: Compatibility | None = None,
    header_size: int = 0x200,
    pure: bool = False,
) -> bytes:
    """An image of `body`, the firmware's own bytes.

    version: `1.4.0+12`. counter: security counter, u32; board: name of the card; None leaves either
    out. pure: Ed25519 over the image itself instead of over its SHA-256. Raises ValueError.
    """
    protected = b""
    if counter is not None:
        protected += _tlv(parse.SECURITY_COUNTER, counter.to_bytes(4, "little"))
    if board is not None:
        protected += _tlv(parse.BOARD, board.encode())
    if compatibility is not None:
        protected += _tlv(parse.COMPATIBILITY, cbor2.dumps(compatibility.written()))
    if protected:
        protected = _area(parse.PROTECTED_MAGIC, protected)
    header = parse.HEADER.pack(
        parse.MAGIC, 0, header_size, len(protected), len(body), 0, *Version.read(version), 0
    )
    hashed = header.ljust(header_size, b"\xff") + body + protected
    digest = sha256(hashed).digest()
    tlvs = _tlv(parse.SHA256, digest)
    if pure:
        tlvs += _tlv(parse.SIG_PURE, b"\x01")
    tlvs += _tlv(parse.KEYHASH, key_hash(key.public_key()))
    if isinstance(key, Ed25519PrivateKey):
        tlvs += _tlv(parse.ED25519, key.sign(hashed if pure else digest))
    else:
        tlvs += _tlv(parse.ECDSA, key.sign(digest, ec.ECDSA(Prehashed(SHA256()))))
    return hashed + _area(parse.AREA_MAGIC, tlvs)

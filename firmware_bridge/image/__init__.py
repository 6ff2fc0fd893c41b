# SPDX-License-Identifier: Apache-2.0
"""MCUboot images: what they say, whether they are whole, who signed them."""

from firmware_bridge.image.check import PublicKey, check_image, key_hash, read_public_key
from firmware_bridge.image.errors import (
    HashMismatch,
    ImageError,
    LowerCounter,
    Oversize,
    Truncated,
    WrongBoard,
    WrongSignature,
)
from firmware_bridge.image.parse import Image, Tlv, parse_image
from firmware_bridge.image.sign import PrivateKey, sign_image
from firmware_bridge.image.version import Compatibility, Range, Version

__all__ = [
    "Compatibility",
    "HashMismatch",
    "Image",
    "ImageError",
    "LowerCounter",
    "Oversize",
    "PrivateKey",
    "PublicKey",
    "Range",
    "Tlv",
    "Truncated",
    "Version",
    "WrongBoard",
    "WrongSignature",
    "check_image",
    "key_hash",
    "parse_image",
    "read_public_key",
    "sign_image",
]

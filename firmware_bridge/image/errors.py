# SPDX-License-Identifier: Apache-2.0
"""Why an image is refused; each has the exit code that docs/firmware.md lists."""

from firmware_bridge.errors import BridgeError


class ImageError(BridgeError):
    """Any reason to refuse an image. Its own use: what the file says of itself makes no sense."""


class Truncated(ImageError):
    """The file ends before the image does."""

    exit_code = 13


class Oversize(ImageError):
    """The image is larger than the card's slot takes."""

    exit_code = 14


class HashMismatch(ImageError):
    """The bytes are not those that were hashed when the image was made."""

    exit_code = 15


class WrongSignature(ImageError):
    """Nobody whom we trust signed it."""

    exit_code = 10


class WrongBoard(ImageError):
    """It was made for another card."""

    exit_code = 11


class LowerCounter(ImageError):
    """Its security counter is below the card's: an image with a known hole (anti-rollback)."""

    exit_code = 12

# SPDX-License-Identifier: Apache-2.0
"""Whether an image may run on a card: asked on the host before a byte is written, and by the
bootloader before it starts one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from firmware_bridge.image import parse
from firmware_bridge.image.errors import (
    HashMismatch,
    ImageError,
    LowerCounter,
    Oversize,
    WrongBoard,
    WrongSignature,
)

PublicKey: TypeAlias = Ed25519PublicKey | ec.EllipticCurvePublicKey


def read_public_key(pem: bytes) -> PublicKey:
    """A key that signs images, of its PEM file. Raises ImageError."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ImageError(
            f"this is no public key in PEM: {error}",
            "write it with `imgtool getpub -k KEY -e pem` or `openssl pkey -pubout`",
        ) from None
    if not isinstance(key, Ed25519PublicKey) and not (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        raise ImageError("images are signed with Ed25519 or ECDSA P-256, and this key is neither")
    return key


def key_hash(key: PublicKey) -> bytes:
    """What the TLV KEYHASH holds: SHA-256 of the DER SubjectPublicKeyInfo."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(spki).digest()


def check_image(
    image: parse.Image,
    *,
    keys: Sequence[PublicKey],
    board: str | None,
    counter: int | None,
    slot_size: int | None,
) -> None:
    """Raise what stands against running `image`, the most basic first.

    keys: those trusted to sign. board, counter, slot_size: the card's name, its stored security
    counter (an equal one passes) and the bytes its slot takes; None skips the question.
    Raises Oversize, HashMismatch, WrongSignature, WrongBoard, LowerCounter.
    """
    if slot_size is not None and image.end > slot_size:
        raise Oversize(
            f"the image has {image.end} bytes and the card's slot takes {slot_size}",
            "build it smaller; the card cannot be given more room",
        )
    if image.digest != image.hash:
        raise HashMismatch(
            f"the image's bytes have the SHA-256 {image.digest.hex()[:16]}… and it claims "
            f"{image.hash.hex()[:16]}…",
            "the file was damaged: fetch or build it again",
        )
    _check_signature(image, keys)
    if board is not None and image.board != board:
        made = f"made for the board {image.board!r}" if image.board else "made for no named board"
        raise WrongBoard(
            f"the image is {made}, and this card is {board!r}", f"get the firmware for {board!r}"
        )
    if counter is not None:
        own = image.security_counter
        if own is None or own < counter:
            has = "has no security counter" if own is None else f"has the security counter {own}"
            raise LowerCounter(
                f"the image {has}, and the card asks for {counter} or more",
                "use a newer firmware; older ones have a hole that the card knows of",
            )


def _check_signature(image: parse.Image, keys: Sequence[PublicKey]) -> None:
    named = image.one(parse.KEYHASH, image.unprotected)
    if named is None:
        raise WrongSignature("the image is not signed", "sign it with the card vendor's key")
    key = next((key for key in keys if key_hash(key) == named), None)
    if key is None:
        raise WrongSignature(
            f"the image is signed with the key {named.hex()[:16]}…, which is not trusted here",
            "get the vendor's own image, or name the right key with --image-key",
        )
    if not _verified(image, key):
        raise WrongSignature(
            "the image's signature is not by the key that it names",
            "do not use this file: it was changed after it was signed, or was never signed",
        )


def _verified(image: parse.Image, key: PublicKey) -> bool:
    """Any signature of the key's kind may be the one, as in MCUboot's bootutil_img_validate."""
    pure = image.one(parse.SIG_PURE, image.unprotected) == b"\x01"
    kind = parse.ED25519 if isinstance(key, Ed25519PublicKey) else parse.ECDSA
    for tlv in image.unprotected:
        if tlv.kind != kind:
            continue
        try:
            if isinstance(key, Ed25519PublicKey):
                signed = bytes(image.data[: image.hashed_size]) if pure else image.digest
                key.verify(tlv.value, signed)
            else:
                key.verify(_der(tlv.value), image.digest, ec.ECDSA(Prehashed(SHA256())))
        except InvalidSignature:
            continue
        return True
    return False


def _der(value: bytes) -> bytes:
    """Without the zeros that older imgtool pads an ECDSA signature with."""
    size = value[1] + 2 if len(value) > 1 else 0
    return value[:size] if not any(value[size:]) else value

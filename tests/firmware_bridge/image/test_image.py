# SPDX-License-Identifier: Apache-2.0
"""Images that are not to run: cut, changed, another board's, an older one, or no image at all."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.image import (
    Compatibility,
    HashMismatch,
    ImageError,
    LowerCounter,
    Oversize,
    Range,
    Truncated,
    Version,
    WrongBoard,
    WrongSignature,
    check_image,
    parse_image,
    read_public_key,
    sign_image,
)
from firmware_bridge.image import parse as layout

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()
PUBLIC = [KEY.public_key()]
RANGE = Compatibility(Range("0.1", "0.3"), Range(1, 2))


def signed(body: bytes = b"firmware" * 40, **change: Any) -> bytes:
    asked: dict[str, Any] = {
        "version": "1.2.3+4",
        "counter": 3,
        "board": "tepi-c1",
        "compatibility": RANGE,
    }
    return sign_image(body, change.pop("key", KEY), **{**asked, **change})


def check(data: bytes, **change: Any) -> None:
    asked: dict[str, Any] = {"keys": PUBLIC, "board": "tepi-c1", "counter": 3, "slot_size": 4096}
    check_image(parse_image(data), **{**asked, **change})


def test_whole_image_passes() -> None:
    check(signed())
    check(signed(pure=True))
    check(signed(key=(key := ec.generate_private_key(ec.SECP256R1()))), keys=[key.public_key()])
    check(signed(counter=4))
    check(signed() + b"\xff" * 999)
    check(signed(), board=None, counter=None, slot_size=None)


def test_truncated() -> None:
    data = signed()
    for size in range(len(data)):
        with pytest.raises(Truncated) as caught:
            parse_image(data[:size])
        assert caught.value.exit_code == 13
        assert caught.value.remedy


def test_not_an_image() -> None:
    for data in (b"PK\x03\x04" * 99, b"x", bytes(999), struct.pack("<I", 1) + signed()[4:]):
        with pytest.raises(ImageError, match=r"no MCUboot image|header") as caught:
            parse_image(data)
        assert caught.value.exit_code == 1


def test_oversize() -> None:
    data = signed()
    check(data, slot_size=len(data))
    with pytest.raises(Oversize, match=str(len(data))) as caught:
        check(data, slot_size=len(data) - 1)
    assert caught.value.exit_code == 14


def test_any_changed_byte_is_found() -> None:
    """Whichever byte: in the hashed part, the metadata, the signature. None passes."""
    data = signed()
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(ImageError):
            check(bytes(damaged))


def test_hash_mismatch() -> None:
    data = bytearray(signed())
    data[0x210] ^= 1
    with pytest.raises(HashMismatch) as caught:
        check(bytes(data))
    assert caught.value.exit_code == 15


@pytest.mark.parametrize("pure", [False, True])
def test_signed_by_another_key(pure: bool) -> None:
    with pytest.raises(WrongSignature, match="not trusted here") as caught:
        check(signed(key=OTHER, pure=pure))
    assert caught.value.exit_code == 10
    check(signed(key=OTHER, pure=pure), keys=[*PUBLIC, OTHER.public_key()])


def test_signature_of_another_image() -> None:
    """The trusted key's name and signature, put under another body with its own right hash."""
    good, bad = parse_image(signed()), signed(b"evil" * 80, key=OTHER)
    start = parse_image(bad).hashed_size
    tlvs = b"".join(
        layout.AREA.pack(kind, len(value)) + value
        for kind, value in (
            (layout.SHA256, parse_image(bad).digest),
            *((tlv.kind, tlv.value) for tlv in good.unprotected if tlv.kind != layout.SHA256),
        )
    )
    forged = bad[:start] + layout.AREA.pack(layout.AREA_MAGIC, 4 + len(tlvs)) + tlvs
    with pytest.raises(WrongSignature, match="not by the key"):
        check(forged)


def test_not_signed() -> None:
    image = parse_image(data := signed())
    tlv = layout.AREA.pack(layout.SHA256, 32) + image.hash
    bare = data[: image.hashed_size] + layout.AREA.pack(layout.AREA_MAGIC, 4 + len(tlv)) + tlv
    with pytest.raises(WrongSignature, match="not signed"):
        check(bare)


def test_counter_moved_out_of_the_protected_part() -> None:
    """Metadata that no signature covers does not count."""
    image = parse_image(data := signed(counter=None, board=None, compatibility=None))
    area = data[image.hashed_size + 4 :]
    extra = layout.AREA.pack(layout.SECURITY_COUNTER, 4) + struct.pack("<I", 99)
    extra += layout.AREA.pack(layout.BOARD, 7) + b"tepi-c1"
    forged = data[: image.hashed_size]
    forged += layout.AREA.pack(layout.AREA_MAGIC, 4 + len(area) + len(extra)) + area + extra
    with pytest.raises(WrongBoard):
        check(forged)
    with pytest.raises(LowerCounter):
        check(forged, board=None)


def test_wrong_board() -> None:
    with pytest.raises(WrongBoard, match=r"'other'.*'tepi-c1'") as caught:
        check(signed(board="other"))
    assert caught.value.exit_code == 11


def test_lower_counter_is_a_rollback() -> None:
    check(signed(), counter=3)
    with pytest.raises(LowerCounter, match="3, and the card asks for 4") as caught:
        check(signed(), counter=4)
    assert caught.value.exit_code == 12


def test_keys_that_sign_no_images() -> None:
    with pytest.raises(ImageError, match="no public key"):
        read_public_key(b"-----BEGIN NONSENSE-----")
    weak = rsa.generate_private_key(65537, 2048).public_key()
    with pytest.raises(ImageError, match="neither"):
        read_public_key(weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_versions() -> None:
    assert Version.read("1.4.0+12") == Version.read("1.4.0.12") == (1, 4, 0, 12)
    assert str(Version.read("2.1")) == "2.1.0"
    assert Version.read("1.4.0+2") < Version.read("1.4.0+12") < Version.read("1.10.0")
    for text in ("", "1.2.3.4.5", "256.0.0", "a.b", "1.0.0-rc1"):
        with pytest.raises(ValueError, match="no version"):
            Version.read(text)


def test_ranges() -> None:
    assert Range("0.1", "0.3").holds("0.3.9")
    assert Range("0.1", "0").holds("0.99")
    assert Range(1, 2).holds(2)
    assert not Range("0.1", "0.3").holds("0.4")
    assert not Range("0.1", "0.3").holds("0.0.9")
    assert str(Range(1, 1)) == "1"
    for bad in ([2, 1], [1], "1-2", [None, 1], [1.5, 2]):
        with pytest.raises(ValueError, match=r"range|number"):
            Range.read(bad)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_images_raise_nothing_else(data: st.DataObject) -> None:
    """Cut, overwrite or insert anywhere: an Image, or an ImageError; memory of the file's size."""
    raw = bytearray(signed())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        image = parse_image(bytes(raw))
    except ImageError:
        return
    assert image.end <= len(raw)
    _ = image.board, image.compatibility, image.security_counter, image.version
    try:
        check_image(image, keys=PUBLIC, board="tepi-c1", counter=3, slot_size=1 << 20)
    except ImageError:
        return
    assert image.data[: image.hashed_size] == parse_image(signed()).data[: image.hashed_size]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_no_image(tail: bytes) -> None:
    for data in (tail, signed()[:32] + tail, signed()[:28] + tail):
        with pytest.raises(ImageError):
            parse_image(data)

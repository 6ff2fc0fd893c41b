# SPDX-License-Identifier: Apache-2.0
"""Images that imgtool signed, and imgtool's opinion of those that we sign."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firmware_bridge.image import (
    Compatibility,
    LowerCounter,
    PrivateKey,
    Range,
    Version,
    WrongBoard,
    check_image,
    parse_image,
    read_public_key,
    sign_image,
)

ROOT = Path(__file__).resolve().parents[3]
RECORDS = ROOT / "tests" / "records" / "images"
IMGTOOL = ROOT / "build" / "stock" / "bin" / "imgtool"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_what_imgtool_signed(kind: str) -> None:
    image = parse_image((RECORDS / f"{kind}.bin").read_bytes())
    assert image.version == Version(1, 4, 0, 12)
    assert str(image.version) == "1.4.0.12"
    assert image.security_counter == 5
    assert image.board == "tepi-c1"
    assert image.compatibility == Compatibility(Range("0.1", "0.2"), Range(1, 2))
    assert image.body_size == 300
    assert image.bootable
    key = read_public_key((RECORDS / f"{kind}.pub.pem").read_bytes())
    check_image(image, keys=[key], board="tepi-c1", counter=5, slot_size=1 << 15)


def test_an_image_that_names_neither_board_nor_counter() -> None:
    image = parse_image((RECORDS / "plain.bin").read_bytes())
    key = read_public_key((RECORDS / "ed25519.pub.pem").read_bytes())
    check_image(image, keys=[key], board=None, counter=None, slot_size=None)
    with pytest.raises(WrongBoard, match="no named board"):
        check_image(image, keys=[key], board="tepi-c1", counter=None, slot_size=None)
    with pytest.raises(LowerCounter, match="no security counter"):
        check_image(image, keys=[key], board=None, counter=0, slot_size=None)


@pytest.mark.skipif(not IMGTOOL.exists(), reason="no build/stock; .ci/stock makes it")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "unprotected"])
def test_imgtool_verifies_what_we_sign(kind: str, tmp_path: Path) -> None:
    key: PrivateKey
    key = (
        ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else Ed25519PrivateKey.generate()
    )
    named = kind != "unprotected"
    data = sign_image(
        b"body" * 200,
        key,
        version="3.2.1+7",
        counter=9 if named else None,
        board="tepi-c1" if named else None,
        compatibility=Compatibility(Range("0.1", "0"), Range(1, 1)) if named else None,
    )
    (tmp_path / "image.bin").write_bytes(data)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(public)
    found = subprocess.run(
        [IMGTOOL, "verify", "-k", tmp_path / "key.pem", tmp_path / "image.bin"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3.2.1+7" in found.stdout
    assert parse_image(data).hash.hex() in found.stdout

# SPDX-License-Identifier: Apache-2.0
"""The card vendor's keys: one signs images, one signs the cards' certificates.

`Vendor.make` writes a folder for development: it holds private keys, which a real vendor keeps in
a safe. Files:

    image.pem, image.pub.pem     Ed25519, signs images; also `imgtool sign -k image.pem`
    card-ca.pem, card-ca.crt     P-256, issuer of every card's certificate (IEEE 802.1AR, IDevID)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from firmware_bridge.errors import BridgeError

IMAGE_KEY = "image.pem"
IMAGE_PUBLIC_KEY = "image.pub.pem"
CARD_CA_KEY = "card-ca.pem"
CARD_CA = "card-ca.crt"
_CA_DAYS = 365 * 30
_BACK = timedelta(days=1)  # a clock may be behind
NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # IEEE 802.1AR, 8.7: an IDevID never ends


class VendorMissing(BridgeError):
    """The folder lacks what is needed of it."""


@dataclass(frozen=True)
class Vendor:
    """A vendor's keys."""

    image_key: Ed25519PrivateKey
    ca_key: ec.EllipticCurvePrivateKey
    ca: x509.Certificate

    @classmethod
    def make(cls, folder: Path, clock: Callable[[], float]) -> Vendor:
        """Make keys in a folder that does not hold any. Raises VendorMissing, OSError."""
        if any((folder / name).exists() for name in (IMAGE_KEY, CARD_CA_KEY)):
            raise VendorMissing(
                f"{folder} holds a vendor's keys already", "use them, or choose another folder"
            )
        vendor = cls.new(clock)
        folder.mkdir(parents=True, exist_ok=True)
        _secret(folder / IMAGE_KEY, _pem(vendor.image_key))
        _secret(folder / CARD_CA_KEY, _pem(vendor.ca_key))
        public = vendor.image_key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        (folder / IMAGE_PUBLIC_KEY).write_bytes(public)
        (folder / CARD_CA).write_bytes(vendor.ca.public_bytes(Encoding.PEM))
        return vendor

    @classmethod
    def new(cls, clock: Callable[[], float]) -> Vendor:
        """New keys, in memory."""
        ca_key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.fromtimestamp(clock(), UTC)
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tepi"),
                x509.NameAttribute(NameOID.COMMON_NAME, "Tepi development card CA"),
            ]
        )
        public = ca_key.public_key()
        ca = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACK)
            .not_valid_after(now + timedelta(days=_CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(ca_key, SHA256())
        )
        return cls(Ed25519PrivateKey.generate(), ca_key, ca)

    @classmethod
    def read(cls, folder: Path) -> Vendor:
        """The keys in a folder. Raises VendorMissing."""
        try:
            image_key = load_pem_private_key((folder / IMAGE_KEY).read_bytes(), None)
            ca_key = load_pem_private_key((folder / CARD_CA_KEY).read_bytes(), None)
            ca = x509.load_pem_x509_certificate((folder / CARD_CA).read_bytes())
        except (OSError, ValueError) as error:
            raise VendorMissing(
                f"{folder} holds no vendor's keys: {error}",
                f"make some with `tepi card mcu --make-vendor {folder}`",
            ) from None
        if not isinstance(image_key, Ed25519PrivateKey) or not isinstance(
            ca_key, ec.EllipticCurvePrivateKey
        ):
            raise VendorMissing(f"the keys in {folder} are of other kinds than a vendor's")
        return cls(image_key, ca_key, ca)

    def certify(
        self, key: ec.EllipticCurvePublicKey, serial: str, board: str, clock: Callable[[], float]
    ) -> x509.Certificate:
        """A card's certificate: subject serialNumber names the card, and it never expires
        (IEEE 802.1AR, 8)."""
        now = datetime.fromtimestamp(clock(), UTC)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tepi"),
                x509.NameAttribute(NameOID.COMMON_NAME, board),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, serial),
            ]
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.ca.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACK)
            .not_valid_after(NO_END)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(issuer, critical=False)
            .sign(self.ca_key, SHA256())
        )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _secret(path: Path, data: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(data)

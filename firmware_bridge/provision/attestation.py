# SPDX-License-Identifier: Apache-2.0
"""A card vouches for a node: its key, which never leaves the controller, signs the node's key.

The card signs `tepi-attest-v1` || nonce || SHA-256 of the node's SubjectPublicKeyInfo, and shows
the certificate that its vendor gave it (IEEE 802.1AR, IDevID): the subject's serialNumber is the
card's.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from firmware_bridge.provision.errors import BadAuthority, ForgedAttestation
from firmware_bridge.provision.x509_forms import UNREADABLE, valid_from, valid_until, when
from firmware_bridge.smp.attest import signed_bytes

HEADER = "Tepi-Attestation"
"""Of a simpleenroll request: JSON with nonce, signature and certificate, each in base64."""
_MAX_HEADER = 6000


class Attester(Protocol):
    """A card that can vouch."""

    def attest(self, nonce: bytes, spki_sha256: bytes) -> tuple[bytes, bytes]:
        """The signature (ECDSA, DER) and the card's certificate (DER). Raises BridgeError."""


@dataclass(frozen=True)
class Attestation:
    """What a node brings from its card; `nonce` is the authority's."""

    nonce: bytes
    signature: bytes
    certificate: bytes

    def to_header(self) -> str:
        fields = {
            "nonce": self.nonce,
            "signature": self.signature,
            "certificate": self.certificate,
        }
        return json.dumps({name: b64encode(value).decode() for name, value in fields.items()})

    @classmethod
    def from_header(cls, text: str) -> Attestation:
        """Raises ForgedAttestation."""
        try:
            if len(text) > _MAX_HEADER:
                raise ValueError("too large")
            fields = json.loads(text)
            found = [
                b64decode(fields[name], validate=True)
                for name in ("nonce", "signature", "certificate")
            ]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ForgedAttestation(f"the attestation cannot be read: {error}") from None
        return cls(*found)


def check_attestation(
    attestation: Attestation, spki_sha256: bytes, vendors: Sequence[x509.Certificate], now: float
) -> str:
    """The serial number of the card that vouches for this key; the nonce is the caller's to check.

    Raises ForgedAttestation, with what does not hold."""
    try:
        card = x509.load_der_x509_certificate(attestation.certificate)
        key = card.public_key()
        serials = card.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    except UNREADABLE as error:
        raise ForgedAttestation(f"the card's certificate cannot be read: {error}") from None
    if not any(_issued(card, vendor, now) for vendor in vendors):
        raise ForgedAttestation(
            "the card's certificate is from no vendor that this authority knows",
            "give the vendor's card authority with `tepi provision init-ca --card-ca`",
        )
    if not valid_from(card) <= now <= valid_until(card):
        raise ForgedAttestation(
            f"the card's certificate holds from {when(valid_from(card))} to "
            f"{when(valid_until(card))}, and it is {when(now)}"
        )
    if len(serials) != 1 or not isinstance(serials[0].value, str):
        raise ForgedAttestation("the card's certificate has no serial number of a card")
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ForgedAttestation("the card's key is not an elliptic-curve key")
    signed = signed_bytes(attestation.nonce, spki_sha256)
    try:
        key.verify(attestation.signature, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise ForgedAttestation(
            f"card {serials[0].value} did not sign this node's key with this nonce",
            "enroll again on the node that holds the card",
        ) from None
    return serials[0].value


def _issued(card: x509.Certificate, vendor: x509.Certificate, now: float) -> bool:
    """Whether the vendor's authority signed the card's certificate; it must be an authority
    whose time is not over."""
    try:
        constraints = vendor.extensions.get_extension_for_class(x509.BasicConstraints).value
        card.verify_directly_issued_by(vendor)
    except (*UNREADABLE, InvalidSignature, x509.ExtensionNotFound):
        return False
    return constraints.ca and valid_from(vendor) <= now <= valid_until(vendor)


def read_vendors(files: Sequence[Path]) -> list[x509.Certificate]:
    """Card authorities from PEM files. Raises BadAuthority."""
    found: list[x509.Certificate] = []
    for path in files:
        try:
            found += x509.load_pem_x509_certificates(path.read_bytes())
        except ValueError as error:
            raise BadAuthority(f"{path} holds no certificate: {error}") from None
    return found

# SPDX-License-Identifier: Apache-2.0
"""A card vendor and its cards, as far as attestation goes: keys and certificates in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.x509_forms import Signer
from firmware_bridge.smp.attest import signed_bytes

FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""IEEE 802.1AR: an IDevID need not end."""


class Vendor:
    """An authority for cards."""

    def __init__(self, name: str = "vendor") -> None:
        key = forms.new_key()
        root = forms.make_authority(key, forms.common_name(name), None, (0.0, 2**32))
        self.signer = Signer(root, key)

    def file(self, folder: Path) -> Path:
        """Its certificate, for `--card-ca`."""
        path = folder / f"{forms.fingerprint(self.signer.certificate)[7:15]}.pem"
        path.write_bytes(forms.pem_of(self.signer.certificate))
        return path


class Card:
    """Vouches for whatever it is asked to, as a controller does."""

    def __init__(self, vendor: Vendor, serial: str) -> None:
        self.serial = serial
        self.key = forms.new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)])
        self.certificate = forms.der_of(
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(vendor.signer.certificate.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(FOREVER)
            .sign(vendor.signer.key, hashes.SHA256())
        )

    def attest(self, nonce: bytes, spki_sha256: bytes) -> tuple[bytes, bytes]:
        """As `Attester`."""
        signed = signed_bytes(nonce, spki_sha256)
        return self.key.sign(signed, ec.ECDSA(hashes.SHA256())), self.certificate

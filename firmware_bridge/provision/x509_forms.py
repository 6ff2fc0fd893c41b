# SPDX-License-Identifier: Apache-2.0
"""Certificates and requests as values: what they contain and how they are made. No files, no clock.

All keys are P-256, all signatures ECDSA with SHA-256. Times are seconds since 1970.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from firmware_bridge.provision.errors import BadRequest

URN = "urn:tepi:node:"
MAX_REQUEST = 16 << 10
"""Bytes of a PKCS#10 request; ours have some 500."""
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NODE = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_MAX_NODE = 63
"""Of a node's name: RFC 5280 gives commonName 64 characters, DNS a label 63."""
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for damaged certificates and requests."""
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


def check_node(name: str) -> str:
    """The name, if a node can have it: DNS labels in lower case. Raises BadRequest."""
    if len(name) > _MAX_NODE or _NODE.fullmatch(name) is None:
        raise BadRequest(
            f"{name[:80]!r} cannot be a node's name",
            "use small letters, digits, hyphens and dots, at most 63 of them",
        )
    return name


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8, not encrypted: services must start without a person."""
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic-curve key")
    return key


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(PEM) for each in certificates)


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(DER)


def spki_of(key: object) -> bytes:
    """The DER SubjectPublicKeyInfo of a public key."""
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def digest(data: bytes) -> bytes:
    """SHA-256."""
    hasher = hashes.Hash(hashes.SHA256())
    hasher.update(data)
    return hasher.finalize()


def fingerprint(certificate: x509.Certificate) -> str:
    """`sha256:` and 64 hexadecimal digits, of the DER."""
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def serial_text(certificate: x509.Certificate) -> str:
    """The serial number as openssl prints it, in lower case."""
    return f"{certificate.serial_number:040x}"


def valid_from(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp()


def valid_until(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def when(seconds: float) -> str:
    """For people: `2026-11-26 16:40:19 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def node_of(certificate: x509.Certificate) -> str | None:
    """The node that a certificate names by its URI, if it names one."""
    for uri in _alternatives(certificate).get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith(URN):
            return uri.removeprefix(URN)
    return None


def _alternatives(
    holder: x509.Certificate | x509.CertificateSigningRequest,
) -> x509.SubjectAlternativeName:
    try:
        return holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def alternatives(node: str, others: Sequence[str]) -> list[x509.GeneralName]:
    """A node's names: the URN, its name in DNS, and others, each a DNS name or an address. Raises
    BadRequest."""
    found: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(URN + node),
        x509.DNSName(node),
    ]
    for text in others:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            if len(text) > 253 or _NODE.fullmatch(text) is None:
                raise BadRequest(f"{text[:80]!r} is neither a DNS name nor an address") from None
            found.append(x509.DNSName(text))
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Request:
    """A certificate request that holds together: whoever made it has the key."""

    der: bytes
    node: str
    key: ec.EllipticCurvePublicKey
    names: frozenset[x509.GeneralName]

    @property
    def spki(self) -> bytes:
        """SHA-256 of the key's SubjectPublicKeyInfo: what a card signs."""
        return digest(spki_of(self.key))


def make_request(key: ec.EllipticCurvePrivateKey, node: str) -> bytes:
    """PKCS#10 in DER, for a node's key. Raises BadRequest."""
    names = x509.SubjectAlternativeName(alternatives(check_node(node), ()))
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(common_name(node))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(DER)
    )


def read_request(data: bytes) -> Request:
    """From DER or PEM; the signature proves possession of the key (RFC 7030, 3.4). Raises
    BadRequest."""
    if len(data) > MAX_REQUEST:
        raise BadRequest(f"a certificate request of {len(data)} bytes; {MAX_REQUEST} is the limit")
    try:
        pem = data.lstrip().startswith(b"-----BEGIN")
        found = x509.load_pem_x509_csr(data) if pem else x509.load_der_x509_csr(data)
        key, good = found.public_key(), found.is_signature_valid
        subject = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = frozenset(_alternatives(found))
    except UNREADABLE as error:
        raise BadRequest(f"this is not a certificate request: {error}") from None
    if not good:
        raise BadRequest("the certificate request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadRequest("the key of the certificate request is not P-256")
    if len(subject) != 1 or not isinstance(subject[0].value, str):
        raise BadRequest("the certificate request has no common name, which is the node's name")
    return Request(found.public_bytes(DER), check_node(subject[0].value), key, names)


def common_name(name: str, organisation: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organisation:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(attributes)


@dataclass(frozen=True)
class Signer:
    """A certificate authority's certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(
    key: ec.EllipticCurvePrivateKey,
    name: x509.Name,
    signer: Signer | None,
    validity: tuple[float, float],
) -> x509.Certificate:
    """A root (no signer) or an authority below one, which makes no further authorities."""
    usage = _usage(digital_signature=False, key_cert_sign=True, crl_sign=True)
    issuer = signer.certificate.subject if signer else name
    return (
        _base(key.public_key(), name, issuer, signer.key if signer else key, validity)
        .add_extension(x509.BasicConstraints(True, 1 if signer is None else 0), critical=True)
        .add_extension(usage, critical=True)
        .sign(signer.key if signer else key, hashes.SHA256())
    )


def make_leaf(
    key: ec.EllipticCurvePublicKey,
    name: str,
    names: Sequence[x509.GeneralName],
    signer: Signer,
    validity: tuple[float, float],
) -> x509.Certificate:
    """For TLS on either side: a node is a client of the registry and a server of its models."""
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    return (
        _base(key, common_name(name), signer.certificate.subject, signer.key, validity)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer.key, hashes.SHA256())
    )


def make_crl(
    signer: Signer, denied: Sequence[tuple[int, float]], validity: tuple[float, float]
) -> x509.CertificateRevocationList:
    """Of (certificate serial number, time of denial)."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(_moment(validity[0]))
        .next_update(_moment(validity[1]))
        .add_extension(x509.CRLNumber(int(validity[0] * 1000)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()),
            critical=False,
        )
    )
    for number, at in denied:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(number)
            .revocation_date(_moment(at))
            .build()
        )
    return builder.sign(signer.key, hashes.SHA256())


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _base(
    key: ec.EllipticCurvePublicKey,
    name: x509.Name,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    validity: tuple[float, float],
) -> x509.CertificateBuilder:
    """Names, dates, a random serial number (RFC 5280, 4.1.2.2) and the two key identifiers."""
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(validity[0]))
        .not_valid_after(_moment(validity[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(by, critical=False)
    )


def _usage(
    *, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )

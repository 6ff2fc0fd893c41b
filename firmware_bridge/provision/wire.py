# SPDX-License-Identifier: Apache-2.0
"""What goes over the wire between a node and its authority: Enrolment over Secure Transport
(RFC 7030), both directions, without I/O. Three paths of ours stand beside it: a nonce for a card's
attestation, the list of denied certificates, and who the caller is."""

from __future__ import annotations

from base64 import b64decode, b64encode, encodebytes
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from firmware_bridge.provision.errors import BadAnswer, BadRequest, BadToken
from firmware_bridge.provision.x509_forms import MAX_REQUEST, UNREADABLE

EST = "/.well-known/est"
CACERTS, ENROLL, REENROLL = f"{EST}/cacerts", f"{EST}/simpleenroll", f"{EST}/simplereenroll"
CSRATTRS = f"{EST}/csrattrs"
NONCE, CRL, WHOAMI = "/tepi/v1/nonce", "/tepi/v1/crl", "/tepi/v1/whoami"
REFUSAL = "Tepi-Refusal"
"""Header of an error: its word in `errors`."""
PKCS10, PKCS7 = "application/pkcs10", "application/pkcs7-mime; smime-type=certs-only"
CRL_TYPE = "application/pkix-crl"
CSRATTRS_TYPE = "application/csrattrs"
TRANSFER = {"Content-Transfer-Encoding": "base64"}
MAX_ANSWER = 64 << 10
MAX_CRL = 8 << 20
MAX_BODY = 2 * MAX_REQUEST

ATTRIBUTES = bytes.fromhex(
    "3021" + "301506072a8648ce3d0201310a06082a8648ce3d030107" + "06082a8648ce3d040302"
)
"""CsrAttrs (RFC 7030, 4.5.2): id-ecPublicKey with prime256v1, and ecdsa-with-SHA256."""


def encode_request(der: bytes) -> bytes:
    """The body of simpleenroll and simplereenroll (4.2.1)."""
    return encodebytes(der)


def decode_request(body: bytes) -> bytes:
    """PKCS#10 DER of a body. Raises BadRequest."""
    try:
        return b64decode(b"".join(body.split()), validate=True)
    except ValueError as error:
        raise BadRequest(f"the request's body is not base64: {error}") from None


def encode_certificates(certificates: Sequence[x509.Certificate]) -> bytes:
    """A certs-only PKCS#7 in base64 (4.1.3, 4.2.3)."""
    return encodebytes(pkcs7.serialize_certificates(list(certificates), Encoding.DER))


def decode_certificates(body: bytes) -> list[x509.Certificate]:
    """Raises BadAnswer."""
    try:
        return pkcs7.load_der_pkcs7_certificates(b64decode(b"".join(body.split()), validate=True))
    except UNREADABLE as error:
        raise BadAnswer(f"the authority's answer is no PKCS#7 of certificates: {error}") from None


def basic(secret: str) -> str:
    """A token as HTTP's Basic password (RFC 7030, 3.2.3), which any EST client can send."""
    return "Basic " + b64encode(f"token:{secret}".encode()).decode()


def secret_of(authorization: str | None) -> str | None:
    """The token of an Authorization header, Basic or Bearer. Raises BadToken."""
    if authorization is None:
        return None
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip()
    try:
        if scheme.lower() != "basic":
            raise ValueError("neither Basic nor Bearer")
        return b64decode(rest.strip(), validate=True).decode().partition(":")[2]
    except ValueError as error:
        raise BadToken(f"the Authorization header cannot be read: {error}") from None

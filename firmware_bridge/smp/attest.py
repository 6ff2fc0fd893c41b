# SPDX-License-Identifier: Apache-2.0
"""Group 65, Tepi's: the card proves which one it is, and for which node it does so.

The card signs SHA-256(`LABEL` || nonce || SHA-256 of the node key's SubjectPublicKeyInfo) with a
P-256 key that never leaves it; its certificate is IEEE 802.1AR's IDevID in shape.
"""

from dataclasses import dataclass

from firmware_bridge.smp.header import Group, Op
from firmware_bridge.smp.message import Record, Request

LABEL = b"tepi-attest-v1"
NONCE = range(16, 65)  # bytes
ERR_UNKNOWN, ERR_NONCE, ERR_NO_KEY = 1, 2, 3


@dataclass(frozen=True)
class Attestation(Record):
    """`sig`: ECDSA, DER; `cert`: X.509, DER, of the key that made it."""

    sig: bytes
    cert: bytes


@dataclass(frozen=True)
class Attest(Request[Attestation]):
    """`nonce`: NONCE bytes that the verifier chose; `spki`: 32 bytes."""

    OP, GROUP, COMMAND, REPLY = Op.READ, Group.ATTEST, 0, Attestation
    nonce: bytes
    spki: bytes


def signed_bytes(nonce: bytes, spki: bytes) -> bytes:
    """What the card signs with ECDSA over SHA-256."""
    return LABEL + nonce + spki

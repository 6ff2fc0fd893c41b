# SPDX-License-Identifier: Apache-2.0
"""One-time claim tokens: 256 random bits, and the fingerprint of the authority's root, so that a
node which holds a token knows whom to give it to.

Text: `tepi1.SECRET.ROOT`, both in base64url without padding. Only SECRET is sent; the authority
keeps its SHA-256, so who reads the ledger has no tokens.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from firmware_bridge.provision.errors import BadToken
from firmware_bridge.provision.x509_forms import digest

_TEXT = re.compile(r"tepi1\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Token:
    """What a node is given; `root` is the SHA-256 of the root certificate's DER."""

    secret: str
    root: bytes

    def __str__(self) -> str:
        return f"tepi1.{self.secret}.{_text(self.root)}"

    @classmethod
    def make(cls, root: bytes) -> Token:
        return cls(_text(secrets.token_bytes(32)), root)

    @classmethod
    def read(cls, text: str) -> Token:
        """Raises BadToken."""
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise BadToken(
                "this is not a token", "copy all of what `tepi provision token` printed: tepi1.…"
            )
        return cls(found[1], urlsafe_b64decode(found[2] + "="))


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def token_hash(secret: str) -> bytes:
    """What the ledger keeps of a token: it has 256 bits, so one SHA-256 is enough."""
    return digest(secret.encode("utf-8", "surrogateescape"))

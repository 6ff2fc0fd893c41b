# SPDX-License-Identifier: Apache-2.0
"""A token server as the Distribution project specifies it, which docker-registry trusts by its
certificate: JSON Web Tokens signed with RS256."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from registry.remote.credentials import Credentials
from tests.registry.remote.certificates import Identity, identity
from tests.registry.remote.scripted_server import Answer, Asked, Scripted, scripted

ISSUER, SERVICE = "test issuer", "test registry"
USER, PASSWORD, REFRESH = "publisher", "s3cret", "a refresh token"


@dataclass
class TokenServer:
    """Gives anyone what they ask for to pull, and to push who shows USER and PASSWORD, or by POST
    REFRESH."""

    identity: Identity
    server: Scripted | None = None
    given: list[str] = field(default_factory=list)  # the scopes of each token

    def answer(self, asked: Asked) -> Answer:
        """The script of the server."""
        parts = urlsplit(asked.path)
        fields = parse_qs(asked.body.decode() if asked.method == "POST" else parts.query)
        known = asked.authorization == Credentials(USER, PASSWORD).basic
        known |= asked.method == "POST" and fields.get("refresh_token") == [REFRESH]
        if asked.authorization and not known:
            return Answer(401, json.dumps({"details": "incorrect username or password"}).encode())
        scopes = [s for text in fields.get("scope", []) for s in text.split()]
        self.given.append(" ".join(scopes))
        key = "access_token" if asked.method == "POST" else "token"
        return Answer(
            200, json.dumps({key: self._token(scopes, known), "expires_in": 300}).encode()
        )

    def _token(self, scopes: list[str], known: bool) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [a for a in actions.split(",") if known or a == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        der = self.identity.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims: dict[str, object] = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "access": access}
        claims |= {"iat": now - 5, "nbf": now - 5, "exp": now + 300, "jti": str(len(self.given))}
        signed = f"{_part(json.dumps(header).encode())}.{_part(json.dumps(claims).encode())}"
        mark = self.identity.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_part(mark)}"

    @property
    def settings(self) -> dict[str, str]:
        """Section `auth: token` of docker-registry."""
        assert self.server is not None
        return {
            "realm": f"http://{self.server.address}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self.identity.certificate_file),
        }


@contextmanager
def token_server(folder: Path) -> Iterator[TokenServer]:
    """One for the block."""
    found = TokenServer(identity(folder, "tokens"))
    with scripted(found.answer) as found.server:
        yield found


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

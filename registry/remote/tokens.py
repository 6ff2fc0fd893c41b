# SPDX-License-Identifier: Apache-2.0
"""What stands in Authorization: RFC 7617 Basic, or tokens as the Distribution project's token
authentication gives them out (its GET form, and the OAuth2 POST form for identity tokens).

No I/O here: a `fetch` sends what `token_request` makes. Credentials go to the registry itself and
to the token server that it names, and to no other host.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from registry.remote.credentials import Credentials
from registry.remote.errors import BadAnswer, Denied, Untrusted
from registry.remote.headers import Challenge, parse_challenges

_CLIENT = "tepi"
_LIFETIME = 60.0  # seconds, where a token server does not say
_MARGIN = 0.1  # share of a lifetime at whose end a token is not used any more
_CACHED = 1024  # tokens
GIVE_CREDENTIALS = (
    "give the right ones by --username and --password-stdin, or a file by --auth-file"
)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What to send to a token server; `body` None means GET."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """What a token server gave: `lifetime` is in seconds from the request."""

    value: str = field(repr=False)
    lifetime: float = _LIFETIME


def token_request(
    challenge: Challenge, scope: str, credentials: Credentials | None, *, secure: bool
) -> TokenRequest:
    """The request that a Bearer challenge asks for. `scope` is one or more scopes, divided by
    spaces. Raises Untrusted where a registry spoken to over TLS (`secure`) names a token server
    that is not, and BadAnswer where it names none."""
    realm = challenge.parameters.get("realm", "")
    try:
        parts = urlsplit(realm)
        good = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good:
        raise BadAnswer(f"the registry names no token server that can be asked: {realm[:200]!r}")
    if secure and parts.scheme != "https":
        raise Untrusted(
            f"the registry is spoken to over TLS but names a token server that is not: {realm}",
            "credentials are not sent there; the registry's configuration must name https",
        )
    fields = [(key, value) for key, value in parse_qsl(parts.query)]
    if service := challenge.parameters.get("service"):
        fields.append(("service", service))
    if credentials is not None and credentials.identity_token:
        form = [*fields, ("scope", scope), ("grant_type", "refresh_token")]
        form += [("client_id", _CLIENT), ("refresh_token", credentials.identity_token)]
        return TokenRequest(
            urlunsplit(parts._replace(query="", fragment="")),
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
        )
    fields += [("scope", part) for part in scope.split()]
    headers = {}
    if credentials is not None:
        headers["Authorization"] = credentials.basic
        fields += [("client_id", _CLIENT), ("account", credentials.username)]
    return TokenRequest(urlunsplit(parts._replace(query=urlencode(fields), fragment="")), headers)


def parse_token(data: bytes) -> Token:
    """The answer of a token server; raises BadAnswer."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadAnswer("the token server's answer is not a JSON object")
    value = found.get("token") or found.get("access_token")
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise BadAnswer("the token server's answer holds no token")
    lifetime = found.get("expires_in")
    if not isinstance(lifetime, int | float) or not 0 < lifetime < 1e9:
        lifetime = _LIFETIME
    return Token(value, float(lifetime))


class Authorizer:
    """Remembers what a registry wants to see, for all threads that speak with it."""

    def __init__(
        self,
        registry: str,
        credentials: Credentials | None,
        fetch: Callable[[TokenRequest], bytes],
        clock: Callable[[], float],
        *,
        secure: bool,
    ) -> None:
        self._registry = registry
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._secure = secure
        self._lock = threading.Lock()  # one thread at a time asks a token server
        self._basic = ""
        self._tokens: dict[str, tuple[str, float]] = {}

    def header(self, scope: str) -> str:
        """What to send now for a scope; '' while nothing is known to be wanted."""
        value, until = self._tokens.get(scope, ("", 0.0))
        return value if self._clock() < until else self._basic

    def answer(self, challenges: str, scope: str, sent: str) -> str:
        """What to send after a 401 with these challenges, where `sent` was sent and not enough.
        Raises Denied where there is nothing better, and what `fetch` and token_request raise."""
        with self._lock:
            known = self.header(scope)
            if known and known != sent:
                return known  # another thread was asked the same and has the answer
            offers = {offer.scheme: offer for offer in reversed(parse_challenges(challenges))}
            if "bearer" in offers:
                return self._bearer(offers["bearer"], scope, sent)
            if "basic" in offers:
                return self._by_password(sent)
            raise Denied(
                f"{self._registry} asks for credentials in a way that is not known: "
                f"{challenges[:100]!r}",
                "Basic and Bearer are known",
                status=401,
            )

    def refusal(self, sent: str) -> str:
        """What to say of a 401 after all was shown that there is."""
        if self._credentials is not None and sent == self._credentials.basic:
            return f"{self._registry} does not take the password of {self._credentials.username!r}"
        return f"{self._registry} does not take the token that was got for this"

    def _by_password(self, sent: str) -> str:
        if self._credentials is None or not self._credentials.username:
            raise Denied(
                f"{self._registry} asks for credentials, and there are none for it",
                GIVE_CREDENTIALS,
                status=401,
            )
        if sent == self._credentials.basic:
            raise Denied(self.refusal(sent), GIVE_CREDENTIALS, status=401)
        self._basic = self._credentials.basic
        return self._basic

    def _bearer(self, challenge: Challenge, scope: str, sent: str) -> str:
        wanted = challenge.parameters.get("scope", scope)
        now = self._clock()
        if sent and challenge.parameters.get("error") == "insufficient_scope":
            self._tokens.pop(scope, None)
        request = token_request(challenge, wanted, self._credentials, secure=self._secure)
        token = parse_token(self._fetch(request))
        value = f"Bearer {token.value}"
        if len(self._tokens) >= _CACHED:
            self._tokens.clear()
        self._tokens[scope] = (value, now + token.lifetime * (1 - _MARGIN))
        return value

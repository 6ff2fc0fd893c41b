# SPDX-License-Identifier: Apache-2.0
"""The one place that speaks HTTP with a registry: scheme, TLS, redirects, authorization, and named
errors for all that goes wrong. Nothing is tried twice here except after a 401."""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import urllib3

from registry.errors import BadReference
from registry.remote import errors
from registry.remote.credentials import Credentials
from registry.remote.headers import parse_content_range, parse_retry_after
from registry.remote.tokens import GIVE_CREDENTIALS, Authorizer, TokenRequest

Body = Callable[[], Iterable[bytes | memoryview]]  # from its beginning at each call

_REDIRECTS = 5
_FOLLOWED = {301, 302, 303, 307, 308}
_WITH_BODY = {307, 308}
_SHORT = 64 << 10
_TOKEN_LIMIT = 1 << 20
_CONNECTIONS = 16
_CONNECT_SECONDS = 10.0
_DOCUMENT_PATIENCE = 4  # times the timeout: how long a document, as against a blob, may take
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_API_HOSTS = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


class Transport:
    """Connections to one registry; for all threads."""

    def __init__(
        self,
        registry: str,
        credentials: Credentials | None = None,
        *,
        insecure: bool = False,
        ca: Path | None = None,
        client_certificate: tuple[Path, Path] | None = None,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base = base_url(registry, insecure=insecure, ca=ca)
        self._secure = self.base.startswith("https:")
        self._insecure = insecure
        self._timeout = timeout
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "tepi", **(headers or {})}
        self._clock = clock
        self._wall = wall
        self._pool = urllib3.PoolManager(
            num_pools=8,
            maxsize=_CONNECTIONS,
            retries=False,
            timeout=urllib3.Timeout(connect=min(timeout, _CONNECT_SECONDS), read=timeout),
            ssl_context=_tls(ca, client_certificate) if self._secure else None,
        )
        self._authorizer = Authorizer(
            urlsplit(self.base).netloc, credentials, self._token, clock, secure=self._secure
        )

    def close(self) -> None:
        """Close all connections that are not in use."""
        pools = self._pool.pools
        keys = pools.keys()  # clear alone would leave them to the garbage collector
        for key in keys:
            pools[key].close()
        self._pool.clear()

    def request(
        self,
        method: str,
        target: str,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        length: int | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """The answer of status 200 to 299, or 304 to If-None-Match, its body not read; `target` is
        a path or a URL. Any other answer is an error of errors.py."""
        url = urljoin(self.base, target)
        fields = {**self._headers, **(headers or {})}
        if length is not None:
            fields["Content-Length"] = str(length)
        visited: list[str] = []
        while True:
            if url in visited or len(visited) > _REDIRECTS:
                raise errors.RedirectLoop(
                    f"{method} {shown(visited[0])}: redirected without end: "
                    + " -> ".join(shown(u) for u in [*visited, url]),
                    "look at the registry's and its proxy's configuration",
                )
            visited.append(url)
            response = self._authorized(method, url, scope, fields, body)
            if response.status not in _FOLLOWED or not response.headers.get("Location"):
                return self._good(response, f"{method} {shown(url)}", "If-None-Match" in fields)
            url = self.location(response, url)
            self.finish(response)
            if body is not None and response.status not in _WITH_BODY:
                raise errors.BadAnswer(f"{method} {shown(visited[0])}: redirected to another form")

    def location(self, response: urllib3.BaseHTTPResponse, url: str) -> str:
        """Where Location of an answer to `url` points; raises Untrusted where that leaves TLS."""
        try:
            found = joined(url, response.headers.get("Location", ""))
        except errors.BadAnswer:
            response.close()
            raise
        if self._secure and not found.startswith("https:"):
            response.close()
            raise errors.Untrusted(
                f"{shown(url)} leads away from TLS, to {shown(found)}",
                "behind a proxy, let it pass X-Forwarded-Proto: https on to the registry",
            )
        return found

    def read(self, response: urllib3.BaseHTTPResponse, limit: int, what: str) -> bytes:
        """A document of at most `limit` bytes; raises EndlessData, Truncated, Timeout."""
        found = bytearray()
        until = self._clock() + self._timeout * _DOCUMENT_PATIENCE
        try:
            while piece := response.read1(1 << 16, decode_content=False):
                found += piece
                if len(found) > limit:
                    raise errors.EndlessData(f"{what}: more than {limit} bytes")
                if self._clock() > until:
                    raise errors.Timeout(f"{what}: only {len(found)} bytes came in time")
        except urllib3.exceptions.HTTPError as error:
            response.close()
            raise self.translate(error, what) from None
        except errors.RemoteError:
            response.close()
            raise
        response.release_conn()
        return bytes(found)

    def finish(self, response: urllib3.BaseHTTPResponse) -> None:
        """Pass over a body that nobody needs, so that the connection can be used again; where it
        is long the connection is closed instead."""
        self._short_text(response)

    def translate(self, error: Exception, what: str) -> errors.RemoteError:
        """What an error of urllib3 or of the socket means."""
        reason = str(error).rpartition("): ")[2] or type(error).__name__
        kinds = urllib3.exceptions
        if isinstance(error, kinds.SSLError | ssl.SSLError):
            return errors.Untrusted(
                f"{what}: TLS failed: {reason}",
                "give the authority that signed its certificate with --ca-file, or use --insecure "
                "where the registry speaks plain HTTP",
            )
        if isinstance(error, kinds.NewConnectionError | kinds.ConnectTimeoutError):
            return errors.Unreachable(
                f"{what}: no connection: {reason}", "check the address and the network"
            )
        if isinstance(error, kinds.TimeoutError | TimeoutError):
            return errors.Timeout(f"{what}: nothing came for {self._timeout:g} s")
        return errors.Truncated(f"{what}: the connection broke: {reason}")

    def _good(
        self, response: urllib3.BaseHTTPResponse, what: str, may_be_known: bool
    ) -> urllib3.BaseHTTPResponse:
        if 200 <= response.status < 300 or (response.status == 304 and may_be_known):
            return response
        response.close()
        raise errors.BadAnswer(f"{what}: status {response.status} is no answer to this")

    def _authorized(
        self,
        method: str,
        url: str,
        scope: str,
        headers: Mapping[str, str],
        body: Body | None,
    ) -> urllib3.BaseHTTPResponse:
        ours = origin(url) == origin(self.base)
        sent = self._authorizer.header(scope) if ours else ""
        for last in (False, True):
            fields = {**headers, "Authorization": sent} if sent else dict(headers)
            response = self._send(method, url, fields, body)
            if response.status < 400:
                break
            if response.status != 401 or not ours or last:
                refusal = self._refusal(method, url, response)
                if response.status == 401 and ours:
                    refusal.args = (f"{self._authorizer.refusal(sent)}: {refusal}",)
                raise refusal
            challenges = ", ".join(response.headers.getlist("WWW-Authenticate"))
            self.finish(response)
            sent = self._authorizer.answer(challenges, scope, sent)
        return response

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> urllib3.BaseHTTPResponse:
        try:
            response = self._pool.urlopen(
                method,
                url,
                headers=headers,
                body=body() if body is not None else None,
                preload_content=False,
                decode_content=False,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise self.translate(error, f"{method} {shown(url)}") from None
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise errors.BadAnswer(f"{method} {shown(url)}: the answer is compressed, unasked")
        return response

    def _token(self, request: TokenRequest) -> bytes:
        """Fetch a token; no redirect is followed with credentials."""
        method = "GET" if request.body is None else "POST"
        what = f"token server {shown(request.url)}"
        data = request.body
        headers = {"Accept-Encoding": "identity", "User-Agent": "tepi", **request.headers}
        if data is not None:
            headers["Content-Length"] = str(len(data))
        try:
            response = self._send(
                method, request.url, headers, None if data is None else lambda: [data]
            )
        except errors.RemoteError as error:
            error.args = (f"{what}: {error}",)
            raise
        if response.status in (400, 401, 403):
            text = reason_of(self._short_text(response))
            raise errors.Denied(
                f"{what} gives no token: status {response.status}{text}",
                GIVE_CREDENTIALS,
                status=response.status,
            )
        if response.status >= 300:
            raise self._refusal(method, request.url, response)
        return self.read(response, _TOKEN_LIMIT, what)

    def _short_text(self, response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return self.read(response, _SHORT, "a body")
        except errors.RemoteError:
            return b""

    def _refusal(
        self, method: str, url: str, response: urllib3.BaseHTTPResponse
    ) -> errors.RemoteError:
        status = response.status
        text = b"" if method == "HEAD" else self._short_text(response)
        message = f"{method} {shown(url)}: status {status}{reason_of(text)}"
        after = parse_retry_after(response.headers.get("Retry-After", ""), self._wall())
        response.close()
        if status in (401, 403):
            return errors.Denied(message, GIVE_CREDENTIALS, status=status)
        if status == 416:
            span = parse_content_range(response.headers.get("Content-Range", ""))
            return errors.RangeRefused(message, span.total if span else None)
        if status == 404:
            return errors.Missing(message, "see `tepi model list REGISTRY`", status=status)
        if status in (408, 429):
            return errors.TooManyRequests(message, status=status, retry_after=after)
        if status >= 500:
            return errors.ServerTrouble(message, status=status, retry_after=after)
        return errors.Refused(message, status=status)


def base_url(registry: str, *, insecure: bool, ca: Path | None) -> str:
    """`http://HOST[:PORT]` or `https://…`: what the registry's name says, else http where asked
    for by `insecure`, or on this machine without a `ca`. Plain HTTP to another machine needs
    `insecure`; raises Untrusted, and BadReference where it is no address."""
    scheme, given, rest = registry.partition("://")
    address = (rest if given else registry).rstrip("/")
    address = _API_HOSTS.get(address, address)
    try:
        parts = urlsplit(f"//{address}")
        good = parts.netloc == address and _HOST.fullmatch(address)
        _ = parts.port
    except ValueError:
        good = False
    if not good or (given and scheme not in ("http", "https")):
        raise BadReference(f"{registry[:200]!r} is not a registry", "write HOST[:PORT]")
    here = is_loopback(parts.hostname or "")
    if not given:
        scheme = "http" if insecure or (here and ca is None) else "https"
    if scheme == "http" and not (insecure or here):
        raise errors.Untrusted(
            f"{registry} is plain HTTP", "use https, or allow it with --insecure"
        )
    return f"{scheme}://{address}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, without asking a name server."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def joined(url: str, link: str) -> str:
    """Where a link in the answer to `url` points; raises BadAnswer where that is no URL."""
    try:
        parts = urlsplit(urljoin(url, link))
        found = parts.geturl()  # its scheme in lower case
        host = urllib3.util.parse_url(found).host if _HOST.fullmatch(parts.netloc) else None
        good = host and parts.scheme in ("http", "https") and parts.port != 0
    except (ValueError, urllib3.exceptions.HTTPError):
        good = False
    if not good:
        raise errors.BadAnswer(f"{shown(url)}: leads to what is not a URL: {link[:200]!r}")
    return found


def shown(url: str) -> str:
    """A URL as messages show it: without a query, which may hold a signature."""
    return url.partition("?")[0][:300]


def reason_of(text: bytes) -> str:
    """`: reason` of an error's body (OCI Distribution 1.1, Error Codes), or ''."""
    try:
        found = json.loads(text)
        first = found["errors"][0]
        words = [str(first[key])[:200] for key in ("message", "code") if first.get(key)]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        words = []
    said = " ".join(words) if words else text[:200].decode(errors="replace").strip()
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return f": {said}" if said and "<" not in said else ""


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what must be the same for credentials to be sent (RFC 6454)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", url, 0
    port = port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port


def _tls(ca: Path | None, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if certificate is not None:
            context.load_cert_chain(*map(str, certificate))
    except (OSError, ssl.SSLError) as error:
        named = [str(ca)] if ca else []
        named += map(str, certificate or ())
        raise errors.Untrusted(
            f"{' or '.join(named)} cannot be used for TLS: {error}",
            "give PEM files with --ca-file, --client-cert and --client-key",
        ) from None
    return context

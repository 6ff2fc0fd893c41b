# SPDX-License-Identifier: Apache-2.0
"""The node's side of enrolment: the one module here that opens connections to an authority.

Each request may be made again, since the authority answers the same (`admission`); so a connection
that breaks is simply tried anew.
"""

from __future__ import annotations

import http.client
import json
import ssl
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import urllib3
from cryptography import x509
from urllib3 import exceptions as broken

from firmware_bridge.provision import wire
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.attestation import HEADER, Attestation
from firmware_bridge.provision.errors import (
    REFUSALS,
    BadAnswer,
    ClockSkew,
    OutOfTime,
    ProvisionError,
    Unreachable,
    Untrusted,
)
from firmware_bridge.provision.x509_forms import when

SKEW = 300.0
"""Seconds that the clocks of a node and its authority may differ: certificates start as early."""
TRIES = 4
_TIMEOUT = urllib3.Timeout(connect=5.0, read=20.0)
_CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # the line broke
_VERIFY_TIME = {9: "has not begun", 10: "is over"}  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED


@dataclass(frozen=True)
class Pair:
    """A certificate chain and its key, as PEM files."""

    chain: Path
    key: Path


def check_url(url: str) -> str:
    """`https://HOST:PORT`, without a path. Raises Untrusted, Unreachable."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme != "https":
        raise Untrusted(f"{url} is not https", "an authority answers over TLS only")
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
        raise Unreachable(f"{url} is not https://HOST:PORT", "name the authority's address")
    return f"https://{parts.netloc}"


class EstClient:
    """Requests to one authority; `root`: the PEM of what is trusted; `pair`: what this node shows.

    Not for several threads. Methods raise Unreachable, Untrusted, ClockSkew, BadAnswer, and the
    refusals of the authority."""

    def __init__(
        self,
        url: str,
        root: bytes,
        clock: Callable[[], float],
        pair: Pair | None = None,
        pause: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        """`pause`: waits so many seconds between two tries."""
        self.url, self._clock, self._pause = check_url(url), clock, pause
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            tls.load_verify_locations(cadata=root.decode("ascii"))
            if pair is not None:
                tls.load_cert_chain(pair.chain, pair.key)
        except (ssl.SSLError, ValueError) as error:
            raise Untrusted(f"these certificates cannot be used: {error}") from None
        parts = urlsplit(self.url)
        self._pool = urllib3.HTTPSConnectionPool(
            str(parts.hostname), parts.port or 443, ssl_context=tls, timeout=_TIMEOUT
        )

    def __enter__(self) -> EstClient:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._pool.close()

    def cacerts(self) -> list[x509.Certificate]:
        """The authority's root and issuing certificates."""
        return wire.decode_certificates(self._ask("GET", wire.CACERTS))

    def nonce(self) -> bytes:
        """For a card to sign."""
        try:
            return b64decode(json.loads(self._ask("GET", wire.NONCE))["nonce"], validate=True)
        except (ValueError, TypeError, KeyError) as error:
            raise BadAnswer(f"the authority's nonce cannot be read: {error}") from None

    def enroll(
        self, request: bytes, secret: str | None, attestation: Attestation | None = None
    ) -> x509.Certificate:
        """A first certificate for a request (PKCS#10, DER)."""
        headers = {} if secret is None else {"Authorization": wire.basic(secret)}
        if attestation is not None:
            headers[HEADER] = attestation.to_header()
        return self._certificate(wire.ENROLL, request, headers)

    def reenroll(self, request: bytes) -> x509.Certificate:
        """A certificate in the place of the one that the handshake shows."""
        return self._certificate(wire.REENROLL, request, {})

    def crl(self) -> x509.CertificateRevocationList:
        """The certificates that are denied; the caller checks who signed it."""
        try:
            return x509.load_der_x509_crl(self._ask("GET", wire.CRL, limit=wire.MAX_CRL))
        except ValueError as error:
            raise BadAnswer(f"the authority's list of denied certificates: {error}") from None

    def whoami(self) -> str:
        """The node that the authority sees: the handshake with this pair succeeds."""
        try:
            return str(json.loads(self._ask("GET", wire.WHOAMI))["node"])
        except (ValueError, TypeError, KeyError) as error:
            raise BadAnswer(f"the authority's answer cannot be read: {error}") from None

    def _certificate(self, path: str, request: bytes, headers: dict[str, str]) -> x509.Certificate:
        headers = {"Content-Type": wire.PKCS10, **wire.TRANSFER, **headers}
        found = wire.decode_certificates(
            self._ask("POST", path, wire.encode_request(request), headers)
        )
        if len(found) != 1:  # RFC 7030, 4.2.3: only the certificate that was issued
            raise BadAnswer(f"the authority gave {len(found)} certificates for one request")
        return found[0]

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        limit: int = wire.MAX_ANSWER,
    ) -> bytes:
        for attempt in range(TRIES):
            try:
                return self._once(method, path, body, headers, limit)
            except (broken.HTTPError, OSError) as error:
                cause = _cause(error)
                if isinstance(cause, ssl.SSLError) and not isinstance(cause, _CUT):
                    raise self._distrust(cause) from None
                last = error
                self._pause(0.2 * 2**attempt)
        raise _unreachable(self.url, last)

    def _once(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str] | None,
        limit: int,
    ) -> bytes:
        response = self._pool.request(
            method, path, body=body, headers=headers, preload_content=False,
            redirect=False, retries=False,
        )  # fmt: skip
        try:
            data = response.read(limit + 1)
        finally:
            response.release_conn()
        if len(data) > limit:
            raise BadAnswer(f"{self.url}{path} answers with more than {limit} bytes")
        self._check_clock(response.headers.get("Date"))
        if response.status != 200:
            raise _refusal(response.headers.get(wire.REFUSAL), response.status, data, self.url)
        return data

    def _check_clock(self, date: str | None) -> None:
        try:
            theirs = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            raise BadAnswer(f"{self.url} answers without a time") from None
        ours = self._clock()
        if abs(theirs - ours) > SKEW:
            raise ClockSkew(
                f"this machine's clock says {when(ours)}, the authority's {when(theirs)}: "
                f"{abs(theirs - ours):.0f} s apart, and {SKEW:.0f} s is the limit",
                "set the clock that is wrong (`timedatectl`), then do this again",
            )

    def _distrust(self, cause: ssl.SSLError) -> ProvisionError:
        """What a failed handshake means. The dates of a certificate that is out of time are read
        without trust, for the message only."""
        if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _VERIFY_TIME:
            return ClockSkew(
                f"by this machine's clock, {when(self._clock())}, the time of the authority's "
                f"certificate {_VERIFY_TIME[cause.verify_code]}{self._dates()}",
                "set the clock that is wrong (`timedatectl`), then do this again",
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Untrusted(
                f"{self.url} is not the authority that this node trusts: {cause.verify_message}",
                "see that the address is right; --ca names the root certificate to trust",
            )
        text = str(cause).lower()
        if "expired" in text:
            return OutOfTime(
                f"{self.url} finds this node's certificate out of time",
                "enroll with a new token, or correct the clock that is wrong",
            )
        return Untrusted(f"no secure connection to {self.url}: {cause}")

    def _dates(self) -> str:
        parts = urlsplit(self.url)
        try:
            where = (str(parts.hostname), parts.port or 443)
            pem = ssl.get_server_certificate(where, timeout=5.0)
            shown = x509.load_pem_x509_certificate(pem.encode())
        except (OSError, ValueError):
            return ""
        return f": it holds from {when(forms.valid_from(shown))} to {_until(shown)}"


def _unreachable(url: str, why: object) -> Unreachable:
    return Unreachable(
        f"no answer from {url} after {TRIES} tries: {why}",
        "see that the address is right and that `tepi provision serve` runs there",
    )


def _cause(error: BaseException) -> BaseException:
    """What urllib3 wraps."""
    while isinstance(error, broken.HTTPError):
        inner = [each for each in error.args if isinstance(each, BaseException)]
        if not inner:
            break
        error = inner[0]
    return error


def bootstrap(url: str, fingerprint: bytes, pause: Callable[[float], object]) -> bytes:
    """The PEM of the root with this SHA-256, which the authority shows before it is trusted
    (RFC 7030, 4.1.1: an out-of-band check). Raises Unreachable, Untrusted, BadAnswer."""
    url = check_url(url)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    parts, last = urlsplit(url), None
    for attempt in range(TRIES):
        line = http.client.HTTPSConnection(
            str(parts.hostname), parts.port or 443, timeout=10.0, context=tls
        )
        try:
            line.request("GET", wire.CACERTS)
            body = line.getresponse().read(wire.MAX_ANSWER)
            break
        except (http.client.HTTPException, OSError) as error:
            last = error
            pause(0.2 * 2**attempt)
        finally:
            line.close()
    else:
        raise _unreachable(url, last)
    for certificate in wire.decode_certificates(body):
        if forms.digest(forms.der_of(certificate)) == fingerprint:
            return forms.pem_of(certificate)
    raise Untrusted(
        f"{url} does not have the root certificate that the token names",
        "use a token of this authority; or somebody stands between",
    )


def _refusal(word: str | None, status: int, data: bytes, url: str) -> ProvisionError:
    """The error that the authority raised, as this side's."""
    text = data[:2000].decode("utf-8", "replace").strip()
    message, _, remedy = text.partition("\n")
    kind = REFUSALS.get(word or "")
    if kind is None:
        return BadAnswer(f"{url} answers with status {status}: {message}")
    return kind(message, remedy)


def _until(certificate: x509.Certificate) -> str:
    return when(forms.valid_until(certificate))

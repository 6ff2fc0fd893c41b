# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS with a node's identity: contexts that follow renewals, and who the other side is."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.errors import Denied, WrongCertificate
from firmware_bridge.provision.node import node_credentials

Clock = Callable[[], float]


@dataclass(frozen=True)
class _State:
    """What a context was made of: the pair's folder and the list's change."""

    pair: Path
    crl: int | None


class _Following(ssl.SSLContext):
    """Hands each new connection to the context of its moment. A context cannot be changed in place:
    it would go on to trust what it once trusted, and to refuse what it once refused; and one that
    is put in its place in mid-handshake does not look at the list of denied ones."""

    latest: Callable[[], ssl.SSLContext]

    @classmethod
    def of(cls, protocol: int, latest: Callable[[], ssl.SSLContext]) -> _Following:
        made = cls(protocol)
        made.latest = latest
        return made

    def wrap_socket(self, *words: Any, **more: Any) -> ssl.SSLSocket:
        return self.latest().wrap_socket(*words, **more)

    def wrap_bio(self, *words: Any, **more: Any) -> ssl.SSLObject:
        return self.latest().wrap_bio(*words, **more)


class TlsContexts:
    """Contexts of an identity's folder, made anew when its pair or its list of denied ones
    changes. Safe among threads."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._lock = threading.Lock()
        self._made: dict[bool, tuple[_State, ssl.SSLContext]] = {}

    def server(self) -> ssl.SSLContext:
        """For a server's whole life: each connection gets the identity of its moment, and asks the
        client for a certificate of the same root. Raises NoIdentity, OSError, ssl.SSLError."""
        self._current(server=True)
        return _Following.of(ssl.PROTOCOL_TLS_SERVER, lambda: self._current(server=True))

    def client(self) -> ssl.SSLContext:
        """For a client's whole life, likewise. The server must be of the same root, and have the
        name that the caller gives. Raises NoIdentity, OSError, ssl.SSLError."""
        self._current(server=False)
        return _Following.of(ssl.PROTOCOL_TLS_CLIENT, lambda: self._current(server=False))

    def _current(self, *, server: bool) -> ssl.SSLContext:
        state = self._state()
        with self._lock:
            made = self._made.get(server)
            if made is None or made[0] != state:
                made = self._made[server] = (state, self._make(server=server))
            return made[1]

    def _state(self) -> _State:
        held = node_credentials(self._folder)
        try:
            changed: int | None = held.crl_path.stat().st_mtime_ns
        except FileNotFoundError:
            changed = None
        return _State(held.key_path.parent, changed)

    def _make(self, *, server: bool) -> ssl.SSLContext:
        held = node_credentials(self._folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(held.cert_path, held.key_path)
        context.load_verify_locations(held.ca_path)
        if self._crl_holds(held.crl_path):
            context.load_verify_locations(held.crl_path)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context

    def _crl_holds(self, path: Path) -> bool:
        """A list that is over is left out, or no handshake would succeed: it holds as long as a
        certificate does, so all that it denies have ended too."""
        try:
            ends = x509.load_pem_x509_crl(path.read_bytes()).next_update_utc
        except (FileNotFoundError, ValueError):
            return False
        return ends is not None and ends.timestamp() > self._clock()


def tls_contexts(folder: Path, clock: Clock) -> TlsContexts:
    """Of the identity in this folder. Raises NoIdentity where there is none."""
    node_credentials(folder)
    return TlsContexts(folder, clock)


class Peers:
    """Who the other side of a connection is, for servers whose TLS library checks no lists (gRPC):
    it has checked the chain and the dates, this looks at the name and the list."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "crl.pem"
        self._lock = threading.Lock()
        self._read: tuple[int, frozenset[int]] = (-1, frozenset())

    def node(self, certificate: bytes) -> str:
        """The node of a peer's certificate, PEM or DER. Raises Denied, WrongCertificate."""
        try:
            pem = certificate.lstrip().startswith(b"-----BEGIN")
            load = x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate
            found = load(certificate)
        except ValueError as error:
            raise WrongCertificate(f"the peer's certificate cannot be read: {error}") from None
        name = forms.node_of(found)
        if name is None:
            raise WrongCertificate(f"{found.subject.rfc4514_string()} is not a node")
        if found.serial_number in self._denied():
            raise Denied(f"node {name} is on the authority's list of denied ones")
        return name

    def _denied(self) -> frozenset[int]:
        try:
            changed = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return frozenset()
        with self._lock:
            if self._read[0] != changed:
                crl = x509.load_pem_x509_crl(self._path.read_bytes())
                self._read = (changed, frozenset(each.serial_number for each in crl))
            return self._read[1]

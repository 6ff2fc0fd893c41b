# SPDX-License-Identifier: Apache-2.0
"""The authority's folder: a root, which may be taken offline, an issuing authority below it, and
the ledger. Who gets a certificate is decided in `admission`; here it is made.

    root.pem root.key         ten years; the key is needed again only to replace the issuing one
    issuing.pem issuing.key   three years; signs nodes' certificates and the list of denied ones
    server.pem server.key     what the enrolment service shows
    card-ca/*.pem             authorities of card vendors
    authority.db              the ledger
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509

from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.attestation import read_vendors
from firmware_bridge.provision.durable import PUBLIC, REAL_DISK, SECRET
from firmware_bridge.provision.errors import BadAuthority, StaleNonce, Unavailable
from firmware_bridge.provision.ledger import Ledger
from firmware_bridge.provision.x509_forms import Request, Signer

DAY = 86400.0
BACKDATE = 300.0
"""Seconds that a certificate's time starts early, for nodes whose clocks are behind."""
LIFE = 7 * DAY
_ROOT_LIFE, _ISSUING_LIFE, _SERVER_LIFE = 3650 * DAY, 1096 * DAY, 30 * DAY
_NONCE_SECONDS = 300.0
_MAC = 16  # bytes

Clock = Callable[[], float]


class Authority:
    """Open on a folder that `create` made. Safe among threads and processes.

    `root`: what nodes trust; `issuing`: what signs; `vendors`: authorities of cards."""

    def __init__(self, folder: Path, clock: Clock, life: float = LIFE) -> None:
        """`life`: seconds of a node's certificate. Raises BadAuthority, OSError."""
        self.folder, self.clock, self._life = folder, clock, life
        if not (folder / "issuing.key").exists():
            raise BadAuthority(
                f"{folder} is no authority", f"make one with `tepi provision init-ca {folder}`"
            )
        self.root = _certificate(folder / "root.pem")
        self.issuing = _signer(folder, "issuing")
        self.vendors = read_vendors(sorted((folder / "card-ca").glob("*.pem")))
        self.ledger = Ledger(folder / "authority.db")
        self._nonce_key = self.ledger.secret("nonce", os.urandom(32))

    @classmethod
    def create(
        cls, folder: Path, clock: Clock, name: str = "Tepi", vendors: Sequence[Path] = ()
    ) -> Authority:
        """Make root, issuing authority and ledger. Interrupted, it may be run again: the issuing
        key is the last file. Raises BadAuthority, OSError."""
        if (folder / "issuing.key").exists():
            raise BadAuthority(
                f"{folder} is an authority already", "choose another folder, or use that one"
            )
        REAL_DISK.make(folder, 0o700)
        read_vendors(vendors)
        now = clock()
        root_key, issuing_key = forms.new_key(), forms.new_key()
        root_name = forms.common_name(f"{name} root", name)
        validity = (now - DAY, now + _ROOT_LIFE)
        root = forms.make_authority(root_key, root_name, None, validity)
        issuing = forms.make_authority(
            issuing_key,
            forms.common_name(f"{name} issuing", name),
            Signer(root, root_key),
            (now - DAY, now + _ISSUING_LIFE),
        )
        for path in vendors:
            add_vendor(folder, path)
        REAL_DISK.write(folder / "root.key", forms.key_pem(root_key), SECRET)
        REAL_DISK.write(folder / "root.pem", forms.pem_of(root), PUBLIC)
        REAL_DISK.write(folder / "issuing.pem", forms.pem_of(issuing), PUBLIC)
        REAL_DISK.write(folder / "issuing.key", forms.key_pem(issuing_key), SECRET)
        return cls(folder, clock)

    def close(self) -> None:
        self.ledger.close()

    def __enter__(self) -> Authority:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def life(self) -> float:
        """Seconds of a node's certificate."""
        return self._life

    @property
    def chain(self) -> list[x509.Certificate]:
        """What `cacerts` gives (RFC 7030, 4.1.3)."""
        return [self.root, self.issuing.certificate]

    def certificate(self, request: Request, names: Sequence[str], now: float) -> x509.Certificate:
        """For a node, not yet remembered; it never outlives the authority. Raises Unavailable where
        the authority itself is at its end, BadRequest."""
        ends = min(now + self._life, forms.valid_until(self.issuing.certificate))
        if ends <= now:
            raise Unavailable(
                f"the authority's own certificate ended {when_ended(self.issuing.certificate)}",
                "make a new authority, or correct this machine's clock",
            )
        alternatives = forms.alternatives(request.node, names)
        validity = (now - BACKDATE, ends)
        return forms.make_leaf(request.key, request.node, alternatives, self.issuing, validity)

    def server_identity(self, names: Sequence[str]) -> tuple[Path, Path]:
        """(certificate chain, key) of the service for these names or addresses; made anew where
        there is none, it is for others, or a third of its life is left. It starts a day early: a
        node whose clock is behind shall hear so, not fail to connect. Raises OSError."""
        chain, key_path = self.folder / "server.pem", self.folder / "server.key"
        now = self.clock()
        wanted = [_general(name) for name in names]
        if key_path.exists() and chain.exists():
            old = x509.load_pem_x509_certificates(chain.read_bytes())[0]
            held = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            fresh = forms.valid_until(old) - now > _SERVER_LIFE / 3 and forms.valid_from(old) < now
            key = forms.load_key(key_path.read_bytes())
            fits = old.public_key() == key.public_key()
            ours = old.issuer == self.issuing.certificate.subject
            if fresh and fits and ours and set(wanted) == set(held):
                return chain, key_path
        key = forms.new_key()
        validity = (now - DAY, now + _SERVER_LIFE)
        leaf = forms.make_leaf(key.public_key(), names[0], wanted, self.issuing, validity)
        REAL_DISK.write(key_path, forms.key_pem(key), SECRET)
        REAL_DISK.write(chain, forms.pem_of(leaf, self.issuing.certificate), PUBLIC)
        return chain, key_path

    def crl(self) -> x509.CertificateRevocationList:
        """Certificates that are denied and have not ended. It holds as long as a certificate does,
        so that nodes which cannot reach the authority go on. Raises Unavailable."""
        now = self.clock()
        rows = self.ledger.rows(
            """SELECT serial, min(at) AS at FROM (
                 SELECT c.serial, c.ends, d.at FROM denied d
                   JOIN certificates c ON d.kind = 'node' AND c.node = d.value
                 UNION ALL SELECT c.serial, c.ends, d.at FROM denied d
                   JOIN certificates c ON d.kind = 'card' AND c.card = d.value
                 UNION ALL SELECT c.serial, c.ends, d.at FROM denied d
                   JOIN certificates c ON d.kind = 'certificate' AND c.serial = d.value
               ) WHERE ends > ? GROUP BY serial""",
            now,
        )
        denied = [(int(row["serial"], 16), float(row["at"])) for row in rows]
        return forms.make_crl(self.issuing, denied, (now - BACKDATE, now + self._life))

    def nonce(self) -> bytes:
        """For an attestation: time, randomness and a code by which it is known again, so that
        nothing needs to be kept of nodes that only ask. 40 bytes."""
        fresh = int(self.clock()).to_bytes(8) + os.urandom(16)
        return fresh + self._code(fresh)

    def check_nonce(self, nonce: bytes) -> None:
        """Raises StaleNonce. One that is used twice within its time vouches for the same key only,
        as the card signed both."""
        fresh, code = nonce[:-_MAC], nonce[-_MAC:]
        if len(nonce) != 40 or not hmac.compare_digest(code, self._code(fresh)):
            raise StaleNonce("the attestation's nonce is not from this authority", "enroll again")
        age = self.clock() - int.from_bytes(fresh[:8])
        if not -1 <= age <= _NONCE_SECONDS:
            raise StaleNonce(
                f"the attestation's nonce is {age:.0f} s old; {_NONCE_SECONDS:.0f} s is the limit",
                "enroll again",
            )

    def _code(self, fresh: bytes) -> bytes:
        return hmac.digest(self._nonce_key, b"nonce" + fresh, "sha256")[:_MAC]


def extend(folder: Path, root_key: Path, clock: Clock) -> None:
    """Give the issuing authority another three years, with the same key and name: certificates and
    lists of denied ones that it signed go on to hold. Raises BadAuthority, OSError."""
    root, issuing = _certificate(folder / "root.pem"), _signer(folder, "issuing")
    try:
        key = forms.load_key(root_key.read_bytes())
    except ValueError as error:
        raise BadAuthority(f"{root_key} is damaged: {error}") from None
    if key.public_key() != root.public_key():
        raise BadAuthority(f"{root_key} is not the key of {folder / 'root.pem'}")
    now = clock()
    ends = min(now + _ISSUING_LIFE, forms.valid_until(root))
    name = issuing.certificate.subject
    made = forms.make_authority(issuing.key, name, Signer(root, key), (now - DAY, ends))
    REAL_DISK.write(folder / "issuing.pem", forms.pem_of(made), PUBLIC)


def add_vendor(folder: Path, file: Path) -> None:
    """Trust the card authorities of a PEM file. Raises BadAuthority, OSError."""
    for certificate in read_vendors([file]):
        name = forms.fingerprint(certificate).removeprefix("sha256:")[:16]
        REAL_DISK.make(folder / "card-ca")
        REAL_DISK.write(folder / "card-ca" / f"{name}.pem", forms.pem_of(certificate))


def when_ended(certificate: x509.Certificate) -> str:
    return forms.when(forms.valid_until(certificate))


def names_text(names: Sequence[str]) -> str:
    """How the ledger keeps them."""
    return json.dumps(sorted(set(names)))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise BadAuthority(f"{path} is damaged: {error}") from None


def _signer(folder: Path, name: str) -> Signer:
    path = folder / f"{name}.key"
    if path.stat().st_mode & 0o077:
        raise BadAuthority(f"others may read {path}", f"chmod 600 {path}")
    try:
        key = forms.load_key(path.read_bytes())
    except ValueError as error:
        raise BadAuthority(f"{path} is damaged: {error}") from None
    certificate = _certificate(folder / f"{name}.pem")
    if certificate.public_key() != key.public_key():
        raise BadAuthority(f"{path} is not the key of {folder / name}.pem")
    return Signer(certificate, key)

# SPDX-License-Identifier: Apache-2.0
"""Enrolling a node and keeping its certificate fresh: the steps, and a loop that takes them.

A new pair is tried in a handshake with the authority before services get it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509

from firmware_bridge.errors import BridgeError
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.attestation import Attestation, Attester
from firmware_bridge.provision.client import EstClient, Pair, check_url
from firmware_bridge.provision.errors import (
    ClockSkew,
    Denied,
    NoCertificate,
    NoIdentity,
    OutOfTime,
    ProvisionError,
    Unreachable,
    Untrusted,
    WrongCertificate,
)
from firmware_bridge.provision.node import Identity, NodeCredentials, Pending, check_time

LOGGER = logging.getLogger("tepi.provision")
SHARE, JITTER = 2 / 3, 1 / 20
"""Of a certificate's life: when it is renewed, and how far nodes spread around that."""
CRL_SECONDS = 3600.0
_LEAST, _MOST = 60.0, 3600.0  # seconds between two tries
_REFUSED = (Denied, NoCertificate, OutOfTime)
_GRAVE = (*_REFUSED, ClockSkew, Untrusted)


def renew_at(starts: float, ends: float, rng: random.Random) -> float:
    """When a certificate is to be renewed: at two thirds of its life, give or take a twentieth, so
    that a fleet which was enrolled at once does not renew at once."""
    return starts + (ends - starts) * (SHARE + rng.uniform(-JITTER, JITTER))


def due_at(certificate: x509.Certificate) -> float:
    """The same, chosen by the certificate's serial number: a restart does not choose anew."""
    rng = random.Random(certificate.serial_number)
    return renew_at(forms.valid_from(certificate), forms.valid_until(certificate), rng)


def retry_after(failures: int, rng: random.Random) -> float:
    """Seconds until the next try: doubled each time from one minute to one hour, spread by half."""
    return float(min(_MOST, _LEAST * 2 ** min(failures - 1, 10)) * rng.uniform(0.5, 1.0))


@dataclass(frozen=True)
class Enrolment:
    """The steps of a node towards its certificate; `clock` in seconds since 1970, `pause` waits."""

    identity: Identity
    clock: Callable[[], float]
    pause: Callable[[float], object]

    def enroll(
        self, url: str, root: bytes, node: str, secret: str | None, card: Attester | None
    ) -> x509.Certificate:
        """Get a first certificate for `node` and make it the current one; `root`: the PEM of what
        is trusted. Interrupted or unanswered, do it again: the same key and token are used.

        Raises what EstClient and the authority's rules do, BridgeError of the card, OSError."""
        url = check_url(url)
        with self.identity.changing(), EstClient(url, root, self.clock, None, self.pause) as est:
            issuers = est.cacerts()
            pending = self.identity.prepare(node)
            attestation = None if card is None else _attest(card, est.nonce(), pending)
            made = est.enroll(pending.request, secret, attestation)
            chain = _chain(made, issuers, root)
            staged = self.identity.stage(pending, chain, x509.load_pem_x509_certificate(root))
            self._try(url, root, staged, made)
            self.identity.set_authority(url)
            self.identity.switch(made)
        return made

    def renew(self) -> x509.Certificate:
        """A certificate for a new key in the place of the current one, which stays until a
        handshake with the new one succeeds. Raises as `enroll`, NoIdentity."""
        with self.identity.changing():
            url = self.identity.authority
            if url is None:
                raise NoIdentity(
                    "this node's certificate was carried by hand, so it has no address to renew at",
                    "write a request with `tepi provision export-csr`, or enroll with a token",
                )
            current, held = self.identity.certificate(), self.identity.credentials()
            wrong = check_time(current, self.clock())
            if wrong is not None:
                raise OutOfTime(
                    f"this node's certificate cannot renew itself: {wrong}",
                    "enroll with a new token, or correct this machine's clock",
                )
            root = held.ca_path.read_bytes()
            pair = Pair(held.cert_path, held.key_path)
            with EstClient(url, root, self.clock, pair, self.pause) as est:
                issuers = est.cacerts()
                pending = self.identity.prepare(forms.node_of(current) or "")
                made = est.reenroll(pending.request)
            chain = _chain(made, issuers, root)
            staged = self.identity.stage(pending, chain, x509.load_pem_x509_certificate(root))
            self._try(url, root, staged, made)
            self.identity.switch(made)
        return made

    def fetch_crl(self) -> bool:
        """Ask for the list of denied certificates; whether there was a newer one. Raises as
        `renew`."""
        url = self.identity.authority
        if url is None:
            return False
        with EstClient(url, self.identity.root(), self.clock, None, self.pause) as est:
            crl = est.crl()
        with self.identity.changing():
            return self.identity.set_crl(crl)

    def _try(self, url: str, root: bytes, pair: NodeCredentials, made: x509.Certificate) -> None:
        """The first handshake with a new pair. One that is refused is thrown away; where there is
        no answer, the pair has been checked against the root at least, and is good."""
        try:
            shown = Pair(pair.cert_path, pair.key_path)
            with EstClient(url, root, self.clock, shown, self.pause) as est:
                node = est.whoami()
        except Unreachable as error:
            LOGGER.warning("the new certificate could not be tried: %s", error)
            return
        except _REFUSED:
            self.identity.drop(made)
            raise
        if node != forms.node_of(made):
            self.identity.drop(made)
            raise WrongCertificate(f"the authority takes this node for {node}")


def _attest(card: Attester, nonce: bytes, pending: Pending) -> Attestation:
    key = forms.load_key(pending.key).public_key()
    signature, certificate = card.attest(nonce, forms.digest(forms.spki_of(key)))
    return Attestation(nonce, signature, certificate)


def _chain(
    made: x509.Certificate, issuers: list[x509.Certificate], root: bytes
) -> list[x509.Certificate]:
    """The certificate with those between it and the root."""
    trusted = x509.load_pem_x509_certificate(root)
    between = [each for each in issuers if each.subject == made.issuer and each != trusted]
    return [made, *between[:1]]


class Renewer:
    """Renews an identity in time and keeps its list of denied certificates; a thread, or step by
    step. `changed` is called when services should take a new pair or a new list."""

    def __init__(
        self,
        enrolment: Enrolment,
        changed: Callable[[], object] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self._enrolment, self._changed = enrolment, changed
        self._rng = rng or random.Random()
        self._failures = 0
        self._again = self._crl_due = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def step(self) -> float:
        """Do what is due now; seconds until something is. Errors are logged and tried again later;
        only an identity that is missing raises: NoIdentity, WrongCertificate, OSError."""
        identity, clock = self._enrolment.identity, self._enrolment.clock
        now = clock()
        due = due_at(identity.certificate())
        if identity.authority is None:
            return max(1.0, min(_MOST, due - now))
        if now >= max(due, self._again):
            self._renew()
            due = due_at(identity.certificate())
        if now >= self._crl_due:
            self._crl_due = now + self._crl()
        return max(1.0, min(max(due, self._again), self._crl_due) - clock())

    def _renew(self) -> None:
        clock = self._enrolment.clock
        try:
            made = self._enrolment.renew()
        except (BridgeError, OSError) as error:
            self._failures += 1
            left = forms.valid_until(self._enrolment.identity.certificate()) - clock()
            wait = min(retry_after(self._failures, self._rng), max(1.0, left / 4))
            self._again = clock() + wait
            level = logging.ERROR if isinstance(error, _GRAVE) else logging.WARNING
            LOGGER.log(level, "not renewed, again in %.0f s: %s", wait, error)
            return
        self._failures, self._again = 0, 0.0
        LOGGER.info("renewed until %s", forms.when(forms.valid_until(made)))
        self._changed()

    def _crl(self) -> float:
        try:
            if self._enrolment.fetch_crl():
                self._changed()
        except (ProvisionError, OSError) as error:
            LOGGER.warning("no list of denied certificates: %s", error)
            return retry_after(1, self._rng)
        return CRL_SECONDS * self._rng.uniform(0.9, 1.0)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises as `step`."""
        while not stop.is_set():
            stop.wait(self.step())

    def start(self) -> None:
        """Run in a thread of its own."""
        self._thread = threading.Thread(target=self._guarded, name="renewer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; a renewal under way is finished or left for the next start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _guarded(self) -> None:
        try:
            self.run(self._stop)
        except (BridgeError, OSError) as error:
            LOGGER.error("this node's certificate is not renewed any more: %s", error)

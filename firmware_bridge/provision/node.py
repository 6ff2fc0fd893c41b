# SPDX-License-Identifier: Apache-2.0
"""The identity of a node on its disk: a folder in which key and certificate change together.

    current -> pairs/SERIAL      what services use; a symbolic link, turned in one step
    pairs/SERIAL/                key.pem (0600), cert.pem (with the issuing certificate), ca.pem
    pending/                     key.pem, node: of a request that is not answered yet
    authority                    address that renews, where there is one
    crl.pem                      certificates that the authority denies

A crash at any point leaves a pair that holds together, and the pending key: the same request is
made again, which gives the same certificate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.durable import PUBLIC, REAL_DISK, SECRET, Disk, locked
from firmware_bridge.provision.errors import NoIdentity, WrongCertificate
from firmware_bridge.provision.x509_forms import when


@dataclass(frozen=True)
class NodeCredentials:
    """PEM files that belong together: `cert_path` has the chain up to the root, without it;
    `ca_path` the root; `crl_path` may not exist."""

    key_path: Path
    cert_path: Path
    ca_path: Path
    crl_path: Path


def node_credentials(folder: Path) -> NodeCredentials:
    """What to give to a TLS library now. The link is followed once, so a renewal meanwhile does not
    mix two pairs; the pair before the current one stays for readers. Raises NoIdentity."""
    try:
        pair = (folder / "current").resolve(strict=True)
    except OSError:
        raise NoIdentity(
            f"there is no certificate of a node in {folder}", "get one with `tepi provision enroll`"
        ) from None
    return _files(pair, folder)


def _files(pair: Path, folder: Path) -> NodeCredentials:
    return NodeCredentials(pair / "key.pem", pair / "cert.pem", pair / "ca.pem", folder / "crl.pem")


@dataclass(frozen=True)
class Status:
    """What a node's certificate says."""

    node: str
    serial: str
    starts: float
    ends: float
    names: tuple[str, ...]
    issuer: str
    root: str
    authority: str | None
    pending: bool


@dataclass(frozen=True)
class Pending:
    """A key that waits for its certificate; `request` is PKCS#10 in DER."""

    node: str
    key: bytes
    request: bytes


class Identity:
    """The folder, changed by one process at a time (`changing`)."""

    def __init__(self, folder: Path, disk: Disk = REAL_DISK) -> None:
        self.folder, self._disk = folder, disk

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the folder's lock; makes the folder. Raises IdentityBusy, OSError."""
        self._disk.make(self.folder, 0o755)
        with locked(self.folder / "lock", f"the identity in {self.folder}"):
            yield

    def credentials(self) -> NodeCredentials:
        """Raises NoIdentity."""
        return node_credentials(self.folder)

    def certificate(self) -> x509.Certificate:
        """The current one. Raises NoIdentity, WrongCertificate, OSError."""
        path = self.credentials().cert_path
        try:
            return x509.load_pem_x509_certificates(path.read_bytes())[0]
        except ValueError as error:
            raise WrongCertificate(f"{path} is damaged: {error}", "enroll anew") from None

    def root(self) -> bytes:
        """The PEM of what this node trusts. Raises NoIdentity, OSError."""
        return self.credentials().ca_path.read_bytes()

    @property
    def authority(self) -> str | None:
        """Where renewals go; None where certificates are carried by hand."""
        try:
            return (self.folder / "authority").read_text().strip() or None
        except FileNotFoundError:
            return None

    def set_authority(self, url: str) -> None:
        """Raises OSError."""
        if url != self.authority:
            self._disk.write(self.folder / "authority", f"{url}\n".encode())

    def status(self) -> Status:
        """Raises NoIdentity, WrongCertificate, OSError."""
        certificate = self.certificate()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        root = x509.load_pem_x509_certificate(self.root())
        return Status(
            forms.node_of(certificate) or "",
            forms.serial_text(certificate),
            forms.valid_from(certificate),
            forms.valid_until(certificate),
            tuple(str(name.value) for name in names),
            certificate.issuer.rfc4514_string(),
            forms.fingerprint(root),
            self.authority,
            (self.folder / "pending").is_dir(),
        )

    def prepare(self, node: str) -> Pending:
        """The request for a certificate: of the key that waits, if there is one for this node, else
        of a new key, which is on the disk before it is asked for. Raises BadRequest, OSError."""
        forms.check_node(node)
        place = self.folder / "pending"
        found = self.pending()
        if found is None or found.node != node:
            key = forms.key_pem(forms.new_key())
            new = self.folder / "pending.new"
            self._disk.remove(new)
            self._disk.make(new, 0o700)
            self._disk.write(new / "key.pem", key, SECRET)
            self._disk.write(new / "node", node.encode())
            self._disk.remove(place)
            self._disk.rename(new, place)
            found = Pending(node, key, forms.make_request(forms.load_key(key), node))
        return found

    def pending(self) -> Pending | None:
        """The key that waits, if one does. Raises OSError."""
        place = self.folder / "pending"
        try:
            key, node = (place / "key.pem").read_bytes(), (place / "node").read_text()
            return Pending(node, key, forms.make_request(forms.load_key(key), node))
        except (FileNotFoundError, ValueError):
            return None

    def stage(
        self, pending: Pending, chain: list[x509.Certificate], root: x509.Certificate
    ) -> NodeCredentials:
        """Write the pair beside the current one, for a first handshake. `chain`: the node's
        certificate, then those of its authorities below the root.

        Raises WrongCertificate where they do not belong together, OSError."""
        check_chain(pending, chain, root)
        place = self._place(chain[0])
        new = place.with_name(f".{place.name}")
        if not place.is_dir():
            self._disk.remove(new)
            self._disk.make(new, 0o700)
            self._disk.write(new / "key.pem", pending.key, SECRET)
            self._disk.write(new / "cert.pem", forms.pem_of(*chain), PUBLIC)
            self._disk.write(new / "ca.pem", forms.pem_of(root), PUBLIC)
            self._disk.rename(new, place)
        return _files(place, self.folder)

    def switch(self, certificate: x509.Certificate) -> None:
        """Make a staged pair the current one; the one before stays, older ones go, and so does the
        pending key. Raises OSError."""
        place, link = self._place(certificate), self.folder / "current"
        before = link.resolve()
        self._disk.link(link, str(place.relative_to(self.folder)))
        self._disk.remove(self.folder / "pending")
        for other in place.parent.iterdir():
            if other not in (place, self.folder / "pairs" / before.name):
                self._disk.remove(other)

    def drop(self, certificate: x509.Certificate) -> None:
        """Throw a staged pair and its key away, as the authority refuses it. Raises OSError."""
        place = self._place(certificate)
        if place != (self.folder / "current").resolve():
            self._disk.remove(place)
        self._disk.remove(self.folder / "pending")

    def set_crl(self, crl: x509.CertificateRevocationList) -> bool:
        """Keep a list of denied certificates, if this node's issuer signed it and it is newer than
        the one held, and says something else or that one is half over; whether it was kept.
        Raises NoIdentity, WrongCertificate, OSError."""
        chain = x509.load_pem_x509_certificates(self.credentials().cert_path.read_bytes())
        issuer = next((each for each in chain[1:] if each.subject == crl.issuer), None)
        key = issuer and issuer.public_key()
        if key is None or not crl.is_signature_valid(key):  # type: ignore[arg-type]
            raise WrongCertificate("the list of denied certificates is not from this authority")
        path = self.folder / "crl.pem"
        if path.exists():
            held = x509.load_pem_x509_crl(path.read_bytes())
            if held.issuer == crl.issuer and not _replaces(crl, held):
                return False
        self._disk.write(path, crl.public_bytes(forms.PEM), PUBLIC)
        return True

    def _place(self, certificate: x509.Certificate) -> Path:
        folder = self.folder.resolve() / "pairs"
        self._disk.make(folder, 0o755)
        return folder / forms.serial_text(certificate)


def _replaces(new: x509.CertificateRevocationList, held: x509.CertificateRevocationList) -> bool:
    if new.last_update_utc <= held.last_update_utc or held.next_update_utc is None:
        return new.last_update_utc > held.last_update_utc
    half = held.last_update_utc + (held.next_update_utc - held.last_update_utc) / 2
    says = {each.serial_number for each in held}
    return new.last_update_utc > half or says != {each.serial_number for each in new}


def check_chain(pending: Pending, chain: list[x509.Certificate], root: x509.Certificate) -> None:
    """That the certificate is for this key and this node, and that the root stands behind it.
    Raises WrongCertificate."""
    if not chain:
        raise WrongCertificate("there is no certificate")
    leaf = chain[0]
    if forms.spki_of(leaf.public_key()) != forms.spki_of(forms.load_key(pending.key).public_key()):
        raise WrongCertificate(
            "the certificate is not for the key that waits here",
            "write a new request with `tepi provision export-csr` and have that one signed",
        )
    if forms.node_of(leaf) != pending.node:
        raise WrongCertificate(
            f"the certificate is for {forms.node_of(leaf)}, and this is node {pending.node}"
        )
    for below, above in zip(chain, [*chain[1:], root], strict=True):
        try:
            below.verify_directly_issued_by(above)
        except (*forms.UNREADABLE, InvalidSignature):
            raise WrongCertificate(
                f"{below.subject.rfc4514_string()} is not signed by "
                f"{above.subject.rfc4514_string()}, whose root this node trusts",
                "name the root certificate of the authority with --ca",
            ) from None


def check_time(certificate: x509.Certificate, now: float) -> str | None:
    """What is wrong with a certificate's time by this clock, if anything is."""
    if now < forms.valid_from(certificate):
        starts = when(forms.valid_from(certificate))
        return f"it starts at {starts}, and this machine's clock says {when(now)}"
    if now >= forms.valid_until(certificate):
        ends = when(forms.valid_until(certificate))
        return f"it ended at {ends}, and this machine's clock says {when(now)}"
    return None

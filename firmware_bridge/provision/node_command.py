# SPDX-License-Identifier: Apache-2.0
"""The node's side of `tepi provision`: enroll, renew, export-csr, import-cert."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path

import click
from cryptography import x509

from firmware_bridge.provision import console
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.card import CardAtPort
from firmware_bridge.provision.client import bootstrap
from firmware_bridge.provision.durable import REAL_DISK
from firmware_bridge.provision.errors import NoIdentity, OutOfTime, Untrusted, WrongCertificate
from firmware_bridge.provision.node import Identity, check_time
from firmware_bridge.provision.renewal import Enrolment, Renewer, due_at
from firmware_bridge.provision.tokens import Token

_CLOCK = time.time


def _enrolment(folder: Path) -> Enrolment:
    return Enrolment(Identity(folder), _CLOCK, time.sleep)


def _tell(certificate: x509.Certificate, folder: Path, as_json: bool) -> None:
    ends, due = forms.valid_until(certificate), due_at(certificate)
    node = forms.node_of(certificate)
    fields = {
        "node": node,
        "serial": forms.serial_text(certificate),
        "ends": int(ends),
        "renew_at": int(due),
        "identity": str(folder),
    }
    lines = [
        f"node {node} has a certificate until {forms.when(ends)}, to be renewed {forms.when(due)}",
        f"  identity      {folder}",
    ]
    if Identity(folder).authority is not None:
        lines.append(f"  go on with    tepi provision renew --loop --identity {folder}")
    console.tell(fields, as_json, lines)


@click.command(
    epilog="""\b
Examples:
  tepi provision enroll https://ca.example:8443 --token @token --node shop-17
  tepi provision enroll https://ca.example:8443 --token @token --port /dev/ttyACM0
  tepi provision enroll https://ca.example:8443 --port /dev/ttyACM0 --ca root.pem

\b
The key is made here and never leaves. A token names the authority's root, so it needs no --ca. When
it is interrupted, or no answer comes, run it again: the token is not lost.
"""
)
@click.argument("url", metavar="URL")
@click.option(
    "--token",
    "given",
    help="The token; @FILE or - (standard input) keep it off the command line, which others can "
    "read.",
)
@click.option("--node", help="This node's name.  [default: the host's]")
@click.option("--port", help="Port of the card that is to vouch for this node.")
@click.option(
    "--ca",
    type=console.FILE,
    help="The authority's root certificate (PEM), brought by a way that you trust; a token "
    "says which it is.",
)
@console.identity
@console.as_json
def enroll(
    url: str,
    given: str | None,
    node: str | None,
    port: str | None,
    ca: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Get this node its certificate."""
    if given is None and port is None:
        raise click.UsageError("give a --token, the --port of a card, or both")
    token = None if given is None else Token.read(console.token_text(given))
    if ca is not None:
        root = _root(ca)
    elif token is not None:
        root = bootstrap(url, token.root, time.sleep)
    else:
        raise click.UsageError("without a token, name the authority's root certificate with --ca")
    name = node or socket.gethostname().lower()
    card = None if port is None else CardAtPort(port)
    secret = None if token is None else token.secret
    made = _enrolment(folder).enroll(url, root, name, secret, card)
    _tell(made, folder, as_json)


def _root(path: Path) -> bytes:
    try:
        return forms.pem_of(x509.load_pem_x509_certificate(path.read_bytes()))
    except ValueError as error:
        raise Untrusted(f"{path} holds no certificate: {error}") from None


@click.command(
    epilog="""\b
Examples:
  tepi provision renew
  tepi provision renew --force
  tepi provision renew --loop

\b
Renewal makes a new key. The pair before stays until a handshake with the new one succeeds. SIGTERM
and SIGINT end --loop.
"""
)
@click.option("--loop", is_flag=True, help="Go on: renew at two thirds of each certificate's life.")
@click.option("--force", is_flag=True, help="Renew also before it is due.")
@console.identity
@console.as_json
def renew(loop: bool, force: bool, folder: Path, as_json: bool) -> None:
    """Renew this node's certificate before it expires."""
    enrolment = _enrolment(folder)
    current = enrolment.identity.certificate()
    if loop:
        console.configure_log(as_json)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if force:
            ends = forms.valid_until(enrolment.renew())
            console.LOGGER.info("renewed until %s", forms.when(ends))
        Renewer(enrolment).run(stop)
        return
    if force or due_at(current) <= _CLOCK():
        current = enrolment.renew()
        enrolment.fetch_crl()
    _tell(current, folder, as_json)


@click.command(
    epilog="""\b
Examples:
  tepi provision export-csr shop-17.csr --node shop-17
  tepi provision export-csr - --node shop-17

\b
For nodes that cannot reach their authority. The request may be written again: the key that waits is
the same until its certificate comes back.
"""
)
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--node", help="This node's name.  [default: that of its certificate, or the host's]")
@console.identity
def export_csr(out: Path, node: str | None, folder: Path) -> None:
    """Write a request to be carried to the authority by hand."""
    identity = Identity(folder)
    with identity.changing():
        if node is None:
            try:
                node = identity.status().node
            except NoIdentity:
                node = socket.gethostname().lower()
        pending = identity.prepare(node)
    pem = x509.load_der_x509_csr(pending.request).public_bytes(forms.PEM)
    if str(out) == "-":
        click.echo(pem.decode(), nl=False)
        return
    REAL_DISK.write(out, pem)
    click.echo(f"request of node {node}: {out}; bring it to the authority", err=True)


@click.command(
    epilog="""\b
Examples:
  tepi provision import-cert shop-17.pem
  tepi provision import-cert shop-17.pem --ca root.pem

\b
FILE is what `tepi provision sign-csr` wrote. The first time, the root in it is trusted, as it was
carried by hand; after that only the same root, unless --ca names another.
"""
)
@click.argument("file", type=console.FILE, metavar="FILE")
@click.option("--ca", type=console.FILE, help="The authority's root certificate (PEM).")
@console.identity
@console.as_json
def import_cert(file: Path, ca: Path | None, folder: Path, as_json: bool) -> None:
    """Take the certificate that was carried back."""
    identity = Identity(folder)
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise WrongCertificate(f"{file} holds no certificates: {error}") from None
    with identity.changing():
        pending = identity.pending()
        if pending is None:
            raise NoIdentity(
                f"no key waits for a certificate in {folder}",
                "write a request with `tepi provision export-csr` first",
            )
        root = _trusted(identity, ca, found)
        chain = [each for each in found if each != root]
        wrong = check_time(chain[0], _CLOCK()) if chain else None
        if wrong is not None:
            raise OutOfTime(f"the certificate of {file} does not hold now: {wrong}")
        identity.stage(pending, chain, root)
        identity.switch(chain[0])
    _tell(chain[0], folder, as_json)


def _trusted(
    identity: Identity, ca: Path | None, found: list[x509.Certificate]
) -> x509.Certificate:
    """--ca, else the root that the node has, else the one that was carried here."""
    if ca is not None:
        return x509.load_pem_x509_certificate(_root(ca))
    try:
        return x509.load_pem_x509_certificate(identity.root())
    except NoIdentity:
        own = [each for each in found if each.issuer == each.subject]
        if not own:
            raise WrongCertificate(
                "the file has no root certificate", "name it with --ca"
            ) from None
        return own[0]

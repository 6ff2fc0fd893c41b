# SPDX-License-Identifier: Apache-2.0
"""The authority's side of `tepi provision`: init-ca, serve, token, deny, sign-csr."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import socket
import time
from pathlib import Path

import click

from firmware_bridge.provision import console
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import KINDS, Admission
from firmware_bridge.provision.authority import LIFE, Authority, add_vendor, extend
from firmware_bridge.provision.durable import REAL_DISK
from firmware_bridge.provision.errors import BadRequest
from firmware_bridge.provision.est import EstServer

_CLOCK = time.time


@click.command(
    epilog="""\b
Examples:
  tepi provision init-ca /srv/authority --name "Acme retail"
  tepi provision init-ca /srv/authority --card-ca vendor-card-ca.pem
  tepi provision init-ca /srv/authority --card-ca another-vendor.pem    (add it later)
  tepi provision init-ca /srv/authority --extend /media/safe/root.key   (within three years)

\b
DIR/root.key is needed again only for --extend: move it to a place off this machine. A running
`tepi provision serve` takes note of what is added or extended when it is started again.
"""
)
@console.authority
@click.option("--name", default="Tepi", show_default=True, help="Organisation in its certificates.")
@click.option(
    "--card-ca",
    "vendors",
    type=console.FILE,
    multiple=True,
    help="Certificate (PEM) of a card vendor's authority: its cards can vouch for nodes. Given "
    "alone with a DIR that is an authority already, it is added.",
)
@click.option(
    "--extend",
    "root_key",
    type=console.FILE,
    metavar="ROOT.KEY",
    help="Give the issuing certificate of an authority another three years.",
)
@console.as_json
def init_ca(
    directory: Path, name: str, vendors: tuple[Path, ...], root_key: Path | None, as_json: bool
) -> None:
    """Make the authority that gives nodes their certificates, in DIR."""
    there = (directory / "issuing.key").exists()
    if root_key is not None or (there and vendors):
        for path in vendors:
            add_vendor(directory, path)
        if root_key is not None:
            extend(directory, root_key, _CLOCK)
        made = Authority(directory, _CLOCK)
    else:
        made = Authority.create(directory, _CLOCK, name, vendors)
    with made as authority:
        root, found = forms.fingerprint(authority.root), len(authority.vendors)
        ends = forms.when(forms.valid_until(authority.issuing.certificate))
    done = "takes" if there else "is ready, and takes"
    fields = {"root": str(directory / "root.pem"), "fingerprint": root, "card_authorities": found}
    lines = [
        f"the authority in {directory} {done} cards of {found} vendor authorities",
        f"  until         {ends}",
        f"  root          {directory / 'root.pem'}",
        f"                {root}",
        f"  offline key   {directory / 'root.key'}: move it off this machine, and keep a copy",
        f"  go on with    tepi provision serve {directory}",
    ]
    console.tell(fields, as_json, lines)


@click.command(
    epilog="""\b
Examples:
  tepi provision serve /srv/authority --listen 0.0.0.0:8443 --name ca.example
  tepi provision serve /srv/authority --require-card --life 7d

\b
Paths are those of RFC 7030 (EST) under /.well-known/est, so other EST clients work as well; their
password is the token's middle part. New tokens, cards and denials are taken note of while it runs.
SIGTERM and SIGINT end it in order: answers under way have 5 seconds.
"""
)
@console.authority
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    callback=console.listen,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="DNS name or address by which nodes reach it; may be given several times.  [default: this "
    "host's name, localhost, 127.0.0.1 and HOST]",
)
@click.option(
    "--require-card", is_flag=True, help="Enroll no node without a card that vouches for it."
)
@click.option(
    "--life",
    type=console.Duration(),
    default=LIFE,
    show_default="7d",
    help="How long a node's certificate holds.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print one JSON line when ready, {"address": …, "port": …}, and log in JSON.',
)
def serve(
    directory: Path,
    listen: tuple[str, int],
    names: tuple[str, ...],
    require_card: bool,
    life: float,
    as_json: bool,
) -> None:
    """Run the authority's enrolment service over HTTPS."""
    console.configure_log(as_json)
    host, port = listen
    if not names:
        own = [socket.gethostname(), "localhost", "127.0.0.1"]
        names = tuple(dict.fromkeys([*own, *([] if host in ("0.0.0.0", "::") else [host])]))
    with Authority(directory, _CLOCK, life) as authority:
        server = EstServer(Admission(authority, require_card), host, port, names)
        asyncio.run(_serve(server, names[0] if host in ("0.0.0.0", "::") else host, as_json))


async def _serve(server: EstServer, host: str, as_json: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        address = f"https://{shown}:{server.port}"
        ready = json.dumps({"address": address, "port": server.port})
        click.echo(ready if as_json else f"enrolling nodes at {address}")
        await stop.wait()
    finally:
        await server.stop()


@click.command(
    epilog="""\b
Examples:
  tepi provision token /srv/authority --node shop-17
  tepi provision token /srv/authority --node shop-17 --also 10.0.0.17 --life 1h
  tepi provision token /srv/authority --card TC0001 --node shop-17
  tepi provision token /srv/authority --allow cards.csv

\b
With --allow, cards on the list need no token: the first node that a card vouches for gets its
certificate. The file has a card's serial number on each line, and a node's name behind a comma
where the card is for that node only.
"""
)
@console.authority
@click.option("--node", help="Name of the node that the token is for.")
@click.option("--card", help="Serial number of the card that must vouch; it is put on the list.")
@click.option(
    "--also",
    "names",
    multiple=True,
    help="Further DNS name or address for the node's certificates; may be given several times.",
)
@click.option(
    "--life",
    type=console.Duration(),
    default=86400.0,
    show_default="1d",
    help="How long the token may be used.",
)
@click.option(
    "--allow", type=console.FILE, help="Put the cards of this file on the list; no token."
)
@console.as_json
def token(
    directory: Path,
    node: str | None,
    card: str | None,
    names: tuple[str, ...],
    life: float,
    allow: Path | None,
    as_json: bool,
) -> None:
    """Make a one-time token for a node or a card's serial number."""
    if allow is not None and (node or card or names):
        raise click.UsageError("--allow stands alone")
    if allow is None and node is None and card is None:
        raise click.UsageError("name a --node, a --card, or both; or a list with --allow")
    with Authority(directory, _CLOCK) as authority:
        rules = Admission(authority)
        if allow is not None:
            count = rules.allow(_cards(allow))
            console.tell({"allowed": count}, as_json, [f"{count} cards of {allow} are on the list"])
            return
        made = rules.new_token(node, card, life, names)
        ends = authority.clock() + life
    fields = {"token": str(made), "node": node, "card": card, "ends": int(ends)}
    console.tell(fields, as_json, [str(made)])
    if not as_json:
        whom = " and ".join(
            f"{kind} {value}" for kind, value in (("node", node), ("card", card)) if value
        )
        click.echo(f"for {whom}, once, until {forms.when(ends)}", err=True)


def _cards(path: Path) -> list[tuple[str, str | None]]:
    """Of a file with SERIAL or SERIAL,NODE lines. Raises BadRequest."""
    found: list[tuple[str, str | None]] = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells[0].startswith("#"):
                continue
            if len(cells) > 2 or not cells[0]:
                raise BadRequest(f"{path}:{number} is not SERIAL or SERIAL,NODE")
            found.append((cells[0], cells[1] if len(cells) == 2 and cells[1] else None))
    return found


@click.command(
    epilog="""\b
Examples:
  tepi provision deny /srv/authority --node shop-17 --reason stolen
  tepi provision deny /srv/authority --card TC0001
  tepi provision deny /srv/authority --certificate 5f1c…
  tepi provision deny /srv/authority --node shop-17 --lift

\b
Nodes learn of it within an hour, from the list of denied certificates; renewals fail at once.
"""
)
@console.authority
@click.option("--node", help="Name of a node.")
@click.option("--card", help="Serial number of a card.")
@click.option("--certificate", help="Serial number of one certificate, in hexadecimal.")
@click.option("--reason", default="", help="Why; shown to whoever is refused.")
@click.option("--lift", is_flag=True, help="Take the denial back.")
@console.as_json
def deny(
    directory: Path,
    node: str | None,
    card: str | None,
    certificate: str | None,
    reason: str,
    lift: bool,
    as_json: bool,
) -> None:
    """Put a node or a card on the list of those that get no certificate."""
    chosen = [(k, v) for k, v in zip(KINDS, (node, card, certificate), strict=True) if v]
    if len(chosen) != 1:
        raise click.UsageError("name one of --node, --card and --certificate")
    ((kind, value),) = chosen
    if kind == "certificate":
        value = value.lower().replace(":", "").rjust(40, "0")
    with Authority(directory, _CLOCK) as authority:
        rules = Admission(authority)
        if lift:
            if not rules.lift(kind, value):
                raise BadRequest(f"{kind} {value} is not denied", "see `tepi provision status`")
        else:
            rules.deny(kind, value, reason)
    word = "no longer denied" if lift else "denied"
    console.tell({"kind": kind, "value": value, "denied": not lift}, as_json, [
        f"{kind} {value} is {word}"
    ])  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  tepi provision sign-csr /srv/authority shop-17.csr shop-17.pem
  tepi provision sign-csr /srv/authority shop-17.csr shop-17.pem --life 30d --also 10.0.0.17

\b
Whoever carries the request vouches for it: see that it comes from the node. OUT has its
certificate, the issuing one and the root; carry it back and use `tepi provision import-cert`.
"""
)
@console.authority
@click.argument("request", type=console.FILE, metavar="CSR")
@click.argument("out", type=console.OUT, metavar="OUT")
@click.option(
    "--life",
    type=console.Duration(),
    default=LIFE,
    show_default="7d",
    help="How long the certificate holds: as often somebody must carry the next.",
)
@click.option(
    "--also",
    "names",
    multiple=True,
    help="Further DNS name or address for the node's certificates; may be given several times.",
)
@console.as_json
def sign_csr(
    directory: Path, request: Path, out: Path, life: float, names: tuple[str, ...], as_json: bool
) -> None:
    """Sign a request that was carried here by hand."""
    with Authority(directory, _CLOCK, life) as authority:
        made = Admission(authority).sign(request.read_bytes(), names)
        bundle = forms.pem_of(made, *reversed(authority.chain))
    REAL_DISK.write(out, bundle)
    node, serial, ends = forms.node_of(made), forms.serial_text(made), forms.valid_until(made)
    fields = {"node": node, "serial": serial, "ends": int(ends), "file": str(out)}
    console.tell(fields, as_json, [f"node {node} until {forms.when(ends)}: {out}"])

# SPDX-License-Identifier: Apache-2.0
"""`tepi provision status`: a node's certificate, or what an authority has given and refuses."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from firmware_bridge.provision import console
from firmware_bridge.provision.authority import Authority
from firmware_bridge.provision.node import Identity, check_time
from firmware_bridge.provision.renewal import due_at
from firmware_bridge.provision.x509_forms import when

_NODES = """SELECT c.node, c.serial, c.card, c.ends, c.how,
    EXISTS (SELECT 1 FROM denied d WHERE (d.kind = 'node' AND d.value = c.node)
      OR (d.kind = 'card' AND d.value = c.card)
      OR (d.kind = 'certificate' AND d.value = c.serial)) AS denied
    FROM certificates c WHERE c.rowid IN (SELECT max(rowid) FROM certificates GROUP BY node)
    ORDER BY c.node"""
_TOKENS = "SELECT node, card, ends FROM tokens WHERE used IS NULL AND ends > ? ORDER BY ends"
_CARDS = "SELECT serial, node FROM cards ORDER BY serial"
_DENIED = "SELECT kind, value, reason, at FROM denied ORDER BY at"


@click.command(
    epilog="""\b
Examples:
  tepi provision status
  tepi provision status --identity /var/lib/tepi/identity --json
  tepi provision status --authority /srv/authority

\b
Exits 1 where the certificate does not hold now.
"""
)
@console.identity
@click.option(
    "--authority", type=console.FOLDER, help="Show the nodes, tokens and cards of this authority."
)
@console.as_json
def status(folder: Path, authority: Path | None, as_json: bool) -> int:
    """Show this node's certificate and what it is for."""
    if authority is not None:
        _authority(authority, as_json)
        return 0
    found, now = Identity(folder).status(), time.time()
    certificate = Identity(folder).certificate()
    due, wrong = due_at(certificate), check_time(certificate, now)
    state = "does not hold" if wrong else "is due for renewal" if now >= due else "holds"
    fields = {**asdict(found), "renew_at": due, "state": state, "reason": wrong}
    lines = [
        f"node {found.node}: the certificate {state}" + (f": {wrong}" if wrong else ""),
        f"  from          {when(found.starts)}",
        f"  until         {when(found.ends)}",
        f"  renewal       {when(due)} at {found.authority or 'no address: carried by hand'}",
        f"  names         {', '.join(found.names)}",
        f"  serial        {found.serial}",
        f"  issuer        {found.issuer}",
        f"  root          {found.root}",
    ]
    if found.pending:
        lines.append("  waiting       a new key waits for its certificate")
    console.tell(fields, as_json, lines)
    return 1 if wrong else 0


def _authority(folder: Path, as_json: bool) -> None:
    with Authority(folder, time.time) as authority:
        ledger, now = authority.ledger, authority.clock()
        nodes, cards = ledger.rows(_NODES), ledger.rows(_CARDS)
        tokens, denied = ledger.rows(_TOKENS, now), ledger.rows(_DENIED)
    if as_json:
        parts = {"nodes": nodes, "tokens": tokens, "cards": cards, "denied": denied}
        click.echo(json.dumps({name: [dict(row) for row in rows] for name, rows in parts.items()}))
        return
    console.table(
        ("node", "card", "until", "by", "state", "serial"),
        [
            (
                row["node"],
                row["card"] or "-",
                when(row["ends"]),
                row["how"],
                "denied" if row["denied"] else "ended" if row["ends"] <= now else "holds",
                row["serial"],
            )
            for row in nodes
        ],
    )
    waiting = [
        ("token", f"node {row['node'] or 'any'}, card {row['card'] or 'none'}", when(row["ends"]))
        for row in tokens
    ]
    listed = [("card", row["serial"], row["node"] or "for the first node") for row in cards]
    refused = [
        ("denied", f"{row['kind']} {row['value']}", row["reason"] or when(row["at"]))
        for row in denied
    ]
    if rows := [*waiting, *listed, *refused]:
        click.echo()
        console.table(("entry", "of", "until, for or why"), rows)

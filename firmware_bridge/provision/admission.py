# SPDX-License-Identifier: Apache-2.0
"""Who gets a certificate: the rules of an authority, each refusal with its own error.

An answer may be lost on its way. So whoever asks again with the same token and the same key, or
renews again to the same key, gets the same certificate: nothing is lost and nothing used twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509

from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.attestation import Attestation, check_attestation
from firmware_bridge.provision.authority import Authority, names_text
from firmware_bridge.provision.errors import (
    BadRequest,
    BadToken,
    CardNotListed,
    Denied,
    ExpiredToken,
    IdentityChanged,
    MissingAttestation,
    MissingToken,
    NoCertificate,
    NodeTaken,
    OutOfTime,
    ReusedToken,
    TokenForAnother,
)
from firmware_bridge.provision.tokens import Token, token_hash
from firmware_bridge.provision.x509_forms import Request, when

KINDS = ("node", "card", "certificate")
_AGAIN_SECONDS = 3600.0  # within which a renewal to the same key is the same renewal


@dataclass(frozen=True)
class Admission:
    """The rules over an authority. `require_card`: no node without a card that vouches for it."""

    authority: Authority
    require_card: bool = False

    def enroll(
        self, data: bytes, secret: str | None, attestation: Attestation | None
    ) -> x509.Certificate:
        """A first certificate (RFC 7030, 4.2.1), for a token, a card, or both.

        Raises BadRequest and the refusals of `errors`; Unavailable."""
        request = forms.read_request(data)
        card = self._card(attestation, request)
        if secret is None and card is None:
            raise MissingToken(
                f"nothing vouches for node {request.node}",
                "give a token (`tepi provision token`), or the port of a card that is on the list",
            )
        if self.require_card and card is None:
            raise MissingAttestation(
                f"a card must vouch for node {request.node}", "name the card's port with --port"
            )
        now = self.authority.clock()
        with self.authority.ledger.change() as db:
            _refuse_denied(db, [("node", request.node), ("card", card)])
            token = None if secret is None else _find_token(db, secret)
            named = False
            if token is not None:
                known = self._redeemed(db, token, request, now)
                if known is not None:
                    return known
                _check_token(token, request.node, card, now)
                named = token["node"] is not None
            if card is not None:
                _check_card(db, card, request.node)
                _claim_card(db, card, request.node)
            if not named:
                _check_free(db, request.node, card)
            how = "token" if token is not None else "card"
            made = self._issue(db, request, card, how, now)
            if token is not None:
                db.execute(
                    "UPDATE tokens SET used = ?, spki = ?, certificate = ? WHERE hash = ?",
                    (now, request.spki, forms.serial_text(made), token["hash"]),
                )
        return made

    def renew(self, data: bytes, current: bytes | None) -> x509.Certificate:
        """A certificate for the one shown in the handshake (RFC 7030, 4.2.2); a new key is welcome,
        another name is not. `current`: DER. Raises as `enroll`."""
        if current is None:
            raise NoCertificate(
                "a renewal needs the certificate that it renews",
                "enroll with a token where there is none",
            )
        request = forms.read_request(data)
        old = x509.load_der_x509_certificate(current)
        now = self.authority.clock()
        with self.authority.ledger.change() as db:
            card = self._check_current(db, old, now)
            node = forms.node_of(old)
            held = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            if request.node != node or not request.names <= set(held):
                raise IdentityChanged(
                    f"node {node} asks for a certificate as {request.node}",
                    "enroll with a token for the new name",
                )
            again = db.execute(
                "SELECT pem FROM certificates WHERE node = ? AND spki = ? AND made > ? "
                "AND serial != ? ORDER BY made DESC",
                (node, request.spki, now - _AGAIN_SECONDS, forms.serial_text(old)),
            ).fetchone()
            if again is not None:
                return x509.load_pem_x509_certificate(again["pem"])
            return self._issue(db, request, card, "renewal", now)

    def sign(self, data: bytes, names: Sequence[str] = ()) -> x509.Certificate:
        """By hand: the person who carries the request vouches for it. Raises BadRequest, Denied,
        Unavailable."""
        request = forms.read_request(data)
        now = self.authority.clock()
        with self.authority.ledger.change() as db:
            _refuse_denied(db, [("node", request.node)])
            if names:
                _name_node(db, request.node, names, now)
            return self._issue(db, request, None, "by hand", now)

    def current(self, certificate: bytes) -> str:
        """The node whose certificate (DER) this is, if it holds here and now. Raises as `renew`."""
        found = x509.load_der_x509_certificate(certificate)
        with self.authority.ledger.change() as db:
            self._check_current(db, found, self.authority.clock())
        return forms.node_of(found) or ""

    def new_token(
        self, node: str | None, card: str | None, seconds: float, names: Sequence[str] = ()
    ) -> Token:
        """For a node's name, a card's serial number (which is listed with it), or both. `names`:
        further DNS names and addresses of the node. Raises BadRequest, Denied, Unavailable."""
        if node is None and card is None:
            raise BadRequest("a token is for a node, a card, or both")
        if names and node is None:
            raise BadRequest("further names need the name of their node")
        token = Token.make(forms.digest(forms.der_of(self.authority.root)))
        now = self.authority.clock()
        with self.authority.ledger.change() as db:
            _refuse_denied(db, [("node", node), ("card", card)])
            if node is not None:
                forms.alternatives(forms.check_node(node), names)
            if names and node is not None:
                _name_node(db, node, names, now)
            if card is not None:
                _list_card(db, card, node, now)
            db.execute(
                "INSERT INTO tokens (hash, node, card, made, ends) VALUES (?, ?, ?, ?, ?)",
                (token_hash(token.secret), node, card, now, now + seconds),
            )
        return token

    def allow(self, cards: Iterable[tuple[str, str | None]]) -> int:
        """Put cards on the list, each for a node or for the first that it vouches for; how many.
        Raises BadRequest, Unavailable."""
        now, count = self.authority.clock(), 0
        with self.authority.ledger.change() as db:
            for serial, node in cards:
                _list_card(db, serial, node and forms.check_node(node), now)
                count += 1
        return count

    def deny(self, kind: str, value: str, reason: str) -> None:
        """No certificate any more, and those given are on the list of denied ones. Raises
        Unavailable."""
        assert kind in KINDS
        with self.authority.ledger.change() as db:
            db.execute(
                "INSERT OR REPLACE INTO denied VALUES (?, ?, ?, ?)",
                (kind, value, reason, self.authority.clock()),
            )

    def lift(self, kind: str, value: str) -> bool:
        """Take a denial back; whether there was one. Raises Unavailable."""
        with self.authority.ledger.change() as db:
            found = db.execute("DELETE FROM denied WHERE kind = ? AND value = ?", (kind, value))
            return found.rowcount > 0

    def _card(self, attestation: Attestation | None, request: Request) -> str | None:
        if attestation is None:
            return None
        self.authority.check_nonce(attestation.nonce)
        now, vendors = self.authority.clock(), self.authority.vendors
        return check_attestation(attestation, request.spki, vendors, now)

    def _redeemed(
        self, db: sqlite3.Connection, token: sqlite3.Row, request: Request, now: float
    ) -> x509.Certificate | None:
        """What a used token gave, for the key that it gave it to, while that holds. Raises
        ReusedToken."""
        if token["used"] is None:
            return None
        row = db.execute(
            "SELECT * FROM certificates WHERE serial = ?", (token["certificate"],)
        ).fetchone()
        if token["spki"] != request.spki or row["node"] != request.node or row["ends"] <= now:
            raise ReusedToken(
                f"this token was used at {when(token['used'])} by node {row['node']}",
                "make a new one with `tepi provision token`; if that was not you, deny the node",
            )
        _refuse_denied(db, [("certificate", row["serial"]), ("card", row["card"])])
        return x509.load_pem_x509_certificate(row["pem"])

    def _check_current(
        self, db: sqlite3.Connection, certificate: x509.Certificate, now: float
    ) -> str | None:
        """Its card, if it has one."""
        serial = forms.serial_text(certificate)
        row = db.execute("SELECT * FROM certificates WHERE serial = ?", (serial,)).fetchone()
        if row is None or row["pem"] != forms.pem_of(certificate):
            raise NoCertificate(
                f"certificate {serial} was not given by this authority's enrolment",
                "enroll with a token",
            )
        _refuse_denied(db, [("node", row["node"]), ("card", row["card"]), ("certificate", serial)])
        if not row["starts"] <= now < row["ends"]:
            raise OutOfTime(
                f"the certificate of node {row['node']} holds from {when(row['starts'])} to "
                f"{when(row['ends'])}, and the authority's clock says {when(now)}",
                "enroll with a new token, or correct the clock that is wrong",
            )
        card: str | None = row["card"]
        return card

    def _issue(
        self, db: sqlite3.Connection, request: Request, card: str | None, how: str, now: float
    ) -> x509.Certificate:
        row = db.execute("SELECT names FROM nodes WHERE node = ?", (request.node,)).fetchone()
        names: list[str] = json.loads(row["names"]) if row else []
        made = self.authority.certificate(request, names, now)
        db.execute(
            "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                forms.serial_text(made),
                request.node,
                request.spki,
                card,
                forms.valid_from(made),
                forms.valid_until(made),
                now,
                how,
                forms.pem_of(made),
            ),
        )
        db.execute(
            "INSERT INTO nodes VALUES (?, '[]', ?, ?) ON CONFLICT (node) DO UPDATE "
            "SET card = coalesce(excluded.card, card)",
            (request.node, card, now),
        )
        return made


def _refuse_denied(db: sqlite3.Connection, subjects: Iterable[tuple[str, str | None]]) -> None:
    for kind, value in subjects:
        row = db.execute(
            "SELECT reason, at FROM denied WHERE kind = ? AND value = ?", (kind, value)
        ).fetchone()
        if row is not None:
            reason = f": {row['reason']}" if row["reason"] else ""
            raise Denied(
                f"{kind} {value} was denied at {when(row['at'])}{reason}",
                "if that is over, take it back with `tepi provision deny --lift`",
            )


def _find_token(db: sqlite3.Connection, secret: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM tokens WHERE hash = ?", (token_hash(secret),)
    ).fetchone()
    if row is None:
        raise BadToken("this authority made no such token", "make one with `tepi provision token`")
    return row


def _check_token(token: sqlite3.Row, node: str, card: str | None, now: float) -> None:
    if now >= token["ends"]:
        raise ExpiredToken(
            f"this token ended at {when(token['ends'])}; the authority's clock says {when(now)}",
            "make a new one with `tepi provision token`",
        )
    if token["node"] not in (None, node):
        raise TokenForAnother(
            f"this token is for node {token['node']}, not for {node}", "use that node's name"
        )
    if token["card"] is not None and card is None:
        raise MissingAttestation(
            f"this token is for the node that holds card {token['card']}",
            "name the card's port with --port",
        )
    if token["card"] not in (None, card):
        raise TokenForAnother(
            f"this token is for card {token['card']}, not for {card}", "use the token of this card"
        )


def _check_card(db: sqlite3.Connection, card: str, node: str) -> None:
    row = db.execute("SELECT node FROM cards WHERE serial = ?", (card,)).fetchone()
    if row is None:
        raise CardNotListed(
            f"card {card} is genuine, and not on the list of cards",
            f"list it with `tepi provision token --card {card}` or --allow",
        )
    if row["node"] not in (None, node):
        raise NodeTaken(
            f"card {card} belongs to node {row['node']}, not to {node}",
            f"give it to the other with `tepi provision token --card {card} --node {node}`",
        )


def _check_free(db: sqlite3.Connection, node: str, card: str | None) -> None:
    """A card, or its token, names no node; so it gets a name that is new, or that it had."""
    row = db.execute("SELECT card FROM nodes WHERE node = ?", (node,)).fetchone()
    taken = row is not None and row["card"] != card
    if taken and db.execute("SELECT 1 FROM certificates WHERE node = ?", (node,)).fetchone():
        raise NodeTaken(
            f"there is a node {node} with another card",
            f"choose another name, or make a token with --node {node}",
        )


def _claim_card(db: sqlite3.Connection, card: str, node: str) -> None:
    """From now on the card vouches for this node only."""
    db.execute("UPDATE cards SET node = ? WHERE serial = ? AND node IS NULL", (node, card))


def _list_card(db: sqlite3.Connection, serial: str, node: str | None, now: float) -> None:
    if not serial or not serial.isprintable() or len(serial) > 64:
        raise BadRequest(f"{serial[:80]!r} cannot be a card's serial number")
    db.execute(
        "INSERT INTO cards VALUES (?, ?, ?) ON CONFLICT (serial) DO UPDATE "
        "SET node = coalesce(excluded.node, node)",
        (serial, node, now),
    )


def _name_node(db: sqlite3.Connection, node: str, names: Sequence[str], now: float) -> None:
    forms.alternatives(forms.check_node(node), names)
    db.execute(
        "INSERT INTO nodes VALUES (?, ?, NULL, ?) ON CONFLICT (node) DO UPDATE "
        "SET names = excluded.names",
        (node, names_text(names), now),
    )

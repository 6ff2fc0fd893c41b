# SPDX-License-Identifier: Apache-2.0
"""Why an identity was not given. Each refusal has a `word`, which travels in the header
`Tepi-Refusal`, so that the node raises what the authority raised, and an HTTP `status`."""

from __future__ import annotations

from typing import ClassVar

from firmware_bridge.errors import BridgeError


class ProvisionError(BridgeError):
    """The base of them all."""

    word: ClassVar[str] = "failed"
    status: ClassVar[int] = 500


class BadAuthority(ProvisionError):
    """The folder is no authority, is one already, or its files cannot be used."""


class BadRequest(ProvisionError):
    """A certificate request that is none, is too large, or asks for what it must not."""

    word = "bad-request"
    status = 400


class BadToken(ProvisionError):
    """No such token was ever made here."""

    word = "bad-token"
    status = 401


class MissingToken(ProvisionError):
    """Neither a token nor a card vouches for this node."""

    word = "missing-token"
    status = 401


class ExpiredToken(ProvisionError):
    """The token's time is over."""

    word = "expired-token"
    status = 403


class ReusedToken(ProvisionError):
    """The token was used, for another key than this."""

    word = "reused-token"
    status = 403


class TokenForAnother(ProvisionError):
    """The token is for another node or another card."""

    word = "token-for-another"
    status = 403


class LockedOut(ProvisionError):
    """Too many wrong tokens from this address."""

    word = "locked-out"
    status = 429


class MissingAttestation(ProvisionError):
    """A card must vouch for this node, and none did."""

    word = "missing-attestation"
    status = 403


class ForgedAttestation(ProvisionError):
    """What a card is said to have signed it did not sign, or no card of the vendor's did."""

    word = "forged-attestation"
    status = 403


class StaleNonce(ProvisionError):
    """The nonce of an attestation is too old, or not from this authority."""

    word = "stale-nonce"
    status = 403


class CardNotListed(ProvisionError):
    """The card is genuine, but its serial number is not on the allow-list."""

    word = "card-not-listed"
    status = 403


class NodeTaken(ProvisionError):
    """The node's name, or the card, belongs to another."""

    word = "node-taken"
    status = 403


class Denied(ProvisionError):
    """The node, the card or the certificate is on the denylist."""

    word = "denied"
    status = 403


class IdentityChanged(ProvisionError):
    """A renewal that asks for another name than the certificate has (RFC 7030, 4.2.2)."""

    word = "identity-changed"
    status = 403


class NoCertificate(ProvisionError):
    """A renewal without the certificate that it renews, or with one that is unknown here."""

    word = "no-certificate"
    status = 401


class OutOfTime(ProvisionError):
    """A certificate whose time has not come or is over, by the clock of who checks it."""

    word = "out-of-time"
    status = 403


class Unavailable(ProvisionError):
    """The authority cannot answer now."""

    word = "unavailable"
    status = 503


class ClockSkew(ProvisionError):
    """This machine's clock and the authority's differ too much for certificates to hold."""


class Unreachable(ProvisionError):
    """No answer from the authority."""


class Untrusted(ProvisionError):
    """Who answers is not the authority that was named."""


class BadAnswer(ProvisionError):
    """An answer of the authority that is not what RFC 7030 says."""


class NoIdentity(ProvisionError):
    """This node has no certificate."""


class WrongCertificate(ProvisionError):
    """A certificate that does not belong to this node's key, or to its authority."""


class IdentityBusy(ProvisionError):
    """Another process changes the identity."""


class CannotListen(ProvisionError):
    """The address cannot be used."""


class NoCard(ProvisionError):
    """The card could not vouch for the node."""


def _words(base: type[ProvisionError]) -> dict[str, type[ProvisionError]]:
    found = {base.word: base} if "word" in vars(base) else {}
    for kind in base.__subclasses__():
        found |= _words(kind)
    return found


REFUSALS = _words(ProvisionError)
"""The class of each word."""

# SPDX-License-Identifier: Apache-2.0
"""The card at a port as one that vouches."""

from __future__ import annotations

from firmware_bridge.client import Controller
from firmware_bridge.errors import BridgeError
from firmware_bridge.provision.errors import NoCard
from firmware_bridge.smp.errors import SmpError


class CardAtPort:
    """Opens the port for the one question, so that others may use it before and after."""

    def __init__(self, port: str) -> None:
        self._port = port

    def attest(self, nonce: bytes, spki_sha256: bytes) -> tuple[bytes, bytes]:
        """The card's signature and its certificate. Raises BridgeError: PortBusy, CardSilent, …;
        NoCard where it refuses."""
        try:
            with Controller.open(self._port) as controller:
                found = controller.attest(nonce, spki_sha256)
        except SmpError as error:
            raise NoCard(
                f"the card at {self._port} does not vouch for this node: {error}",
                "a card without a key needs a token for the node's name instead",
            ) from error
        except BridgeError as error:
            error.remedy = error.remedy or "see `tepi card list` for the ports of cards"
            raise
        return found.sig, found.cert

# SPDX-License-Identifier: Apache-2.0
"""What an update needs of the machine around the card, which this room knows nothing about: the
versions that an image must fit, and the server that uses the card. `tepi card flash` is made with
a `Host`; without one it stands alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from firmware_bridge.errors import BridgeError


@dataclass(frozen=True, slots=True)
class HostVersions:
    """What an image's compatibility TLV is compared with; None where it is not known."""

    driver: str | int | None = None
    abi: str | int | None = None  # of programs


class Server(Protocol):
    """The server that uses the card."""

    address: str
    """Empty where there is none."""

    def drain(self) -> None:
        """No request is on the card when this returns. Raises BridgeError."""

    def take_back(self) -> None:
        """The card is in use again, or the server is about to. Raises BridgeError."""

    def diagnose(self) -> str:
        """What is wrong with the card by the server's own diagnosis, for people; empty where it is
        in order. Called after `take_back`. Raises BridgeError where the server does not say."""


class NoServer:
    """Nothing uses the card, or nobody said what does."""

    address = ""

    def drain(self) -> None:
        """There is nothing to drain."""

    def take_back(self) -> None:
        """There is nobody to have it back."""

    def diagnose(self) -> str:
        """The controller's own sensors are all there is to go by."""
        return ""


class Host(Protocol):
    """The machine that the cards are in."""

    def versions(self) -> HostVersions:
        """Of the driver and of programs, as this installation has them."""

    def server(self, address: str) -> Server:
        """The server at an address of --server, which may be empty."""


class LoneHost:
    """A machine of which nothing is known: versions come from options alone."""

    def versions(self) -> HostVersions:
        """Not known."""
        return HostVersions()

    def server(self, address: str) -> Server:
        """None. Raises BridgeError where one was asked for."""
        if address:
            raise BridgeError(f"nothing here can talk to the server {address}")
        return NoServer()

# SPDX-License-Identifier: Apache-2.0
"""`tepi card flash` where a server uses the card: it drains the card before, has it back after, and
diagnoses it."""

from __future__ import annotations

import importlib.metadata
from typing import Final, TypeVar

from google.protobuf.message import Message

from edge_server.client import CARD_CONTROL, CallError, Client
from firmware_bridge.errors import BridgeError
from firmware_bridge.update.command import flash_command
from firmware_bridge.update.hooks import HostVersions, NoServer, Server
from wire import tepi_card_pb2 as pb

M = TypeVar("M", bound=Message)
_SECONDS: Final = 120.0  # a resume loads every model
_LEVEL: Final = 2  # of the diagnosis: shadow requests of every model too


class ServerRefuses(BridgeError):
    """The server did not do what an update needs; the message has its words."""


class ServingCard:
    """See firmware_bridge.update.hooks.Server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def drain(self) -> None:
        """Returns when no request is on the card; its controller is left alone from then on."""
        request = pb.CardDrainRequest(reason="its firmware is being changed")
        self._call("Drain", request, pb.CardStatus)

    def take_back(self) -> None:
        """The models are on the card again."""
        self._call("Resume", pb.CardResumeRequest(), pb.CardStatus)

    def diagnose(self) -> str:
        """What did not pass."""
        request = pb.CardDiagnoseRequest(level=_LEVEL)
        found = self._call("Diagnose", request, pb.CardDiagnosis)
        return "; ".join(
            f"{check.name}: {check.detail}" for check in found.checks if not check.passed
        )

    def _call(self, method: str, request: Message, answer: type[M]) -> M:
        try:
            with Client(self.address, _SECONDS) as client:
                return client.call(CARD_CONTROL, method, request, answer)
        except CallError as error:
            remedy = ""
            if "PERMISSION_DENIED" in str(error):
                remedy = "start the server with --card-control, or flash without --server"
            raise ServerRefuses(f"{self.address} {method}: {error}", remedy) from None


class ThisHost:
    """See firmware_bridge.update.hooks.Host: this installation, and its servers."""

    def versions(self) -> HostVersions:
        """The driver is part of this package; programs are those that its compiler makes."""
        from device.binding.abi import ABI_VERSION

        return HostVersions(importlib.metadata.version("tepi"), ABI_VERSION)

    def server(self, address: str) -> Server:
        """The one at this address; none where it is empty."""
        return ServingCard(address) if address else NoServer()


flash = flash_command(ThisHost())

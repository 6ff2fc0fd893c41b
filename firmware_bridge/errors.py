# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between a host and a card's controller. Messages name the card or the port;
`remedy` says what to do about it; `exit_code` is what the command ends with (docs/firmware.md)."""

from typing import ClassVar


class BridgeError(Exception):
    """The base of them all."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class NoPort(BridgeError):
    """There is no such port, or it cannot be opened."""


class PortBusy(BridgeError):
    """Another process talks to the card.

    `holder`: its process id, or None where the system does not tell."""

    exit_code = 16

    def __init__(self, message: str, remedy: str = "", holder: int | None = None) -> None:
        super().__init__(message, remedy)
        self.holder = holder


class CardSilent(BridgeError):
    """The port is open, and nothing at its other end answers."""

    exit_code = 17


class CardVanished(BridgeError):
    """The card was there, and is gone: the port closed, or answers ceased in mid-upload."""

    exit_code = 18


class BadReply(BridgeError):
    """An answer that is intact on the wire and makes no sense."""


class Garbled(BridgeError):
    """What arrives at the other end is not what is sent, time and again."""

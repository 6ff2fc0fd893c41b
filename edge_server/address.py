# SPDX-License-Identifier: Apache-2.0
"""Addresses to listen on: HOST:PORT, [IPv6]:PORT or unix:PATH."""

from __future__ import annotations

import contextlib
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

_TCP = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^:\[\]/\s]+):(?P<port>\d{1,5})")
_UNIX_LIMIT = 107  # bytes in sockaddr_un.sun_path, less the closing zero


class AddressError(Exception):
    """An address that cannot be used; the message names the option and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """`path` is set for UNIX sockets alone; `option` is where the operator gave it."""

    option: str
    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    def with_port(self, port: int) -> str:
        """The same host with the port that was taken."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    def refused(self, reason: str) -> str:
        """The message for an address that cannot be listened on."""
        return (
            f"cannot listen on {self.text}: {reason}; "
            f"stop what uses it or give another {self.option} (port 0 takes a free one)"
        )

    def unlink(self) -> None:
        """Remove the socket file."""
        with contextlib.suppress(FileNotFoundError):
            Path(self.path).unlink()


def parse_address(option: str, text: str) -> Address:
    """Raises AddressError for what is neither form."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path or len(path.encode()) > _UNIX_LIMIT:
            raise AddressError(f"{option} {text}: a socket's path has 1 to {_UNIX_LIMIT} bytes")
        return Address(option, f"unix:{path}", path=path)
    match = _TCP.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise AddressError(f"{option} '{text}' is neither HOST:PORT nor unix:PATH")
    return Address(option, text, match["host"].strip("[]"), int(match["port"]))


def claim_unix(address: Address) -> None:
    """Make way for a socket: remove one that nobody listens on, refuse one that is in use."""
    path = Path(address.path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise AddressError(address.refused(f"folder '{path.parent}' is missing")) from None
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(address.refused("a file that is no socket is there"))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            path.unlink()
            return
    raise AddressError(address.refused("in use"))

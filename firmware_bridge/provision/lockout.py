# SPDX-License-Identifier: Apache-2.0
"""Whoever offers many wrong tokens is not heard for a while. No I/O; the clock is passed in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from firmware_bridge.provision.errors import LockedOut

TRIES = 10
SECONDS = 60.0
_MOST = 10_000  # addresses that are remembered


class Lockout:
    """TRIES failures within SECONDS lock an address out until SECONDS after the first of them.

    An address is an IPv4 address or the /64 of an IPv6 one: who has one of those has them all."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, address: str, now: float) -> None:
        """Raises LockedOut."""
        since, count = self._failures.get(_network(address), (now, 0))
        left = since + SECONDS - now
        if count >= TRIES and left > 0:
            raise LockedOut(
                f"{count} wrong tokens from {address}", f"try again in {left:.0f} s, not before"
            )

    def failed(self, address: str, now: float) -> None:
        """Count a wrong token."""
        key = _network(address)
        since, count = self._failures.pop(key, (now, 0))
        self._failures[key] = (since, count + 1) if now - since < SECONDS else (now, 1)
        while len(self._failures) > _MOST:
            self._failures.popitem(last=False)


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)

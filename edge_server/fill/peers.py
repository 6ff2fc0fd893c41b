# SPDX-License-Identifier: Apache-2.0
"""Other nodes of the same LAN. They are not trusted: all they give is checked, and one that gives
wrong bytes once is never asked again by this process."""

from __future__ import annotations

import random
from collections.abc import Iterable

from edge_server.fill.places import Places
from edge_server.fill.source import Peer
from edge_server.fill.time import REAL_TIME, Time


class Peers(Places[Peer]):
    """The peers of a node, asked by chance among equals, so that load spreads. Safe for
    threads."""

    def __init__(
        self,
        peers: Iterable[Peer] = (),
        *,
        time: Time = REAL_TIME,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(peers, time=time, rng=rng)
        self._liars: dict[Peer, str] = {}

    def lied(self, peer: Peer, reason: str) -> None:
        """It gave bytes that are not what they should be: it is left out for good."""
        with self._lock:
            self._liars[peer] = reason

    def liars(self) -> dict[str, str]:
        """The name of each peer that is left out, and why."""
        with self._lock:
            return {peer.name: reason for peer, reason in self._liars.items()}

    def _order(self) -> list[Peer]:
        honest = [peer for peer in self._circuits if peer not in self._liars]
        self._rng.shuffle(honest)
        return sorted(honest, key=lambda peer: peer.priority)

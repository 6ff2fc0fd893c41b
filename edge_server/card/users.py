# SPDX-License-Identifier: Apache-2.0
"""What the supervisor of a card asks of those who run on it."""

from __future__ import annotations

from typing import Protocol

from edge_server.served import OffCard


class CardUsers(Protocol):
    """Who runs on the card: the models."""

    def leave(self, why: OffCard) -> None:
        """From now on requests go without the card; what was loaded onto it is let go."""

    async def load(self) -> None:
        """Bring everything onto the card, for nobody's use yet."""

    async def check(self) -> str:
        """Run shadow requests; what is wrong with the answers, or empty. Raises CardError."""

    def enter(self) -> None:
        """From now on requests run on the card."""

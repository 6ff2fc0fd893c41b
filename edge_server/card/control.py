# SPDX-License-Identifier: Apache-2.0
"""tepi.v1.CardControl: see, take away and bring back the card of a running server."""

from __future__ import annotations

from device.errors import CardError
from edge_server.card.link import CardLink
from edge_server.card.states import CardState
from edge_server.repository import Repository
from edge_server.status import unavailable
from wire import tepi_card_pb2 as pb

_STATES = {state: pb.CardState.Value(f"CARD_STATE_{state.name}") for state in CardState}


class CardControl:
    """The methods' implementations; see edge_server.rpc for what calls them."""

    def __init__(self, link: CardLink, repository: Repository) -> None:
        self._link = link
        self._repository = repository

    async def Status(self, _request: pb.CardStatusRequest) -> pb.CardStatus:
        """State, faults and where each model runs."""
        return self._status()

    async def Detach(self, _request: pb.CardDetachRequest) -> pb.CardStatus:
        """Surprise removal; without a card UNAVAILABLE."""
        self._require_card()
        await self._link.detach()
        return self._status()

    async def Attach(self, _request: pb.CardAttachRequest) -> pb.CardStatus:
        """Answers when the models are on the card again; UNAVAILABLE where it stays away."""
        self._require_card()
        try:
            await self._link.attach()
        except CardError as error:
            raise unavailable(f"the card cannot be attached: {error} {error.remedy}") from None
        return self._status()

    async def Reset(self, _request: pb.CardResetRequest) -> pb.CardStatus:
        """Answers when the card has passed its probation; UNAVAILABLE where it has not."""
        self._require_card()
        try:
            await self._link.reset()
        except CardError as error:
            raise unavailable(f"the card is not back: {error} {error.remedy}") from None
        return self._status()

    def _require_card(self) -> None:
        if self._link.state is CardState.NONE:
            raise unavailable(self._link.absent.detail)

    def _status(self) -> pb.CardStatus:
        link = self._link
        return pb.CardStatus(
            state=_STATES[link.state],
            bus=link.bus,
            reason="" if link.state is CardState.READY else link.absent.detail,
            faults=link.faults,
            losses=link.losses,
            returns=link.returns,
            resets=link.resets,
            taken_away=link.taken_away,
            models=[
                pb.CardModel(
                    name=served.name,
                    version=served.version,
                    policy=served.policy,
                    device=served.route.slot.engine.device if served.route.slot else "",
                    reason=served.route.detail,
                    state=served.state,
                )
                for served in self._repository.all_served()
            ],
        )

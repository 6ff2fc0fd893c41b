# SPDX-License-Identifier: Apache-2.0
"""tepi.v1.CardControl: look at a running server's card, test it, take it away and bring it back."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from device.errors import CardError
from edge_server.card.controller import OPERATOR, ControllerView
from edge_server.card.diagnosis import diagnose
from edge_server.card.link import CardLink
from edge_server.card.states import CardState
from edge_server.engines.card import CardLike
from edge_server.repository import Repository
from edge_server.served import ServedVersion
from edge_server.status import forbidden, invalid, unavailable
from wire import tepi_card_pb2 as pb

_LOOK = 0.01  # seconds between two looks at whether runs have ended
_STATES = {state: pb.CardState.Value(f"CARD_STATE_{state.name}") for state in CardState}


class CardControl:
    """The methods' implementations; see edge_server.rpc for what calls them."""

    def __init__(
        self,
        link: CardLink,
        repository: Repository,
        may_change: bool,
        controller: ControllerView | None = None,
    ) -> None:
        self._link = link
        self._controller = controller
        self._repository = repository
        self._may_change = may_change

    async def Status(self, _request: pb.CardStatusRequest) -> pb.CardStatus:
        """State, faults and where each model runs."""
        return await self._status()

    async def Log(self, _request: pb.CardLogRequest) -> pb.CardLog:
        """UNAVAILABLE where the card does not answer."""
        from device.binding.faults import FAULTS

        card = self._link.handle
        try:
            if card is None:
                raise unavailable(self._link.absent.detail)
            now = int((await asyncio.to_thread(lambda: card.info))["clock_ns"])
            entries = await asyncio.to_thread(card.faults)
        except CardError as error:
            raise unavailable(f"the card's log cannot be read: {error}") from None
        log = pb.CardLog()
        for entry in entries:
            fault = FAULTS.get(entry.code)
            log.entries.add(
                sequence=entry.sequence,
                ago_ns=max(0, now - entry.time_ns),
                code=entry.code,
                fault=entry.fault,
                severity=fault.severity if fault else "",
                info=entry.info,
                generation=entry.generation,
                meaning=fault.meaning if fault else "",
                remedy=fault.remedy if fault else "",
            )
        return log

    async def Diagnose(self, request: pb.CardDiagnoseRequest) -> pb.CardDiagnosis:
        """Every check with what it found."""
        if request.level > 3:
            raise invalid(f"level {request.level}: expected 1 to 3")
        self._require_card(change=request.level == 3)
        checks = await diagnose(self._link, self._repository.all_served(), request.level or 1)
        return pb.CardDiagnosis(
            checks=[
                pb.CardCheck(name=c.name, passed=c.passed, detail=c.detail, remedy=c.remedy)
                for c in checks
            ]
        )

    async def Detach(self, _request: pb.CardDetachRequest) -> pb.CardStatus:
        """Surprise removal; without a card UNAVAILABLE."""
        self._require_card(change=True)
        await self._link.detach()
        return await self._status()

    async def Attach(self, _request: pb.CardAttachRequest) -> pb.CardStatus:
        """Answers when the models are on the card again; UNAVAILABLE where it stays away."""
        self._require_card(change=True)
        try:
            await self._link.attach()
        except CardError as error:
            raise unavailable(f"the card cannot be attached: {error} {error.remedy}") from None
        return await self._status()

    async def Reset(self, _request: pb.CardResetRequest) -> pb.CardStatus:
        """Answers when the card has passed its probation; UNAVAILABLE where it has not."""
        self._require_card(change=True)
        try:
            await self._link.reset()
        except CardError as error:
            raise unavailable(f"the card is not back: {error} {error.remedy}") from None
        return await self._status()

    async def Drain(self, request: pb.CardDrainRequest) -> pb.CardStatus:
        """New requests go without the card; answers when those under way on it have ended."""
        self._require_card(change=True)
        self._link.withhold(OPERATOR, request.reason or "an operator drained it")
        while any(  # noqa: ASYNC110 - the end of a run has no event of its own
            served.still_on_card for served in self._repository.all_served()
        ):
            await asyncio.sleep(_LOOK)
        return await self._status()

    async def Resume(self, _request: pb.CardResumeRequest) -> pb.CardStatus:
        """Answers when the models are on the card again; UNAVAILABLE where it stays away."""
        self._require_card(change=True)
        try:
            await self._link.relieve(OPERATOR)
        except CardError as error:
            raise unavailable(f"the card is not back: {error} {error.remedy}") from None
        return await self._status()

    async def Inject(self, request: pb.CardInjectRequest) -> pb.CardStatus:
        """INVALID_ARGUMENT for a plan that makes no sense, or a card that is no software card."""
        from device.binding.planned import read_plan

        self._require_card(change=True)
        card = self._link.handle
        if card is None:
            raise unavailable(self._link.absent.detail)
        try:
            plan = read_plan(request.plan)
            await asyncio.to_thread(card.plan_faults, plan)
        except ValueError as error:
            raise invalid(str(error)) from None
        return await self._status()

    def _require_card(self, change: bool) -> None:
        if change and not self._may_change:
            raise forbidden("the server was started without --card-control")
        if self._link.state is CardState.NONE:
            raise unavailable(self._link.absent.detail)

    async def _status(self) -> pb.CardStatus:
        link, card = self._link, self._link.handle
        status = pb.CardStatus(
            state=_STATES[link.state],
            bus=link.bus,
            reason="" if link.state is CardState.READY else link.absent.detail,
            faults=link.faults,
            losses=link.losses,
            returns=link.returns,
            resets=link.resets,
            taken_away=link.taken_away,
            models=[_model(served) for served in self._repository.all_served()],
            clock_ns=time.monotonic_ns(),
        )
        if self._controller is not None:
            status.controller.CopyFrom(_controller(self._controller))
        registers: dict[str, int | str] = {}
        if card is not None:
            with suppress(CardError):
                registers = await asyncio.to_thread(_read, card)
        status.isa = str(registers.get("isa", ""))
        for name, value in registers.items():
            if isinstance(value, int):
                status.registers[name] = value & ((1 << 63) - 1)
        return status


def _read(card: CardLike) -> dict[str, int | str]:
    """Its registers, and the busy time of all workers together."""
    return {**card.info, "busy_ns": sum(card.busy_ns)}


def _controller(view: ControllerView) -> pb.CardController:
    found = pb.CardController(port=view.port, error=view.error)
    if view.reading is not None:
        found.serial, found.firmware = view.reading.serial, view.reading.firmware
        for name, value in view.reading.sensors.items():
            found.readings[name] = value
    for fault in view.faults:
        found.faults.add(
            sequence=fault.number,
            ago_ns=max(0, time.time_ns() - fault.t * 1_000_000_000),
            fault=fault.event,
            meaning=fault.info,
        )
    return found


def _model(served: ServedVersion) -> pb.CardModel:
    counters, route = served.counters, served.route
    counters.settle()
    return pb.CardModel(
        name=served.name,
        version=served.version,
        policy=served.policy,
        device=route.slot.engine.device if route.slot else "",
        reason=route.detail,
        state=served.state,
        requests=counters.success.count,
        request_ns=counters.success.ns,
        failures=sum(counters.failures.values()),
        fallbacks=sum(counters.fallbacks.values()),
        pending=counters.pending,
        shadow_checks=counters.shadow_checks,
        shadow_mismatches=counters.shadow_mismatches,
    )

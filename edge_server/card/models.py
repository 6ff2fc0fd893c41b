# SPDX-License-Identifier: Apache-2.0
"""The models as users of the card: they leave it together, and come back once all are right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from edge_server.card.link import CardLink
from edge_server.engines.card import NotCompilable
from edge_server.loader import Loader, Report
from edge_server.model_config import CardPolicy
from edge_server.served import OffCard, ServedVersion


class ModelsOnCard:
    """See edge_server.card.users.CardUsers."""

    def __init__(
        self,
        served: Callable[[], list[ServedVersion]],
        announce: Callable[[str], None],
        loader: Loader,
        link: CardLink,
    ) -> None:
        self._all = served
        self._announce = announce
        self._loader = loader
        self._link = link

    def _served(self) -> list[ServedVersion]:
        return [served for served in self._all() if served.policy is not CardPolicy.FORBID]

    def leave(self, why: OffCard) -> None:
        """See CardUsers.leave. A model that the card could not run keeps that reason."""
        for served in self._served():
            if served.on_card or served.candidate is not None or served.waits_for_card:
                served.leave_card(why)
                self._announce(served.name)

    async def load(self) -> None:
        """See CardUsers.load. One that does not load goes without the card; the others go on."""
        for served in self._served():
            if not served.wants_card:
                continue
            report = Report()
            card = self._link.card
            load = partial(self._loader.load_card, served.path, served.policy, card, report)
            slot = await self._link.call(load)
            report.tell(served.name)
            for fault in report.faults:
                self._link.report(fault)
            served.offer(slot)

    async def check(self) -> str:
        """See CardUsers.check."""
        for served in self._served():
            slot = served.candidate
            if slot is None:
                continue
            slot.enter()
            try:
                wrong = await self._link.call(partial(served.probes.check, slot.engine))
            except NotCompilable as error:
                served.offer(OffCard("not_compilable", str(error)))
            else:
                if wrong:
                    return f"{served.name}/{served.version}: {wrong}"
            finally:
                slot.leave()
        return ""

    def enter(self) -> None:
        """See CardUsers.enter."""
        for served in self._served():
            served.enter_card()
            self._announce(served.name)

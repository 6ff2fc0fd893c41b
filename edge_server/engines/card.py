# SPDX-License-Identifier: Apache-2.0
"""The accelerator card as an engine: one device.session.Session on a card that others share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from device.errors import InputError, ModelError
from edge_server.engines.engine import Array, FeedError, TensorInfo


class SessionLike(Protocol):
    """What is used of device.session.Session."""

    @property
    def inputs(self) -> Sequence[Any]:
        """Rows with .name, .type ("tensor(float)") and .shape."""

    @property
    def outputs(self) -> Sequence[Any]:
        """As `inputs`."""

    @property
    def placement(self) -> Sequence[Any]:
        """Rows with .node, .op, .where ("card" or "onnxruntime") and .reason."""

    def run(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, Array],
        deadline_s: float | None = None,
    ) -> list[Array]:
        """Outputs in the order of their names. Raises InputError and CardError."""

    def close(self) -> None:
        """Unload the program from the card."""


class CardLike(Protocol):
    """What is used of device.binding.Card."""

    @property
    def alive(self) -> bool:
        """False from the moment that the card is off the bus."""

    @property
    def in_process(self) -> bool:
        """Whether it is a software card of this process."""

    @property
    def info(self) -> Mapping[str, int | str]:
        """What the card says of itself. Raises CardGone where it does not answer."""

    @property
    def busy_ns(self) -> Sequence[int]:
        """How long each compute worker has computed."""

    def faults(self) -> Sequence[Any]:
        """The fault log: rows as device.binding.card.FaultEntry."""

    def ping(self) -> None:
        """An empty command and back. Raises CardError."""

    @property
    def heartbeat(self) -> int:
        """Grows while the card's firmware runs. Raises CardGone where it does not answer."""

    def plan_faults(self, plan: Sequence[Any]) -> None:
        """Let a software card suffer faults (device.binding.planned). Raises ValueError."""

    def reset(self) -> None:
        """Reset the card; what was loaded is gone. Raises CardError."""

    def attach(self) -> None:
        """Bring a card that left the bus back; raises CardError where it is not there."""

    def detach(self) -> None:
        """Surprise removal of the software card."""

    def close(self) -> None:
        """Let go of the card."""


OpenSession = Callable[[Path, Any, int], SessionLike]


class NotCompilable(Exception):
    """The card cannot run the model, or not on these shapes; the message gives the reason."""


class CardEngine:
    """A model on the card; parts that the card cannot run are onnxruntime's, inside the session."""

    def __init__(self, session: SessionLike, inline: bool) -> None:
        """`inline`: the card computes in this process; see Engine.inline."""
        self.inline = inline
        places = {row.where for row in session.placement}
        if "card" not in places:
            rows = list(session.placement)
            session.close()
            why = f": {rows[0].op} '{rows[0].node}': {rows[0].reason}" if rows else ""
            raise NotCompilable(f"no node runs on the card{why}")
        self.device = "card" if places == {"card"} else "card+onnxruntime"
        self.inputs = tuple(TensorInfo.of(i.name, i.type, i.shape) for i in session.inputs)
        self.outputs = tuple(TensorInfo.of(o.name, o.type, o.shape) for o in session.outputs)
        self._session = session

    def run(
        self, names: Sequence[str], feeds: Mapping[str, Array], deadline_s: float | None = None
    ) -> list[Array]:
        """See Engine.run; raises NotCompilable too."""
        try:
            return self._session.run(names, feeds, deadline_s)
        except InputError as error:
            raise FeedError(str(error)) from None
        except ModelError as error:  # shapes that are new are compiled on their first run
            raise NotCompilable(str(error)) from None

    def close(self) -> None:
        """See Engine.close."""
        self._session.close()

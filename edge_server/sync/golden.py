# SPDX-License-Identifier: Apache-2.0
"""Golden vectors against a model that was loaded, on every engine that may answer for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from device.errors import CardError
from edge_server import log
from edge_server.engines.card import NotCompilable
from edge_server.engines.engine import (
    Array,
    Engine,
    EngineError,
    FeedError,
    ModelLoadError,
)
from edge_server.served import Loaded, Slot
from edge_server.sync.deployed import Deployment
from registry.errors import RegistryError
from registry.package.golden import Golden, check_golden, read_golden
from registry.package.modelpack import Role

_DEADLINE_S: Final = 30.0
_SHOWN: Final = 3  # complaints in a message


class CardTrouble(RegistryError):
    """The card failed while it was to answer golden vectors: that says nothing of the package."""


class GoldenCheck:
    """A release's `accept`: called for each version that was loaded, on a worker thread."""

    def __init__(self, deployment: Deployment) -> None:
        """Raises BadGolden, OSError."""
        self._name = deployment.package.model.name
        self.trouble: CardTrouble | None = None  # why a refusal may pass
        self._golden: list[tuple[str, Golden]] = []
        for file in deployment.package.files:
            if file.role == Role.GOLDEN:
                golden = read_golden(deployment.folder / file.path)
                self._golden.append((file.path, golden))
        if not self._golden:
            log.warning("sync: the package has no golden vectors", model=self._name)

    def __call__(self, version: int, loaded: Loaded) -> None:
        """Raises ModelLoadError with the first complaints."""
        slots = [slot for slot in (loaded.card, loaded.cpu) if isinstance(slot, Slot)]
        if not slots:
            assert not isinstance(loaded.card, Slot)
            self.trouble = CardTrouble(
                f"'{self._name}' must run on the card, which is not there: {loaded.card.detail}"
            )
            raise ModelLoadError(str(self.trouble))
        for path, golden in self._golden:
            folder, _, _ = path.rpartition("/")
            if folder and folder.isdecimal() and int(folder) != version:
                continue
            for slot in slots:
                self._check(slot.engine, golden)

    def _check(self, engine: Engine, golden: Golden) -> None:
        try:
            complaints = check_golden(golden, partial(_run, engine))
        except CardError as error:
            self.trouble = CardTrouble(f"the card failed on golden vectors: {error}", error.remedy)
            raise ModelLoadError(str(self.trouble)) from None
        except (EngineError, FeedError, NotCompilable) as error:
            complaints = [f"golden vectors do not run: {error}"]
        if complaints:
            more = len(complaints) - _SHOWN
            text = "; ".join(complaints[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            raise ModelLoadError(f"on {engine.device}: {text}")


def accept_all(_version: int, _loaded: Loaded) -> None:
    """For what was in service before."""


Accept = Callable[[int, Loaded], None]


def _run(engine: Engine, names: Sequence[str], feeds: dict[str, Array]) -> Sequence[Array]:
    return engine.run(names, feeds, _DEADLINE_S)

# SPDX-License-Identifier: Apache-2.0
"""A store, a time that does not pass, and registries to fetch from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from edge_server.fill.fills import Fills
from edge_server.fill.origins import Origins
from edge_server.fill.peers import Peers
from edge_server.fill.receive import Limits
from edge_server.fill.time import Time
from edge_server.store.store import Store
from tests.edge_server.fill.fake_time import FakeTime
from tests.edge_server.fill.scripted import Registry, origins_of, peers_of, running


class MakeFills(Protocol):
    """What the fixture `make_fills` gives."""

    def __call__(
        self, *origins: Registry, peers: tuple[Registry, ...] = (), **settings: Any
    ) -> Fills:
        """Fills from these, with settings of Fills."""


@pytest.fixture
def time() -> FakeTime:
    """Passes when somebody waits."""
    return FakeTime()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty one."""
    with Store.open(tmp_path / "store") as store:
        yield store


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A running one."""
    with running() as registry:
        yield registry


@pytest.fixture
def second() -> Iterator[Registry]:
    """Another."""
    with running() as registry:
        yield registry


@pytest.fixture
def third() -> Iterator[Registry]:
    """And another."""
    with running() as registry:
        yield registry


@pytest.fixture
def make_fills(store: Store, time: FakeTime) -> Iterator[MakeFills]:
    """Fills that are stopped at the end."""
    with ExitStack() as stack:

        def make(
            *origins: Registry,
            peers: tuple[Registry, ...] = (),
            clock: Time = time,
            timeout: float = 5.0,
            **settings: Any,
        ) -> Fills:
            rng = random.Random(1)
            there = stack.enter_context(origins_of(*origins, timeout=timeout))
            near = stack.enter_context(peers_of(*peers, timeout=timeout))
            settings.setdefault("limits", Limits(time=clock))
            fills = Fills(
                store,
                Origins(there, time=clock, rng=rng),
                Peers(near, time=clock, rng=rng),
                rng=rng,
                **settings,
            )
            stack.callback(fills.stop)
            return fills

        yield make

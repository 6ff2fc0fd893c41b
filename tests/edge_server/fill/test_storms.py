# SPDX-License-Identifier: Apache-2.0
"""Faults of all kinds in any order, from everyone at once: a fill ends, rightly or with an error
that says all, and once they are over the next one brings the blob."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge_server.fill.errors import FillFailed
from edge_server.fill.fill import Want
from edge_server.store.store import Store
from registry.delta.block_index import index_file, parse
from tests.edge_server.fill import scripted
from tests.edge_server.fill.conftest import MakeFills
from tests.edge_server.fill.fake_time import FakeTime
from tests.edge_server.fill.scripted import NAME, Act, Handler, Registry, some_bytes

SIZE = 1 << 20
DATA = some_bytes(SIZE)


def good(handler: Handler, data: bytes) -> None:
    handler.good(data)


def draw(rng: random.Random) -> Act:
    """Something to do instead of the right thing, or the right thing."""
    return rng.choice(
        [
            good,
            scripted.truncate(rng.randrange(SIZE)),
            scripted.truncate(0),
            scripted.lie,
            scripted.ignore_range,
            scripted.endless,
            scripted.refuse(rng.choice([404, 401, 416, 429, 500, 503, 504])),
            scripted.redirect("/v2/elsewhere"),
        ]
    )


@pytest.mark.parametrize("seed", range(30))
def test_storm(
    seed: int,
    registry: Registry,
    second: Registry,
    third: Registry,
    store: Store,
    time: FakeTime,
    tmp_path: Path,
    make_fills: MakeFills,
) -> None:
    rng = random.Random(seed)
    for one in (registry, second, third):
        digest = one.add(DATA)
        one.script.extend(draw(rng) for _ in range(rng.randrange(12)))
    (tmp_path / "blob").write_bytes(DATA)
    index = parse(index_file(tmp_path / "blob")) if rng.random() < 0.5 else None
    fills = make_fills(registry, second, peers=(third,))
    want = Want(NAME, digest, rng.choice([SIZE, None]), index=index)
    try:
        assert fills.start(want).wait(30).read_bytes() == DATA
    except FillFailed as error:
        assert error.reasons
    for one in (registry, second, third):
        one.script.clear()
    time.advance(3600)
    assert fills.start(want).wait(30).read_bytes() == DATA
    assert store.verify() == []
    assert len(registry.asked) + len(second.asked) + len(third.asked) < 60

# SPDX-License-Identifier: Apache-2.0
"""Blobs made out of others that are here, and what happens where that goes wrong."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edge_server.fill.choose import DeltaWant
from edge_server.fill.fill import Want
from edge_server.store.store import Store
from registry.delta.encode import encode_delta
from registry.digest import digest_of
from tests.edge_server.fill.conftest import MakeFills
from tests.edge_server.fill.scripted import NAME, Registry, hold, some_bytes

SIZE = 2 << 20
OLD = some_bytes(SIZE)
NEW = OLD[:1000] + b"changed" + OLD[1007 : SIZE - 5] + b"more at the end"
OTHER = OLD[:1000] + b"wrongly" + OLD[1007 : SIZE - 5] + b"more at the end"


def delta_of(new: bytes, folder: Path) -> bytes:
    """What makes `new` of OLD."""
    paths = [folder / name for name in ("old", "new", "delta")]
    paths[0].write_bytes(OLD)
    paths[1].write_bytes(new)
    encode_delta(paths[0], paths[1], paths[2], level=3)
    return paths[2].read_bytes()


@pytest.fixture
def delta(tmp_path: Path) -> bytes:
    """The right one."""
    return delta_of(NEW, tmp_path)


def wanted(delta: bytes) -> Want:
    found = DeltaWant(digest_of(OLD), digest_of(delta), len(delta))
    return Want(NAME, digest_of(NEW), len(NEW), deltas=(found,))


def test_a_delta_is_chosen_when_its_base_is_here(
    registry: Registry, store: Store, make_fills: MakeFills, delta: bytes
) -> None:
    registry.add(NEW)
    registry.add(delta)
    fills = make_fills(registry)
    store.add(OLD, digest_of(OLD))
    fill = fills.start(wanted(delta))
    assert fill.wait(20).read_bytes() == NEW
    assert registry.sent == len(delta) < SIZE // 50
    assert fill.sources == {"delta": len(NEW)}


def test_no_delta_without_its_base(registry: Registry, make_fills: MakeFills, delta: bytes) -> None:
    registry.add(NEW)
    registry.add(delta)
    fill = make_fills(registry).start(wanted(delta))
    assert fill.wait(20).read_bytes() == NEW
    assert fill.sources == {"origin o0": len(NEW)}


def test_a_delta_that_yields_other_bytes(
    registry: Registry, store: Store, make_fills: MakeFills, tmp_path: Path
) -> None:
    """It makes a blob without a fault, of another digest: the whole is fetched."""
    registry.add(NEW)
    delta = delta_of(OTHER[: len(NEW)], tmp_path)
    registry.add(delta)
    store.add(OLD, digest_of(OLD))
    fill = make_fills(registry).start(wanted(delta))
    assert fill.wait(20).read_bytes() == NEW
    assert fill.sources["origin o0"] == len(NEW)
    assert fill.attempt == 1


@pytest.mark.parametrize("size", [SIZE // 2, SIZE * 2])
def test_a_delta_that_yields_another_size(
    registry: Registry, store: Store, make_fills: MakeFills, tmp_path: Path, size: int
) -> None:
    registry.add(NEW)
    delta = delta_of((OTHER + OLD)[:size], tmp_path)
    registry.add(delta)
    store.add(OLD, digest_of(OLD))
    fill = make_fills(registry).start(wanted(delta))
    assert fill.wait(20).read_bytes() == NEW


def test_a_delta_that_is_none(registry: Registry, store: Store, make_fills: MakeFills) -> None:
    registry.add(NEW)
    delta = b"nothing of the kind"
    registry.add(delta)
    store.add(OLD, digest_of(OLD))
    fill = make_fills(registry).start(wanted(delta))
    assert fill.wait(20).read_bytes() == NEW
    assert "was no use" in fill.notes[0]


def test_a_delta_that_nobody_has(
    registry: Registry, store: Store, make_fills: MakeFills, delta: bytes
) -> None:
    registry.add(NEW)
    store.add(OLD, digest_of(OLD))
    fill = make_fills(registry).start(wanted(delta))
    assert fill.wait(20).read_bytes() == NEW


def test_a_delta_on_top_of_a_prefix(
    registry: Registry, store: Store, make_fills: MakeFills, delta: bytes
) -> None:
    """What is here already is not written again."""
    registry.add(delta)
    store.add(OLD, digest_of(OLD))
    with store.partial(digest_of(NEW), len(NEW)) as partial:
        partial.write(NEW[: SIZE // 2])
    fill = make_fills(registry).start(wanted(delta))
    assert fill.wait(20).read_bytes() == NEW
    assert fill.sources == {"delta": len(NEW) - SIZE // 2}


def test_fills_that_wait_for_a_delta_do_not_use_up_the_threads(
    registry: Registry, store: Store, make_fills: MakeFills, delta: bytes
) -> None:
    """The delta was queued behind the very fill that needs it."""
    registry.add(delta)
    blocker = registry.add(b"first")
    go_on = threading.Event()
    registry.script.append(hold(0, go_on))
    store.add(OLD, digest_of(OLD))
    fills = make_fills(registry, background=1)
    fills.start(Want(NAME, blocker, 5))
    fill = fills.start(wanted(delta))
    queued = fills.start(Want(NAME, digest_of(delta), len(delta)))
    go_on.set()
    assert fill.wait(20).read_bytes() == NEW
    assert queued.wait(20)

# SPDX-License-Identifier: Apache-2.0
"""What a node gets when all is well: over HTTP, from a folder, and again without either."""

from pathlib import Path

import pytest

from registry.trust.client import TrustClient
from registry.trust.errors import BadRoot, NoSource, NotDesired, NotVouched
from registry.trust.sources import FolderSource, HttpSource
from tests.registry.trust.conftest import DAY, Serve, World


def test_over_http(world: World, serve: Serve) -> None:
    trusted = world.node().refresh([HttpSource(serve(world.path))], "canary")
    desired = trusted.desired("canary")
    assert (desired.release, [m.name for m in desired.models]) == (1, ["digits"])
    model = desired.models[0]
    assert trusted.vouched("vision/digits", "1.0") == (model.digest, model.size)
    assert trusted.changed
    assert trusted.stale(world.clock()) is None


def test_from_a_folder(world: World) -> None:
    source = FolderSource(world.path)
    node = world.node()
    assert node.refresh([source], "canary").changed
    assert not node.refresh([source], "canary").changed
    assert not list((world.base / "node").glob("walk-*"))


def test_without_a_source_the_last_state_is_loaded_and_says_when_it_is_stale(
    world: World,
) -> None:
    world.node().refresh([FolderSource(world.path)], "canary")
    world.clock.now += 2 * DAY
    node = world.node()
    found = node.load()
    assert found is not None and not node.damage
    assert found.desired("canary").models[0].repository == "vision/digits"
    assert "timestamp expired" in str(found.stale(world.clock()))
    with pytest.raises(NoSource):
        node.refresh([FolderSource(world.base / "unplugged")], "canary")


def test_a_new_node_has_nothing_to_load(world: World) -> None:
    assert world.node().load() is None


def test_what_nobody_vouches_for_and_a_ring_of_which_nothing_is_said(world: World) -> None:
    trusted = world.node().refresh([FolderSource(world.path)], "other")
    with pytest.raises(NotDesired):
        trusted.desired("other")
    with pytest.raises(NotVouched):
        trusted.vouched("vision/digits", "2.0")


def test_changes_reach_the_node(world: World) -> None:
    node, source = world.node(), FolderSource(world.path)
    node.refresh([source], "canary")
    world.vouch(tag="2.0")
    world.desire("vision/digits:2.0")
    desired = node.refresh([source], "canary").desired("canary")
    assert (desired.release, desired.models[0].tag) == (2, "2.0")


def test_a_root_that_is_not_there_or_is_none(tmp_path: Path, world: World) -> None:
    with pytest.raises(BadRoot):
        TrustClient(tmp_path / "n", tmp_path / "no.json")
    with pytest.raises(BadRoot):
        TrustClient(tmp_path / "n", b"{}", world.clock).refresh(
            [FolderSource(world.path)], "canary"
        )

# SPDX-License-Identifier: Apache-2.0
"""What a node does about what its registry wants: install, wait, refuse, go back, and never let go
of what serves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_server.fill.errors import AllOriginsDown
from edge_server.store.errors import DiskFull
from edge_server.sync.errors import Unfit
from edge_server.sync.states import SyncState
from registry.trust.errors import Freeze, NoSource
from tests.edge_server.sync.fakes import FakeNode, FakeTrust


@pytest.fixture
def trust() -> FakeTrust:
    return FakeTrust()


@pytest.fixture
def node(tmp_path: Path, trust: FakeTrust) -> Iterator[FakeNode]:
    found = FakeNode(tmp_path / "state", trust)
    yield found
    found.close()


def state(node: FakeNode, name: str = "m") -> SyncState:
    return node.follower.trackers[name].state


def poll(node: FakeNode) -> float:
    """The next look, whenever that is due."""
    node.time.advance(70)
    return node.follower.poll()


def install(node: FakeNode, trust: FakeTrust, tag: str) -> None:
    trust.want(node.registry.publish("m", tag, weights=tag.encode()))
    poll(node)
    assert state(node) is SyncState.CURRENT


def test_what_is_wanted_becomes_current(node: FakeNode, trust: FakeTrust) -> None:
    node.follower.start()
    install(node, trust, "1.0")
    assert node.models.served == {"m": b"1.0"} and node.follower.settled
    assert (node.deployments.models / "m" / "1" / "weights").read_bytes() == b"1.0"
    assert set(node.store.pins()) == {"current m"}


def test_the_one_before_is_kept_and_the_one_before_that_goes(
    node: FakeNode, trust: FakeTrust
) -> None:
    for tag in ("1.0", "1.1", "1.2"):
        install(node, trust, tag)
    previous = node.deployments.previous("m")
    assert previous is not None and previous.package.model.tag == "1.1"
    assert set(node.store.pins()) == {"current m", "previous m"}
    assert len(list((node.deployments.models.parent / "deployed" / "m").iterdir())) == 2
    assert node.models.served == {"m": b"1.2"}


def test_a_package_that_does_not_do_what_it_says_is_refused_once(
    node: FakeNode, trust: FakeTrust
) -> None:
    install(node, trust, "1.0")
    node.models.refusal = Unfit("golden vector 0: 3 of 10 values differ")
    trust.want(node.registry.publish("m", "1.1", weights=b"bad"))
    poll(node)
    assert state(node) is SyncState.REFUSED and node.models.served == {"m": b"1.0"}
    asked = len(node.models.checked)
    poll(node)
    assert len(node.models.checked) == asked  # it is not tried again
    assert set(node.store.pins()) == {"current m"}
    node.models.refusal = None
    install(node, trust, "1.2")


def test_what_may_pass_is_tried_again_after_pauses_that_grow(
    node: FakeNode, trust: FakeTrust
) -> None:
    trust.want(node.registry.publish("m", "1.0", weights=b"1.0"))
    node.registry.errors = [AllOriginsDown("m", {"a": "no route"})] * 5
    pauses = []
    node.follower.poll()
    for _ in range(5):
        tracker = node.follower.trackers["m"]
        assert tracker.state is SyncState.WAITING and "no route" in tracker.reason
        pauses.append(tracker.due - node.time.now())
        node.time.advance(pauses[-1] / 2)
        before = node.registry.fills
        node.follower.poll()
        assert node.registry.fills == before  # not before it is due
        node.time.advance(pauses[-1])
        node.follower.poll()
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses))
    assert state(node) is SyncState.CURRENT


def test_disk_full_waits_and_keeps_serving(node: FakeNode, trust: FakeTrust) -> None:
    install(node, trust, "1.0")
    trust.want(node.registry.publish("m", "1.1", weights=b"1.1"))
    node.registry.errors = [DiskFull("the disk is full", "free space")]
    poll(node)
    assert state(node) is SyncState.WAITING and node.models.served == {"m": b"1.0"}
    assert "free space" in node.follower.trackers["m"].reason
    poll(node)
    assert node.models.served == {"m": b"1.1"}


def test_expired_metadata_stops_installs_not_serving(node: FakeNode, trust: FakeTrust) -> None:
    install(node, trust, "1.0")
    trust.want(node.registry.publish("m", "1.1", weights=b"1.1"))
    trust.error = Freeze("the timestamp expired yesterday")
    poll(node)
    poll(node)
    assert node.models.served == {"m": b"1.0"} and not node.follower.settled
    assert "expired yesterday" in node.status.found["trouble"]
    trust.error = None
    poll(node)
    assert node.models.served == {"m": b"1.1"} and node.status.found["trouble"] == ""


def test_no_origin_answers_but_what_was_good_last_goes_on(node: FakeNode, trust: FakeTrust) -> None:
    trust.want(node.registry.publish("m", "1.0", weights=b"1.0"))
    node.registry.errors = [AllOriginsDown("m", {})]
    node.follower.poll()
    trust.error, trust.good = NoSource("none"), True
    poll(node)
    assert state(node) is SyncState.CURRENT  # a peer had it


def test_a_model_that_is_no_longer_wanted_is_withdrawn(node: FakeNode, trust: FakeTrust) -> None:
    install(node, trust, "1.0")
    trust.want(node.registry.publish("other", "1.0", weights=b"o"))
    poll(node)
    assert node.models.served == {"other": b"o"} and node.deployments.names() == ["other"]
    assert set(node.store.pins()) == {"current other"}


def test_rollback_and_the_next_release(node: FakeNode, trust: FakeTrust) -> None:
    install(node, trust, "1.0")
    install(node, trust, "1.1")
    current = node.deployments.current("m")
    assert current is not None
    node.holds.hold("m", current.digest)
    node.follower.poll()
    assert state(node) is SyncState.ROLLED_BACK and node.models.served == {"m": b"1.0"}
    assert node.models.checked[-1] is False  # it was in service before: no check, no fetch
    poll(node)
    assert node.models.served == {"m": b"1.0"}
    install(node, trust, "1.2")
    assert node.holds.of("m") == ""


def test_a_restart_takes_up_what_was(tmp_path: Path, trust: FakeTrust) -> None:
    first = FakeNode(tmp_path / "state", trust)
    install(first, trust, "1.0")
    install(first, trust, "1.1")
    first.holds.hold("m", trust.desired.models[0].digest)
    first.follower.poll()
    first.close()
    again = FakeNode(tmp_path / "state", trust)
    try:
        trust.error = NoSource("no network")
        again.follower.start()
        again.follower.poll()
        assert state(again) is SyncState.ROLLED_BACK and again.registry.fills == 0
        current = again.deployments.current("m")
        assert current is not None and current.package.model.tag == "1.0"
        assert set(again.store.pins()) == {"current m"}
    finally:
        again.close()


def test_a_defect_ends_neither_the_sync_nor_what_serves(node: FakeNode, trust: FakeTrust) -> None:
    install(node, trust, "1.0")
    trust.want(node.registry.publish("m", "1.1", weights=b"1.1"))
    node.registry.errors = [ZeroDivisionError()]
    poll(node)
    assert (
        state(node) is SyncState.WAITING and "internal error" in node.follower.trackers["m"].reason
    )
    poll(node)
    assert node.models.served == {"m": b"1.1"}


def test_one_model_that_fails_does_not_hold_up_another(node: FakeNode, trust: FakeTrust) -> None:
    trust.want(
        node.registry.publish("a", "1", weights=b"a"), node.registry.publish("b", "1", weights=b"b")
    )
    node.registry.errors = [AllOriginsDown("a", {})]
    node.follower.poll()
    assert state(node, "a") is SyncState.WAITING and state(node, "b") is SyncState.CURRENT

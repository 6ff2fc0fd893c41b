# SPDX-License-Identifier: Apache-2.0
"""What the disk has lost is found, never served again, fetched again, and loaded anew."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from edge_server.fill.errors import AllOriginsDown
from edge_server.fill.fill import Fill, Want
from edge_server.sync.scrub import Scrub
from tests.edge_server.sync.fakes import FakeNode, FakeTrust

WEEK = 7 * 86400.0


class Fetched:
    """A fill that is done."""

    def wait(self, _timeout: float | None = None) -> None:
        """It is."""


class FakeFills:
    """Brings whatever the fake registry has published."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.wanted: list[str] = []
        self.down = False

    def start(self, want: Want) -> Fill:
        self.wanted.append(f"{want.name} {want.digest}")
        if self.down:
            raise AllOriginsDown(want.digest, {})
        for _, blobs in self.node.registry.packages.values():
            if want.digest in blobs:
                self.node.store.add(blobs[want.digest], want.digest)
        return cast(Fill, Fetched())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    trust = FakeTrust()
    found = FakeNode(tmp_path / "state", trust)
    for tag in ("1.0", "1.1"):
        trust.want(found.registry.publish("m", tag, weights=tag.encode()))
        found.time.advance(100)
        found.follower.poll()
    yield found
    found.close()


def scrub_of(node: FakeNode, fills: FakeFills) -> Scrub:
    return Scrub(
        node.deployments.models.parent,
        node.store,
        fills,
        node.deployments,
        node.models,
        threading.Event(),
        WEEK,
        node.time,
        random.Random(1),
    )


def damage(node: FakeNode, data: bytes) -> str:
    """Change a byte of the blob that has these bytes, as a medium does."""
    for entry in node.store.entries():
        path = node.store.path(entry.digest)
        assert path is not None
        if path.read_bytes() == data:
            path.chmod(0o644)
            path.write_bytes(b"X" + data[1:])
            return entry.digest
    raise AssertionError("no such blob")


def test_damage_is_found_fetched_again_and_loaded_anew(node: FakeNode) -> None:
    fills = FakeFills(node)
    scrub = scrub_of(node, fills)
    scrub.once()
    assert scrub.damaged == 0 and node.models.checked == [True, True]
    digest = damage(node, b"1.1")
    served = node.deployments.models / "m" / "1" / "weights"
    assert served.read_bytes() == b"X.1"  # one inode, two names
    scrub.once()
    assert (scrub.damaged, scrub.mended, scrub.waiting) == (1, 1, 0)
    assert fills.wanted == [f"test/m {digest}"]
    assert served.read_bytes() == b"1.1" and node.models.served == {"m": b"1.1"}
    assert node.models.checked[-1] is False and node.store.verify() == []


def test_damage_to_the_previous_package_is_mended_without_a_load(node: FakeNode) -> None:
    scrub = scrub_of(node, FakeFills(node))
    damage(node, b"1.0")
    scrub.once()
    assert scrub.mended == 1 and node.models.served == {"m": b"1.1"}
    previous = node.deployments.previous("m")
    assert previous is not None
    assert (previous.folder / "1" / "weights").read_bytes() == b"1.0"


def test_origins_down_the_damaged_blob_is_not_served_and_waits(node: FakeNode) -> None:
    fills = FakeFills(node)
    fills.down = True
    scrub = scrub_of(node, fills)
    digest = damage(node, b"1.1")
    scrub.once()
    assert (scrub.mended, scrub.waiting) == (0, 1) and node.store.path(digest) is None
    assert 0 < scrub.due_in() < WEEK
    fills.down = False
    scrub.once()
    assert (scrub.mended, scrub.waiting, scrub.damaged) == (1, 0, 1)


def test_it_is_due_once_a_week_across_restarts(node: FakeNode) -> None:
    scrub = scrub_of(node, FakeFills(node))
    stamp = node.deployments.models.parent / "scrubbed"
    assert scrub.due_in() > 0 and stamp.exists()
    node.time.advance(stamp.stat().st_mtime - node.time.wall() + WEEK - 5)
    assert scrub_of(node, FakeFills(node)).due_in() == pytest.approx(5, abs=1)

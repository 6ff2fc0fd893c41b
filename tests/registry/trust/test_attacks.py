# SPDX-License-Identifier: Apache-2.0
"""Attacks by whoever serves the metadata, some with stolen keys. Each is refused by its name, and
the node goes on with what it had (TUF specification 1.5.2; Uptane's for the desired state)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, TargetFile

from registry.digest import digest_of
from registry.trust import changes
from registry.trust.client import TrustClient
from registry.trust.desired import Desired, DesiredModel
from registry.trust.errors import (
    BelowThreshold,
    ClockSetBack,
    Expired,
    Freeze,
    MixAndMatch,
    NoSource,
    NotVouched,
    Rollback,
    UnknownKey,
    WrongDigest,
)
from registry.trust.folder import EXPIRY, RegistryFolder
from registry.trust.founding import Plan
from registry.trust.keys import make_key
from registry.trust.names import DESIRED, SNAPSHOT, TARGETS, TIMESTAMP
from registry.trust.sources import FolderSource, HttpSource, MetadataSource
from tests.registry.trust.conftest import DAY, HOUR, Serve, World
from tests.registry.trust.forging import forge, forge_ring, nothing, sign

Reach = Callable[[Path], MetadataSource]


@pytest.fixture(params=["http", "folder"])
def reach(request: pytest.FixtureRequest, serve: Serve) -> Reach:
    """A source for a registry's folder, both ways that there are."""
    if request.param == "folder":
        return FolderSource
    return lambda path: HttpSource(serve(path))


def refused(node: TrustClient, source: MetadataSource, kind: type[Exception], words: str) -> None:
    """The node refuses by this name, tells a way out, and still has what it had."""
    before = node.load()
    with pytest.raises(kind, match=words) as caught:
        node.refresh([source], "canary")
    assert caught.value.remedy  # type: ignore[attr-defined]
    after = node.load()
    if before is not None:
        assert after is not None
        assert after.versions == before.versions


# Rollback (arbitrary older metadata), role by role


def test_rollback_of_root(world: World, reach: Reach) -> None:
    """The next root is asked for, and the former one is given."""
    with world.publisher() as publisher:
        changes.change_keys(publisher, "root", [], [])
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    mirror = world.copy("mirror") / "tuf" / "metadata"
    (mirror / "3.root.json").write_bytes((mirror / "1.root.json").read_bytes())
    refused(node, reach(world.base / "mirror"), Rollback, "version 1 of role root")


def test_rollback_by_hiding_the_newest_root(world: World, reach: Reach) -> None:
    old = world.copy("old")
    with world.publisher() as publisher:
        changes.change_keys(publisher, "root", [], [])
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    (world.base / "node" / "trusted.json").unlink()
    refused(node, reach(old), Rollback, "version 1 of role root is older than version 2")


def test_rollback_of_timestamp(world: World, reach: Reach) -> None:
    old = world.copy("old")
    world.vouch(tag="2.0")
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    refused(node, reach(old), Rollback, "role timestamp")


def test_rollback_of_snapshot_with_the_timestamp_key(world: World, reach: Reach) -> None:
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    mirror = world.copy("mirror")
    old = RegistryFolder(mirror).current().snapshot.signed.version - 1

    def edit(signed: Any) -> None:
        signed.snapshot_meta.version = old

    forge(mirror, {TIMESTAMP: edit}, world.path / "keys")
    refused(node, reach(mirror), Rollback, "older snapshot")


@pytest.mark.parametrize("role", [TARGETS, DESIRED])
def test_rollback_of_a_role_with_snapshot_and_timestamp_keys(
    world: World, reach: Reach, role: str
) -> None:
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    mirror = world.copy("mirror")

    def edit(signed: Any) -> None:
        signed.meta[f"{role}.json"].version = 1
        signed.meta[f"{role}.json"].hashes = signed.meta[f"{role}.json"].length = None

    forge(mirror, {SNAPSHOT: edit}, world.path / "keys")
    refused(node, reach(mirror), Rollback, f"version 1 of {role}")
    (world.base / "node" / "trusted.json").unlink()  # the floors alone hold too
    refused(node, reach(mirror), Rollback, f"version 1 of role {role} is older than version 2")


def test_rollback_of_a_release_with_all_online_keys(world: World, reach: Reach) -> None:
    """The release counter never goes back, whatever the metadata's version."""
    world.vouch(tag="2.0")
    world.desire("vision/digits:2.0")
    node = world.node()
    release_two = node.refresh([reach(world.path)], "canary").desired("canary")
    assert release_two.release == 2
    mirror = world.copy("mirror")
    older = dataclasses.replace(release_two, release=1)
    forge_ring(mirror, older, world.path / "keys")
    refused(node, reach(mirror), Rollback, "release 1 of ring canary is older than release 2")


def test_stale_mirror_then_good_mirror(world: World, reach: Reach) -> None:
    stale = world.copy("stale")
    world.vouch(tag="2.0")
    world.desire("vision/digits:2.0")
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    world.vouch(tag="3.0")
    world.desire("vision/digits:3.0")
    trusted = node.refresh([reach(stale), reach(world.path)], "canary")
    assert trusted.desired("canary").release == 3
    with pytest.raises(Rollback, match=r"also: .*unplugged holds no metadata"):
        node.refresh([reach(stale), FolderSource(world.base / "unplugged")], "canary")


# Freeze, and metadata whose time is over


def test_freeze(world: World, reach: Reach) -> None:
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    world.clock.now += DAY + 1
    refused(node, reach(world.path), Freeze, "the timestamp expired on")
    refused(world.node("new"), reach(world.path), Freeze, "the timestamp expired on")
    world.refresh()
    assert node.refresh([reach(world.path)], "canary").stale(world.clock()) is None


@pytest.mark.parametrize("role", ["root", TARGETS, SNAPSHOT, DESIRED])
def test_expired(world: World, reach: Reach, role: str) -> None:
    folder = RegistryFolder(world.path)
    folder.set_expiry({**EXPIRY, role: int(HOUR)})
    with world.publisher() as publisher:
        changes.change_keys(publisher, "root", [], [])
    world.vouch(tag="2.0")
    world.desire("vision/digits:2.0")
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    world.clock.now += 2 * HOUR
    refused(node, reach(world.path), Expired, f"role {role} expired on")
    loaded = node.load()
    assert loaded is not None
    assert isinstance(loaded.stale(world.clock()), Expired)


def test_clock_set_back(world: World, reach: Reach) -> None:
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    world.clock.now -= HOUR
    refused(node, reach(world.path), ClockSetBack, "has passed")
    node.accept_clock()
    node.refresh([reach(world.path)], "canary")


def test_clock_never_set_at_all(world: World, reach: Reach) -> None:
    """A new node whose clock starts in 1970 would take metadata of any age."""
    world.clock.now = 1000.0
    refused(world.node(), reach(world.path), ClockSetBack, "says 1970-01-01")


# Mix and match


@pytest.mark.parametrize("role", [SNAPSHOT, TARGETS, DESIRED])
def test_mix_and_match(world: World, reach: Reach, role: str) -> None:
    """A file of an older state under the name of the newer one."""
    world.vouch(name="speech/words")
    world.desire("speech/words:1.0")
    mirror = world.copy("mirror")
    current = RegistryFolder(mirror).current()
    version = current.of(role).signed.version
    metadata = mirror / "tuf" / "metadata"
    old = (metadata / f"{version - 1}.{role}.json").read_bytes()
    (metadata / f"{version}.{role}.json").write_bytes(old)
    refused(world.node(), reach(mirror), MixAndMatch, "is not the one that the")


def test_the_desired_state_names_other_bytes_than_are_vouched_for(
    world: World, reach: Reach
) -> None:
    mirror = world.copy("mirror")
    other = DesiredModel("digits", "vision/digits", "1.0", digest_of(b"evil"), 4)
    forge_ring(mirror, Desired("canary", 2, (other,)), world.path / "keys")
    refused(world.node(), reach(mirror), MixAndMatch, "vouched for is")


def test_the_desired_state_names_what_nobody_vouches_for(world: World, reach: Reach) -> None:
    mirror = world.copy("mirror")
    other = DesiredModel("digits", "evil/digits", "1.0", digest_of(b"evil"), 4)
    forge_ring(mirror, Desired("canary", 2, (other,)), world.path / "keys")
    refused(world.node(), reach(mirror), NotVouched, "evil/digits:1.0, which nobody vouches for")


# Keys


def test_unknown_key(world: World, reach: Reach) -> None:
    """Packages vouched for with a key of the attacker's own, the online keys stolen."""
    mirror, own = world.copy("mirror"), world.base / "own"
    make_key(TARGETS, own)

    def edit(signed: Any) -> None:
        path = "models/evil/digits/1.0"
        signed.targets[path] = TargetFile.from_data(path, b"evil", ["sha256"])

    forge(mirror, {TARGETS: edit}, world.path / "keys", own)
    refused(world.node(), reach(mirror), UnknownKey, "role targets has no good signature")


@pytest.mark.parametrize("role", [TIMESTAMP, SNAPSHOT, DESIRED])
def test_unknown_key_of_an_online_role(world: World, reach: Reach, role: str) -> None:
    mirror, own = world.copy("mirror"), world.base / "own"
    for path in (world.path / "keys").glob("*.pem"):
        if not path.name.startswith(role):
            own.mkdir(exist_ok=True)
            (own / path.name).write_bytes(path.read_bytes())
    make_key(role, own)
    forge(mirror, {role: nothing}, own)
    refused(world.node(), reach(mirror), UnknownKey, f"role {role} has no good signature")


def test_root_below_threshold(world: World, reach: Reach) -> None:
    node = world.node()
    node.refresh([reach(world.path)], "canary")
    mirror, stolen = world.copy("mirror"), world.base / "stolen"
    stolen.mkdir()
    one = sorted(world.keys.glob("root-*.pem"))[0]
    (stolen / one.name).write_bytes(one.read_bytes())
    root = Metadata[Any].from_bytes(world.root.read_bytes())
    root.signed.version = 2
    sign(root, "root", stolen)
    (mirror / "tuf" / "metadata" / "2.root.json").write_bytes(root.to_bytes())
    refused(node, reach(mirror), BelowThreshold, "root has 1 good signatures of the 2")


def test_targets_below_threshold(tmp_path: Path, reach: Reach) -> None:
    world = World(tmp_path)
    world.init(Plan({"root": 1, TARGETS: 2}, {"root": 1, TARGETS: 2}))
    world.vouch()
    world.desire("vision/digits:1.0")
    mirror, stolen = world.copy("mirror"), world.base / "stolen"
    stolen.mkdir()
    one = sorted(world.keys.glob("targets-*.pem"))[0]
    (stolen / one.name).write_bytes(one.read_bytes())
    forge(mirror, {TARGETS: nothing}, world.path / "keys", stolen)
    refused(world.node(), reach(mirror), BelowThreshold, "targets has 1 good signatures of the 2")


# Bytes


@pytest.mark.parametrize("role", [SNAPSHOT, TARGETS, DESIRED])
def test_wrong_digest_of_metadata(world: World, reach: Reach, role: str) -> None:
    mirror = world.copy("mirror")
    version = RegistryFolder(mirror).current().of(role).signed.version
    path = mirror / "tuf" / "metadata" / f"{version}.{role}.json"
    path.write_bytes(b"x" * path.stat().st_size)
    refused(world.node(), reach(mirror), WrongDigest, f"role {role}")


def test_wrong_digest_of_the_desired_state(world: World, reach: Reach) -> None:
    mirror = world.copy("mirror")
    path = next((mirror / "tuf" / "targets" / "desired").glob("*.canary.json"))
    path.write_bytes(path.read_bytes().replace(b"1.0", b"6.6"))
    refused(world.node(), reach(mirror), WrongDigest, "canary.json")


def test_a_part_of_the_metadata_is_left_out(world: World, reach: Reach) -> None:
    mirror = world.copy("mirror")
    (mirror / "tuf" / "metadata" / "2.targets.json").unlink()
    refused(world.node(), reach(mirror), NoSource, "has no metadata of role targets")

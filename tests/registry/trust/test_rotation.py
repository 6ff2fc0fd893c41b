# SPDX-License-Identifier: Apache-2.0
"""Keys are replaced and taken back: nodes follow, thieves do not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from registry.trust import changes
from registry.trust.desired import Desired
from registry.trust.errors import (
    BadRequest,
    BelowThreshold,
    KeyMissing,
    Rollback,
    TrustError,
    UnknownKey,
)
from registry.trust.folder import RegistryFolder, read_metadata
from registry.trust.founding import Plan
from registry.trust.holders import sign_file, summary
from registry.trust.keys import no_passphrase
from registry.trust.names import DESIRED, SNAPSHOT, TARGETS, TIMESTAMP
from registry.trust.publisher import keyids_of
from registry.trust.sources import FolderSource
from tests.registry.trust.conftest import World
from tests.registry.trust.forging import forge, forge_ring, nothing, sign


def rotate(world: World, role: str, *keyids: str) -> None:
    with world.publisher() as publisher:
        home = world.keys if role in ("root", TARGETS) else publisher.online
        outcomes, _ = changes.rotate(publisher, role, keyids, home)
    assert all(outcome.published for outcome in outcomes)


def keyids(world: World, role: str) -> list[str]:
    return keyids_of(RegistryFolder(world.path).current(), role)


def test_root_rotation_over_three_versions(world: World) -> None:
    """One key each time, until none of the first root is left; the node was away all the while."""
    node, source = world.node(), FolderSource(world.path)
    node.refresh([source], "canary")
    first = keyids(world, "root")
    for keyid in first:
        rotate(world, "root", keyid)
    assert not set(first) & set(keyids(world, "root"))
    assert node.refresh([source], "canary").versions["root"] == 4
    assert world.node("new").refresh([source], "canary").versions["root"] == 4
    found = node.load()
    assert found is not None
    assert found.versions["root"] == 4


def test_a_link_of_the_root_chain_is_missing(world: World) -> None:
    """A new node goes as far as the chain leads; one that was further is not led back."""
    node, source = world.node(), FolderSource(world.path)
    for keyid in keyids(world, "root"):
        rotate(world, "root", keyid)
    node.refresh([source], "canary")
    (world.metadata / "3.root.json").unlink()
    assert world.node("new").refresh([source], "canary").versions["root"] == 2
    assert node.refresh([source], "canary").versions["root"] == 4
    (world.base / "node" / "trusted.json").unlink()
    with pytest.raises(Rollback, match="version 2 of role root is older than version 4"):
        node.refresh([source], "canary")


def test_recovery_from_a_stolen_root_key(world: World) -> None:
    """One key of two is stolen and replaced: what the thief signs counts nowhere any more."""
    stolen = world.base / "stolen"
    stolen.mkdir()
    thiefs = sorted(world.keys.glob("root-*.pem"))[0]
    shutil.copy(thiefs, stolen)
    keyid = next(k for k in keyids(world, "root") if thiefs.stem.endswith(k[:8]))
    rotate(world, "root", keyid)
    node = world.node()
    node.refresh([FolderSource(world.path)], "canary")
    shutil.copy(sorted(world.keys.glob("root-*.pem"))[1], stolen)  # a second one falls too
    mirror = world.copy("mirror")
    folder = RegistryFolder(mirror)
    root = folder.current().root
    root.signed.version += 1
    sign(root, "root", stolen)
    (mirror / "tuf" / "metadata" / f"{root.signed.version}.root.json").write_bytes(root.to_bytes())
    with pytest.raises((BelowThreshold, UnknownKey)):
        node.refresh([FolderSource(mirror)], "canary")


@pytest.mark.parametrize("role", [TARGETS, SNAPSHOT, TIMESTAMP, DESIRED])
def test_a_replaced_key_counts_no_more(world: World, role: str) -> None:
    """The thief has the old key of a role and all online keys of the others."""
    stolen = world.base / "stolen"
    shutil.copytree(world.path / "keys", stolen)
    for path in world.keys.glob("targets-*.pem"):
        shutil.copy(path, stolen)
    rotate(world, role)
    node = world.node()
    trusted = node.refresh([FolderSource(world.path)], "canary")
    assert trusted.desired("canary").release == 1
    for path in (world.path / "keys").glob("*.pem"):
        if not path.name.startswith(role):
            shutil.copy(path, stolen)
    mirror = world.copy("mirror")
    forge(mirror, {role: nothing}, stolen)
    with pytest.raises(UnknownKey, match=f"role {role} has no good signature"):
        node.refresh([FolderSource(mirror)], "canary")


def test_old_state_under_a_replaced_key_is_refused_though_the_new_state_never_came(
    world: World,
) -> None:
    """The new root alone has reached the node: it stays, and what the old key signed is out."""
    node, old = world.node(), world.copy("old")
    node.refresh([FolderSource(old)], "canary")
    rotate(world, TIMESTAMP)
    shutil.copy(world.metadata / "2.root.json", old / "tuf" / "metadata")
    for _ in range(2):
        with pytest.raises(UnknownKey):
            node.refresh([FolderSource(old)], "canary")
    (old / "tuf" / "metadata" / "2.root.json").unlink()
    with pytest.raises(UnknownKey):
        node.refresh([FolderSource(old)], "canary")
    node.refresh([FolderSource(world.path)], "canary")


@pytest.mark.parametrize("damaged", [False, True])
def test_recovery_from_fast_forward(world: World, damaged: bool) -> None:
    """A thief drives versions up so that honest ones look like a rollback; new keys end that
    (TUF 5.3.11)."""
    node, mirror = world.node(), world.copy("mirror")

    def far(signed: Any) -> None:
        signed.version = 1_000_000

    forge(mirror, {SNAPSHOT: far, TIMESTAMP: far}, world.path / "keys")
    assert node.refresh([FolderSource(mirror)], "canary").versions[TIMESTAMP] == 1_000_000
    with pytest.raises(TrustError):
        node.refresh([FolderSource(world.path)], "canary")
    rotate(world, TIMESTAMP)
    rotate(world, SNAPSHOT)
    if damaged:
        (world.base / "node" / "trusted.json").unlink()
    assert node.refresh([FolderSource(world.path)], "canary").versions[TIMESTAMP] < 100


def test_recovery_from_a_release_driven_up(world: World) -> None:
    node, mirror = world.node(), world.copy("mirror")
    models = RegistryFolder(world.path).current().rings()["canary"].models
    forge_ring(mirror, Desired("canary", 1_000_000, models), world.path / "keys")
    node.refresh([FolderSource(mirror)], "canary")
    for role in (DESIRED, SNAPSHOT, TIMESTAMP):
        rotate(world, role)
    assert node.refresh([FolderSource(world.path)], "canary").desired("canary").release == 1


def test_an_old_copy_of_the_registry_is_put_back(world: World) -> None:
    """Nodes refuse it, until its keeper has rotated what they have seen newer versions of."""
    old, source = world.copy("old"), FolderSource(world.path)
    world.vouch(tag="2.0")
    world.desire("vision/digits:2.0")
    node = world.node()
    node.refresh([source], "canary")
    shutil.rmtree(world.path)
    shutil.copytree(old, world.path)
    with pytest.raises(Rollback):
        node.refresh([source], "canary")
    for role in (SNAPSHOT, TIMESTAMP, DESIRED, TARGETS):
        rotate(world, role)
    assert node.refresh([source], "canary").desired("canary").release == 1


def test_revoked_key(world: World) -> None:
    keyid = keyids(world, "root")[0]
    with world.publisher() as publisher:
        role, outcomes = changes.revoke_key(publisher, keyid[:8])
    assert (role, [o.published for o in outcomes]) == ("root", [True])
    assert keyid not in keyids(world, "root")
    assert world.node().refresh([FolderSource(world.path)], "canary").versions["root"] == 2
    with world.publisher() as publisher, pytest.raises(BadRequest, match="of which 2 must sign"):
        changes.revoke_key(publisher, keyids(world, "root")[0])


def test_root_signed_in_two_places(world: World) -> None:
    """Each holder has one key: the change waits for the second signature, in a file."""
    one, two = (_holder(world, n) for n in (0, 1))
    keyid = keyids(world, TIMESTAMP)[0]
    with world.publisher(one) as publisher:
        outcomes, _ = changes.rotate(publisher, TIMESTAMP, [], publisher.online)
    assert [(o.role, o.published, o.have, o.need) for o in outcomes] == [("root", False, 1, 2)]
    node, source = world.node(), FolderSource(world.path)
    assert node.refresh([source], "canary").versions["root"] == 1
    pending = outcomes[0].pending
    assert pending is not None
    brought = _sign_elsewhere(world, pending, two)
    with world.publisher(world.base / "no keys here") as publisher:
        assert [o.published for o in changes.add_pending(publisher, brought)] == [True]
    assert keyid not in keyids(world, TIMESTAMP)
    assert node.refresh([source], "canary").versions["root"] == 2


def test_targets_below_threshold_waits_and_nodes_see_nothing_of_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.init(Plan({"root": 1, TARGETS: 2}, {"root": 1, TARGETS: 2}))
    world.vouch()
    world.desire("vision/digits:1.0")
    one = _holder(world, 0, TARGETS)
    two = _holder(world, 1, TARGETS)
    package = world.vouch(tag="2.0")
    with world.publisher(one) as publisher:
        outcomes = changes.withdraw(publisher, "vision/digits:2.0")
    assert [(o.published, o.have, o.need) for o in outcomes] == [(False, 1, 2)]
    node, source = world.node(), FolderSource(world.path)
    trusted = node.refresh([source], "canary")
    assert trusted.vouched("vision/digits", "2.0") == (package.digest, package.size)
    with world.publisher(two) as publisher:
        assert [o.published for o in changes.add_pending(publisher, None)] == [True]
    with pytest.raises(TrustError):
        node.refresh([source], "canary").vouched("vision/digits", "2.0")


def test_a_signed_file_of_something_else_is_not_taken(world: World) -> None:
    one, two = (_holder(world, n) for n in (0, 1))
    with world.publisher(one) as publisher:
        outcomes, _ = changes.rotate(publisher, TIMESTAMP, [], publisher.online)
        assert outcomes[0].pending is not None
        brought = _sign_elsewhere(world, outcomes[0].pending, two)
        changes.rotate(publisher, SNAPSHOT, [], publisher.online)
        with pytest.raises(BadRequest, match="waits for signatures here"):
            changes.add_pending(publisher, brought)


def test_an_online_key_is_missing(world: World) -> None:
    for path in (world.path / "keys").glob("snapshot-*.pem"):
        path.unlink()
    with pytest.raises(KeyMissing, match="0 keys of snapshot"):
        world.vouch(tag="2.0")
    assert world.node().refresh([FolderSource(world.path)], "canary").packages.keys() == {
        "models/vision/digits/1.0"
    }


def _holder(world: World, number: int, role: str = "root") -> Path:
    folder = world.base / f"holder-{role}-{number}"
    folder.mkdir()
    shutil.copy(sorted(world.keys.glob(f"{role}-*.pem"))[number], folder)
    return folder


def _sign_elsewhere(world: World, pending: Path, holder: Path) -> Any:
    carried = world.base / "carried.json"
    shutil.copy(pending, carried)
    metadata = read_metadata(carried)
    assert any("timestamp: 1 of" in line for line in summary(metadata))
    sign_file(carried, metadata, [holder], no_passphrase)
    return read_metadata(carried)

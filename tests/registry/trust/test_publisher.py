# SPDX-License-Identifier: Apache-2.0
"""Publishing: what is refused, what expires, interruptions at every write, two publishers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.errors import BadReference
from registry.trust import changes, durable, folder
from registry.trust.changes import Package
from registry.trust.errors import (
    AlreadyARegistry,
    BadKey,
    BadRequest,
    Busy,
    NotARegistry,
    NotVouched,
)
from registry.trust.folder import RegistryFolder
from registry.trust.founding import Plan
from registry.trust.holders import offline_expiry
from registry.trust.keys import load_key, make_key
from registry.trust.names import DESIRED, SNAPSHOT, TARGETS, TIMESTAMP, check_ring
from registry.trust.sources import FolderSource
from tests.registry.trust.conftest import DAY, HOUR, World


class Cut(Exception):
    """The power went."""


def vouch_and_desire(world: World) -> None:
    world.vouch(tag="2.0")
    world.desire("vision/digits:2.0")


def rotate_timestamp(world: World) -> None:
    with world.publisher() as publisher:
        changes.rotate(publisher, TIMESTAMP, [], publisher.online)


def rotate_targets(world: World) -> None:
    with world.publisher() as publisher:
        changes.rotate(publisher, TARGETS, [], world.keys)


def withdraw(world: World) -> None:
    with world.publisher() as publisher:
        changes.withdraw(publisher, "vision/digits:1.0", force=True)


@pytest.mark.parametrize("act", [vouch_and_desire, rotate_timestamp, rotate_targets, withdraw])
@pytest.mark.parametrize("torn", [False, True])
def test_power_cut_at_every_write(
    world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[World], None], torn: bool
) -> None:
    """Nodes see the old state or the new one; the change can be made again."""
    start = world.copy("start")
    writes = _count_writes(world, monkeypatch, act)
    assert writes >= 2
    for cut in range(writes):
        shutil.rmtree(world.path)
        shutil.copytree(start, world.path)
        node = world.node(f"node-{cut}")
        node.refresh([FolderSource(world.path)], "canary")
        with monkeypatch.context() as patch:
            _cut_after(patch, cut, torn)
            with pytest.raises(Cut):
                act(world)
        world.refresh()  # as cron does
        node.refresh([FolderSource(world.path)], "canary")
        if act is withdraw and "models/vision/digits/1.0" not in _vouched(world):
            continue
        act(world)
        node.refresh([FolderSource(world.path)], "canary")
        world.node(f"new-{cut}").refresh([FolderSource(world.path)], "canary")


def _vouched(world: World) -> set[str]:
    return set(RegistryFolder(world.path).current().targets.signed.targets)


def _count_writes(
    world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[World], None]
) -> int:
    written: list[Path] = []

    def write(path: Path, data: bytes) -> None:
        written.append(path)
        durable.write_whole(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_whole", write)
        act(world)
    return len(written)


def _cut_after(patch: pytest.MonkeyPatch, writes: int, torn: bool) -> None:
    """The write after so many does not come, or leaves half of its temporary file."""
    done: list[Path] = []

    def write(path: Path, data: bytes) -> None:
        if len(done) == writes:
            if torn:
                path.parent.mkdir(parents=True, exist_ok=True)
                (path.parent / f".{path.name}.1.new").write_bytes(data[: len(data) // 2])
            raise Cut
        done.append(path)
        durable.write_whole(path, data)

    patch.setattr(folder, "write_whole", write)


def test_two_publishers(world: World) -> None:
    with world.publisher(), pytest.raises(Busy, match="another process is changing the registry"):
        world.vouch(tag="2.0")


def test_a_registry_is_not_made_twice_and_none_is_made_of_nothing(world: World) -> None:
    with pytest.raises(AlreadyARegistry):
        world.init()
    with pytest.raises(NotARegistry, match="holds no registry"):
        RegistryFolder(world.base / "empty").current()


def test_a_damaged_registry_says_so(world: World) -> None:
    (world.metadata / "timestamp.json").write_text("{")
    with pytest.raises(NotARegistry, match=r"timestamp\.json is not metadata"):
        world.vouch(tag="2.0")


@pytest.mark.parametrize(("keys", "threshold"), [(1, 2), (3, 0)])
def test_a_threshold_that_cannot_be_met(tmp_path: Path, keys: int, threshold: int) -> None:
    with pytest.raises(BadRequest, match="root cannot have"):
        World(tmp_path).init(Plan({"root": keys, TARGETS: 1}, {"root": threshold, TARGETS: 1}))


def test_a_tag_does_not_change_its_meaning(world: World) -> None:
    world.vouch()
    with pytest.raises(BadRequest, match="is vouched for as sha256"):
        world.vouch(data=b"something else")


def test_only_what_is_vouched_for_may_be_desired(world: World) -> None:
    with pytest.raises(NotVouched, match="nobody vouches for vision/digits:9"):
        world.desire("vision/digits:9")
    with pytest.raises(NotVouched, match="not as sha256:0000"):
        world.desire(f"vision/digits:1.0@sha256:{'0' * 64}")
    with pytest.raises(BadRequest, match="has no tag"):
        world.desire("vision/digits")
    with pytest.raises(BadReference):
        world.desire("../digits:1.0")
    with pytest.raises(BadRequest, match="cannot name a model"):
        world.desire("..=vision/digits:1.0")


@pytest.mark.parametrize("ring", ["", "..", "a/b", "A", "x" * 65, ".a", "a\n"])
def test_a_ring_names_no_path(ring: str) -> None:
    with pytest.raises(BadRequest, match="cannot name a ring"):
        check_ring(ring)


def test_models_are_added_changed_and_removed(world: World) -> None:
    world.vouch(name="speech/words")
    world.vouch(tag="2.0")
    world.vouch(name="other/digits")
    world.desire("speech/words:1.0", "vision/digits:2.0", "copy=vision/digits:1.0")
    assert _ring(world) == (2, {"copy": "1.0", "digits": "2.0", "words": "1.0"})
    with world.publisher() as publisher:
        changes.desire(publisher, "canary", [], remove=["copy"])
        with pytest.raises(BadRequest, match="does not run 'copy'"):
            changes.desire(publisher, "canary", [], remove=["copy"])
        with pytest.raises(BadRequest, match="would both be served as digits"):
            changes.desire(publisher, "canary", ["vision/digits:1.0", "other/digits:1.0"])
        changes.desire(publisher, "canary", ["speech/words:1.0"], only=True)
    assert _ring(world) == (4, {"words": "1.0"})


def _ring(world: World) -> tuple[int, dict[str, str]]:
    desired = RegistryFolder(world.path).current().rings()["canary"]
    return desired.release, {model.name: model.tag for model in desired.models}


def test_a_package_is_taken_back(world: World) -> None:
    with world.publisher() as publisher:
        with pytest.raises(BadRequest, match="is what ring canary is to run"):
            changes.withdraw(publisher, "vision/digits:1.0")
        with pytest.raises(NotVouched):
            changes.withdraw(publisher, "vision/digits:7.0")
        changes.withdraw(publisher, "vision/digits:1.0", force=True)
    trusted = world.node().refresh([FolderSource(world.path)], "canary")
    assert trusted.desired("canary").models == ()
    with pytest.raises(NotVouched):
        trusted.vouched("vision/digits", "1.0")


def test_refresh_signs_only_what_expires(world: World) -> None:
    assert world.refresh(within=HOUR) == []
    world.clock.now += DAY
    assert world.refresh(within=HOUR) == [TIMESTAMP]
    world.clock.now += 6 * DAY
    assert world.refresh(within=DAY) == [TIMESTAMP, SNAPSHOT, DESIRED]
    world.node().refresh([FolderSource(world.path)], "canary")


def test_whoever_forgets_the_offline_keys_is_warned(world: World) -> None:
    current = RegistryFolder(world.path).current()
    assert offline_expiry(current, world.clock()) == []
    assert "root expires on" in offline_expiry(current, world.clock() + 340 * DAY)[0]
    assert "targets expired on" in offline_expiry(current, world.clock() + 366 * DAY)[1]


def test_several_packages_at_once(world: World) -> None:
    packages = [Package("a/b", str(n), digest_of(str(n).encode()), 1) for n in range(3)]
    with world.publisher() as publisher:
        outcomes = changes.vouch(publisher, packages)
    assert [(o.role, o.published) for o in outcomes] == [(TARGETS, True)]
    assert len(_vouched(world)) == 4


def test_keys_are_the_owners_alone_and_may_be_encrypted(tmp_path: Path) -> None:
    key = make_key("root", tmp_path / "keys", "secret")
    path = next((tmp_path / "keys").iterdir())
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert load_key(path, lambda _path: "secret").public_key.keyid == key.keyid
    with pytest.raises(BadKey, match="is encrypted"):
        load_key(path)
    with pytest.raises(BadKey, match="the passphrase is wrong"):
        load_key(path, lambda _path: "guess")
    path.write_text("no key")
    with pytest.raises(BadKey, match="not a private key in PEM"):
        load_key(path)

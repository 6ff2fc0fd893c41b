# SPDX-License-Identifier: Apache-2.0
"""What a node keeps outlives power cuts, damage and mangled metadata."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError

from registry.trust import durable
from registry.trust import state as state_module
from registry.trust.durable import locked
from registry.trust.errors import Busy, Rollback, TrustError
from registry.trust.folder import RegistryFolder
from registry.trust.names import ROLES
from registry.trust.sources import FolderSource
from registry.trust.state import Kept, State
from tests.registry.trust.conftest import World
from tests.registry.trust.forging import forge_raw


def prepared(world: World) -> Path:
    """A stale mirror; the node has seen more than it shows."""
    stale = world.copy("stale")
    world.vouch(tag="2.0")
    world.desire("vision/digits:2.0")
    world.node().refresh([FolderSource(world.path)], "canary")
    return stale


@pytest.mark.parametrize("name", ["trusted.json", "floors.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "zeros", "other"])
def test_torn_file_after_a_power_cut(world: World, name: str, damage: str) -> None:
    """One of the two files: the floors hold, and the next refresh heals it."""
    stale = prepared(world)
    path = world.base / "node" / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        torn = {
            "empty": b"",
            "half": data[: len(data) // 2],
            "zeros": bytes(len(data)),
            "other": data.replace(b'"number": 2', b'"number": 1'),
        }
        path.write_bytes(torn[damage])
    node = world.node()
    node.load()
    assert bool(node.damage) == (damage != "gone")
    with pytest.raises(Rollback):
        node.refresh([FolderSource(stale)], "canary")
    assert node.refresh([FolderSource(world.path)], "canary").desired("canary").release == 2
    node = world.node()
    assert node.load() is not None
    assert not node.damage


def test_both_files_torn_the_node_begins_with_the_root_that_it_was_shipped_with(
    world: World,
) -> None:
    prepared(world)
    for name in ("trusted.json", "floors.json"):
        (world.base / "node" / name).write_bytes(b"\0")
    node = world.node()
    assert node.load() is None
    assert len(node.damage) == 2
    assert node.refresh([FolderSource(world.path)], "canary").desired("canary").release == 2


def test_a_walk_that_was_killed_leaves_nothing_behind(world: World) -> None:
    folder = world.base / "node"
    (folder / "walk-killed" / "root_history").mkdir(parents=True)
    (folder / "walk-killed" / "root_history" / "1.root.json").write_text("{")
    (folder / "walk-killed" / "root.json").symlink_to("root_history/1.root.json")
    world.node().refresh([FolderSource(world.path)], "canary")
    assert sorted(p.name for p in folder.iterdir()) == ["floors.json", "lock", "trusted.json"]


@pytest.mark.parametrize("written", [0, 1])
def test_power_cut_at_every_write_of_the_node(
    world: World, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The old state or the new one is there, and the floors are those of it."""
    source, stale = FolderSource(world.path), world.copy("stale")
    world.node().refresh([source], "canary")
    world.vouch(tag="2.0")
    world.desire("vision/digits:2.0")
    done: list[Path] = []

    def write(path: Path, data: bytes, mode: int) -> None:
        if len(done) == written:
            raise InterruptedError("the power went")
        done.append(path)
        durable.write_whole(path, data, mode)

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "write_whole", write)
        with pytest.raises(InterruptedError):
            world.node().refresh([source], "canary")
    node = world.node()
    found = node.load()
    assert found is not None
    assert found.desired("canary").release == 1 + written
    if written:
        with pytest.raises(Rollback):
            node.refresh([FolderSource(stale)], "canary")
    assert node.refresh([source], "canary").desired("canary").release == 2


def test_a_copy_of_older_state_put_back_is_not_used(world: World) -> None:
    stale = world.copy("stale")
    world.node().refresh([FolderSource(stale)], "canary")
    old = (world.base / "node" / "trusted.json").read_bytes()
    world.vouch(tag="2.0")
    world.node().refresh([FolderSource(world.path)], "canary")
    (world.base / "node" / "trusted.json").write_bytes(old)
    node = world.node()
    assert node.load() is None
    assert "older than version" in node.damage[0]
    with pytest.raises(Rollback):
        node.refresh([FolderSource(stale)], "canary")
    node.refresh([FolderSource(world.path)], "canary")


def test_nothing_is_written_where_nothing_changed(world: World) -> None:
    node, source = world.node(), FolderSource(world.path)
    node.refresh([source], "canary")
    before = {p.name: p.stat().st_ino for p in (world.base / "node").iterdir()}
    world.clock.now += 60
    node.refresh([source], "canary")
    assert {p.name: p.stat().st_ino for p in (world.base / "node").iterdir()} == before


def test_two_processes_on_one_folder(world: World) -> None:
    lock = world.base / "node" / "lock"
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(lock, held, done))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(Busy, match="another process"):
            world.node().refresh([FolderSource(world.path)], "canary")
    finally:
        done.set()
        other.join()
    world.node().refresh([FolderSource(world.path)], "canary")


def _hold(path: Path, held: object, done: object) -> None:
    with locked(path, "it"):
        held.set()  # type: ignore[attr-defined]
        done.wait(30)  # type: ignore[attr-defined]


_ROLES = ["root", "timestamp", "snapshot", "targets", "desired", "document"]
_VALUES = [b"null", b"-1", b"1e999", b'"x"', b"[]", b"{}", b"true", b"[" * 2000, b"9" * 400, b"0.5"]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(role=st.sampled_from(_ROLES), data=st.data())
def test_mangled_metadata_is_refused_by_name_and_leaves_the_state_usable(
    world: World, role: str, data: st.DataObject
) -> None:
    """Cuts, flipped bits, and values of other types, in any file that a node reads."""
    if not (world.base / "mirror").exists():
        world.copy("mirror")
        world.vouch(tag="2.0")
        world.node().refresh([FolderSource(world.path)], "canary")
        world.copy("mirror2")
    mirror = world.base / "mirror2"
    path = _file_of(mirror, role)
    whole = path.read_bytes() if path.exists() else world.root.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "value", "noise"]))
    if kind == "cut":
        mangled = whole[:at]
    elif kind == "flip":
        mangled = whole[:at] + bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))])
        mangled += whole[at + 1 :]
    elif kind == "value":
        end = whole.find(b":", at) + 1
        mangled = whole[:end] + data.draw(st.sampled_from(_VALUES)) + whole[end + 1 :]
    else:
        mangled = data.draw(st.binary(max_size=200))
    existed = path.exists()
    path.write_bytes(mangled)
    try:
        for name in ("node", "fresh"):
            try:
                world.node(name).refresh([FolderSource(mirror)], "canary")
            except TrustError as error:
                assert error.remedy
    finally:
        if existed:
            path.write_bytes(whole)
        else:
            path.unlink()
    node = world.node()
    assert node.load() is not None
    assert node.refresh([FolderSource(world.path)], "canary").desired("canary").release == 1


_HOSTILE: list[Any] = [
    None,
    True,
    -1,
    10**30,
    "x",
    "\ud800",
    "",
    [],
    {},
    [[]],
    {"a": 1},
    "9" * 300,
    [1, "a"],
]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), role=st.sampled_from(ROLES))
def test_well_signed_nonsense_is_refused_by_name(
    world: World, role: str, data: st.DataObject
) -> None:
    """A thief of every key puts values of any type at any place."""
    keys = world.base / "every key"
    if not keys.exists():
        shutil.copytree(world.keys, keys)
        shutil.copytree(world.path / "keys", keys, dirs_exist_ok=True)
    mirror = world.copy("mirror")

    def change(signed: dict[str, Any]) -> None:
        place: Any = signed
        key: Any = data.draw(st.sampled_from(sorted(signed)))
        while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            names = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(names))
        if isinstance(place, dict) and data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = data.draw(st.sampled_from(_HOSTILE))

    try:
        try:
            forge_raw(mirror, role, change, keys)
        except (FormatError, UnicodeEncodeError, ValueError):
            return  # it cannot be signed at all
        for name in ("a", "b"):
            try:
                world.node(name).refresh([FolderSource(mirror)], "canary")
                world.node(name).load()
            except TrustError as error:
                assert error.remedy
            shutil.rmtree(world.base / name)
    finally:
        shutil.rmtree(mirror)


def _file_of(mirror: Path, role: str) -> Path:
    current = RegistryFolder(mirror).current()
    metadata = mirror / "tuf" / "metadata"
    if role == "document":
        return next((mirror / "tuf" / "targets" / "desired").glob("*.canary.json"))
    if role == "timestamp":
        return metadata / "timestamp.json"
    if role == "root":
        return metadata / "2.root.json"  # the next one, which is not there yet
    return metadata / f"{current.of(role).signed.version}.{role}.json"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_as_state(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("state")
    for name in ("trusted.json", "floors.json"):
        (folder / name).write_bytes(noise)
    state = State(folder)
    kept, floors = state.read()
    assert kept == Kept()
    assert not floors.roles
    assert len(state.damage) == 2

# SPDX-License-Identifier: Apache-2.0
"""Folders and links: at every step a model's link leads to the old package or to the new one."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edge_server.store.disk import Disk
from edge_server.sync.deployed import Deployments
from edge_server.sync.package import Package, parse_package
from registry.digest import digest_of, hex_of
from registry.errors import NotFound
from registry.package.modelpack import File
from registry.trust.desired import DesiredModel
from tests.edge_server.store.power_cut import Killed, PowerCutDisk, StepDisk


def package(blobs: Path, tag: str) -> Package:
    """Two files, their blobs in a folder by their hexadecimal digits."""
    blobs.mkdir(exist_ok=True)
    files = []
    for path in ("config.pbtxt", "1/model.onnx"):
        data = f"{tag} {path}".encode()
        (blobs / hex_of(digest_of(data))).write_bytes(data)
        files.append(File(path, digest_of(data), len(data), "model"))
    model = DesiredModel("m", "test/m", tag, digest_of(tag.encode()), 1)
    return Package(model, "cpu", (model.digest,), tuple(files))


def at(base: Path, disk: Disk) -> Deployments:
    """The deployments of a node whose blobs are in `base`."""

    def blob(digest: str) -> Path | None:
        path = base / "blobs" / hex_of(digest)
        return path if path.exists() else None

    return Deployments(base / "state", blob, disk)


def served(deployments: Deployments) -> str:
    """The tag of what a server would load; every file of it must be there and whole."""
    current = deployments.current("m")
    if current is None:
        assert deployments.names() == []
        return ""
    assert current.folder.is_dir()
    tag = current.package.model.tag
    for file in current.package.files:
        data = (deployments.models / "m" / file.path).read_bytes()
        assert data == f"{tag} {file.path}".encode()
    return tag


def test_switch_and_back(tmp_path: Path) -> None:
    one, two = package(tmp_path / "blobs", "1"), package(tmp_path / "blobs", "2")
    found = at(tmp_path, Disk())
    assert served(found) == "" and found.current("m") is None
    with pytest.raises(NotFound, match="no package of 'm' before"):
        found.roll_back("m")
    for each in (one, two):
        found.switch(found.deploy(each))
    found.switch(found.deploy(two))  # again: nothing happens
    assert served(found) == "2"
    before = found.previous("m")
    assert before is not None and before.package == one
    assert found.roll_back("m").package == one and served(found) == "1"
    assert found.previous("m") is None
    found.clean()
    assert [p.name for p in (tmp_path / "state/deployed/m").iterdir()] == [
        hex_of(one.model.digest)[:16]
    ]
    found.withdraw("m")
    found.clean()
    assert list((tmp_path / "state/deployed/m").iterdir()) == []


def test_a_blob_that_is_gone_is_named(tmp_path: Path) -> None:
    one = package(tmp_path / "blobs", "1")
    (tmp_path / "blobs" / hex_of(one.files[1].digest)).unlink()
    with pytest.raises(NotFound, match=one.files[1].digest):
        at(tmp_path, Disk()).deploy(one)


def test_a_damaged_folder_is_not_taken_for_a_package(tmp_path: Path) -> None:
    one = package(tmp_path / "blobs", "1")
    found = at(tmp_path, Disk())
    first = found.deploy(one)
    (first.folder / ".package.json").write_text("{")
    second = found.deploy(one)
    assert second.folder != first.folder and found.deploy(one) == second
    found.switch(second)
    found.clean()
    assert not first.folder.exists() and served(found) == "1"


def test_files_follow_a_blob_that_was_repaired(tmp_path: Path) -> None:
    one = package(tmp_path / "blobs", "1")
    found = at(tmp_path, Disk())
    found.switch(found.deploy(one))
    assert found.mend() == []
    blob = tmp_path / "blobs" / hex_of(one.files[0].digest)
    data = blob.read_bytes()
    blob.write_bytes(b"x" * len(data))  # the medium lost it, for both names
    blob.unlink()
    blob.write_bytes(data)
    assert found.mend() == ["m"] and served(found) == "1"


def change(base: Path, disk: Disk, wanted: Package) -> None:
    """What a node does for a new release."""
    found = at(base, disk)
    found.switch(found.deploy(wanted))
    found.clean()


def interrupted(base: Path, wanted: Package, disk: StepDisk, after: Callable[[], None]) -> None:
    """Switch to the last package, die at the disk's step, come back, finish."""
    with pytest.raises(Killed):
        change(base, disk, wanted)
    after()
    assert served(at(base, disk)) in {"1", "2"}
    change(base, disk, wanted)
    assert served(at(base, disk)) == "2"


def prepared(base: Path) -> Package:
    """A node that served package 0 and serves 1; what it is to serve."""
    base.mkdir()
    packages = [package(base / "blobs", tag) for tag in ("0", "1", "2")]
    for each in packages[:-1]:
        change(base, Disk(), each)
    return packages[-1]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Operations of one change."""
    base = tmp_path_factory.mktemp("counted") / "node"
    wanted, disk = prepared(base), StepDisk()
    change(base, disk, wanted)
    return disk.steps


def test_killed_at_each_step(tmp_path: Path, steps: int) -> None:
    for step in range(1, steps + 1):
        base, disk = tmp_path / str(step), StepDisk(step)
        interrupted(base, prepared(base), disk, disk.restart)


def test_power_cut_at_each_step(tmp_path: Path, steps: int) -> None:
    for step in range(1, steps + 1):
        for seed in range(3):
            base = tmp_path / f"{step}-{seed}"
            wanted = prepared(base)
            disk = PowerCutDisk(base, step)
            rng = random.Random(1000 * step + seed)
            interrupted(base, wanted, disk, partial(disk.cut, rng))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"format": 1}', b"\xff"])
def test_a_record_that_does_not_read(data: bytes) -> None:
    assert parse_package(data) is None


def test_a_record_with_a_path_that_leaves_its_folder(tmp_path: Path) -> None:
    one = package(tmp_path / "blobs", "1")
    assert parse_package(one.encode()) == one
    assert parse_package(one.encode().replace(b"1/model.onnx", b"../../etc/cron")) is None

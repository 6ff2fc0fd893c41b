# SPDX-License-Identifier: Apache-2.0
"""A USB stick: written from a registry or a layout, read by a node that has no network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.errors import NotFound, WrongDigest
from registry.oci import Index, Manifest, describe
from registry.package.layout import Layout
from registry.trust import changes
from registry.trust.errors import Freeze, NotDesired
from registry.trust.export import Exported, export
from registry.trust.folder import RegistryFolder
from registry.trust.packages import package_in_layout
from registry.trust.sources import FolderSource
from tests.registry.trust.conftest import DAY, World


@pytest.fixture
def layout(world: World) -> Layout:
    """A package of two variants with a shared blob, vouched for and desired by two rings."""
    layout = Layout(world.base / "layout", create=True)
    shared = layout.add(b"m" * 5000, "application/octet-stream")
    entries = []
    for variant in ("card", "cpu"):
        config = layout.add(variant.encode(), "application/json")
        entries.append(layout.add_document(Manifest(config, (shared,))))
    layout.tag("3.0", layout.add_document(Index(tuple(entries))))
    package = package_in_layout("vision/digits:3.0", layout.path)
    with world.publisher() as publisher:
        changes.vouch(publisher, [package])
        changes.desire(publisher, "canary", ["vision/digits:3.0"], only=True)
        changes.desire(publisher, "north", ["vision/digits:3.0"])
    return layout


def write(world: World, layout: Layout | None, *rings: str) -> Exported:
    return export(RegistryFolder(world.path), world.base / "usb", rings, layout)


def test_usb_import(world: World, layout: Layout) -> None:
    found = write(world, layout, "canary")
    assert (found.rings, found.blobs) == (("canary",), 6)
    shutil.rmtree(world.path / "tuf" / "targets")  # the node has the stick alone
    trusted = world.node().refresh([FolderSource(world.base / "usb")], "canary")
    model = trusted.desired("canary").models[0]
    stick = Layout(world.base / "usb")
    assert digest_of(stick.read(model.digest, 1 << 20)) == model.digest
    entry = stick.resolve("vision.digits-3.0")
    for blob in stick.reachable([entry]).values():
        stick.check_blob(blob)


def test_the_stick_holds_no_keys_and_nothing_that_waits(world: World, layout: Layout) -> None:
    write(world, layout)
    names = {path.name for path in (world.base / "usb").iterdir()}
    assert names == {"tuf", "blobs", "index.json", "oci-layout"}
    assert {path.name for path in (world.base / "usb" / "tuf").iterdir()} == {"metadata", "targets"}


def test_an_export_that_broke_off_goes_on(world: World, layout: Layout) -> None:
    whole = write(world, layout)
    assert whole.copied > 5000
    assert write(world, layout).copied == 0
    blob = max((world.base / "usb" / "blobs" / "sha256").iterdir(), key=lambda p: p.stat().st_size)
    blob.write_bytes(b"half")
    assert write(world, layout).copied == 5000


def test_metadata_alone_and_a_ring_that_is_not_there(world: World, layout: Layout) -> None:
    assert write(world, None).blobs == 0
    assert not (world.base / "usb" / "blobs").exists()
    world.node().refresh([FolderSource(world.base / "usb")], "north")
    with pytest.raises(NotDesired, match="nothing is said of what ring south"):
        write(world, None, "south")


def test_a_stick_that_is_out_of_date(world: World, layout: Layout) -> None:
    write(world, layout)
    world.clock.now += DAY + 1
    with pytest.raises(Freeze):
        world.node().refresh([FolderSource(world.base / "usb")], "canary")


def test_a_package_is_missing_or_damaged(world: World, layout: Layout) -> None:
    blob = max((layout.path / "blobs" / "sha256").iterdir(), key=lambda p: p.stat().st_size)
    blob.write_bytes(b"n" * 5000)
    with pytest.raises(WrongDigest, match="is damaged"):
        write(world, layout)
    assert not (world.base / "usb" / "tuf").exists()  # no metadata without its packages
    blob.unlink()
    with pytest.raises(NotFound, match="is not in"):
        write(world, layout)


def test_a_fat_stick(world: World, layout: Layout, tmp_path: Path) -> None:
    """FAT knows no modes, no links, and no two names that differ in case."""
    image, mount = tmp_path / "stick.img", tmp_path / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    mkfs = shutil.which("mkfs.vfat", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if mkfs is None:
        pytest.skip("mkfs.vfat is not installed")
    subprocess.run([mkfs, str(image)], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(mount)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        export(RegistryFolder(world.path), mount, [], layout)
        trusted = world.node().refresh([FolderSource(mount)], "canary")
        assert trusted.desired("canary").models[0].tag == "3.0"
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_descriptors_agree(layout: Layout) -> None:
    """What is signed is the index, by its digest and its bytes."""
    entry = layout.resolve("3.0")
    package = package_in_layout("vision/digits:3.0", layout.path)
    assert (package.digest, package.size) == (entry.digest, entry.size)
    described, _ = describe(layout.index)
    assert described.digest != package.digest

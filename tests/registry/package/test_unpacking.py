# SPDX-License-Identifier: Apache-2.0
"""Files into a folder: never outside it, whole or not at all."""

import os
from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.errors import WrongDigest, WrongSize
from registry.package.errors import UnsafePath
from registry.package.modelpack import File, Role
from registry.package.unpacking import place


def blobs(tmp_path: Path, **content: bytes) -> tuple[list[File], Path]:
    """Files `a`, `1_b` for the path 1/b and so on, and the folder of their blobs."""
    folder = tmp_path / "blobs"
    folder.mkdir()
    files = []
    for name, data in content.items():
        path = name.removeprefix("v").replace("_", "/")
        files.append(File(path, digest_of(data), len(data), Role.MODEL))
        (folder / digest_of(data)).write_bytes(data)
    return files, folder


@pytest.mark.parametrize("link", [False, True])
def test_files_appear_with_their_bytes(tmp_path: Path, link: bool) -> None:
    files, folder = blobs(tmp_path, v1_model=b"m", config=b"c", v1_a_b=b"x" * (3 << 20))
    target, told = tmp_path / "deep" / "model", list[int]()
    for _ in range(2):  # again over what is there
        place(files, folder.joinpath, target, link=link, tell=told.append)
    found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert found == {"1/model": b"m", "config": b"c", "1/a/b": b"x" * (3 << 20)}
    assert sum(told) == (0 if link else 2 * (2 + (3 << 20)))
    same = (target / "config").samefile(folder / digest_of(b"c"))
    assert same == link


def test_a_file_there_is_replaced_and_not_written_to(tmp_path: Path) -> None:
    files, folder = blobs(tmp_path, config=b"new")
    target = tmp_path / "model"
    target.mkdir()
    (target / "config").write_bytes(b"old")
    with (target / "config").open("rb") as reader:
        place(files, folder.joinpath, target)
        assert reader.read() == b"old"
    assert (target / "config").read_bytes() == b"new"


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x"])
def test_path_traversal(tmp_path: Path, path: str) -> None:
    files, folder = blobs(tmp_path, a=b"a")
    with pytest.raises(UnsafePath):
        place([File(path, files[0].digest, 1, Role.MODEL)], folder.joinpath, tmp_path / "model")
    assert not (tmp_path / "x").exists()


def test_a_link_to_a_folder_outside_is_not_followed(tmp_path: Path) -> None:
    files, folder = blobs(tmp_path, v1_model=b"m")
    outside, target = tmp_path / "outside", tmp_path / "model"
    outside.mkdir()
    target.mkdir()
    (target / "1").symlink_to(outside)
    with pytest.raises(UnsafePath, match="'1' is there and is no folder"):
        place(files, folder.joinpath, target)
    assert not list(outside.iterdir())


def test_a_link_to_a_file_outside_is_replaced(tmp_path: Path) -> None:
    files, folder = blobs(tmp_path, config=b"new")
    target, outside = tmp_path / "model", tmp_path / "outside"
    target.mkdir()
    outside.write_bytes(b"theirs")
    (target / "config").symlink_to(outside)
    place(files, folder.joinpath, target)
    assert outside.read_bytes() == b"theirs"
    assert (target / "config").read_bytes() == b"new"


def test_a_file_where_a_folder_must_be(tmp_path: Path) -> None:
    files, folder = blobs(tmp_path, v1_model=b"m")
    target = tmp_path / "model"
    target.mkdir()
    (target / "1").write_bytes(b"")
    with pytest.raises(UnsafePath):
        place(files, folder.joinpath, target)


@pytest.mark.parametrize(
    ("data", "error"), [(b"wrong", WrongDigest), (b"righ", WrongSize), (b"right" * 9, WrongSize)]
)
def test_a_blob_of_other_bytes_leaves_nothing(
    tmp_path: Path, data: bytes, error: type[Exception]
) -> None:
    files, folder = blobs(tmp_path, v1_model=b"right")
    (folder / files[0].digest).write_bytes(data)
    target = tmp_path / "model"
    with pytest.raises(error):
        place(files, folder.joinpath, target)
    assert not [p for p in target.rglob("*") if p.is_file()]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, folder = blobs(tmp_path, config=b"new")
    target = tmp_path / "model"
    target.mkdir()
    (target / "config").write_bytes(b"old")

    def full(_file: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        place(files, folder.joinpath, target)
    assert [(p.name, p.read_bytes()) for p in target.iterdir()] == [("config", b"old")]

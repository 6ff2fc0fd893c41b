# SPDX-License-Identifier: Apache-2.0
"""A release takes a model's place as a whole: accepted and made last first, then served."""

import errno
from pathlib import Path

import pytest

from edge_server.app import Server
from edge_server.engines.engine import ModelLoadError
from edge_server.model_files import Override
from edge_server.repository import Release
from edge_server.served import Loaded
from edge_server.status import RequestError
from tests.edge_server import onnx_models as models
from tests.edge_server.running import Caller, running
from tests.edge_server.test_repository import factor, rows


def put(folder: Path, value: float, versions: tuple[int, ...] = (1,)) -> Path:
    """A folder of the model `scale`, elsewhere than in the repository."""
    for version in versions:
        models.put(folder, "scale", models.scale(value), "version_policy { all {} }", version)
    return folder / "scale"


async def replace(
    server: Server, folder: Path, accept: list[int] | None = None, commit: list[str] | None = None
) -> None:
    """Put `folder` in the place of `scale`, writing down what was asked."""
    asked, done = [] if accept is None else accept, [] if commit is None else commit
    release = Release(folder, lambda v, _: asked.append(v), lambda: done.append("commit"))
    await server.repository.load("scale", Override(), release)


async def test_a_release_is_accepted_then_made_last_then_served(tmp_path: Path) -> None:
    put(tmp_path / "root", 2)
    new = put(tmp_path / "new", 3, (1, 2))
    async with running(tmp_path / "root") as (server, call):
        asked: list[int] = []
        done: list[str] = []
        await replace(server, new, asked, done)
        assert asked == [1, 2] and done == ["commit"]
        assert await factor(call) == 3
        assert {row[1] for row in await rows(call)} == {"1", "2"}


async def refused(
    server: Server, release: Release, call: Caller, kind: type[Exception] = RequestError
) -> str:
    """What is said to a release that is not taken; the old one is still served."""
    with pytest.raises(kind) as error:
        await server.repository.load("scale", Override(), release)
    assert await factor(call) == 2
    (row,) = (await call("RepositoryIndex")).models
    assert row.state == "READY" and row.reason.startswith("not replaced")
    return str(error.value)


async def test_one_version_that_is_not_accepted_leaves_the_old_release(tmp_path: Path) -> None:
    put(tmp_path / "root", 2)
    new = put(tmp_path / "new", 3, (1, 2))

    def accept(version: int, _loaded: Loaded) -> None:
        if version == 2:
            raise ModelLoadError("golden vector 0: 3 of 4 values differ")

    async with running(tmp_path / "root") as (server, call):
        release = Release(new, accept, lambda: pytest.fail("must not become the current one"))
        assert "golden vector 0" in await refused(server, release, call)


async def test_a_commit_that_fails_leaves_the_old_release(tmp_path: Path) -> None:
    put(tmp_path / "root", 2)
    new = put(tmp_path / "new", 3)

    def commit() -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    async with running(tmp_path / "root") as (server, call):
        release = Release(new, lambda _version, _loaded: None, commit)
        assert "no space left" in await refused(server, release, call, OSError)


async def test_a_first_release_that_is_not_accepted_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()

    def accept(_version: int, _loaded: Loaded) -> None:
        raise ModelLoadError("golden vector 0 differs")

    async with running(tmp_path / "root") as (server, call):
        with pytest.raises(RequestError):
            release = Release(put(tmp_path / "new", 3), accept, lambda: None)
            await server.repository.load("scale", Override(), release)
        (row,) = (await call("RepositoryIndex")).models
        assert row.state == "UNAVAILABLE" and "golden vector 0" in row.reason


async def test_a_link_that_is_turned_leaves_what_is_served_its_files(tmp_path: Path) -> None:
    old, new = put(tmp_path / "old", 2), put(tmp_path / "new", 3)
    root = tmp_path / "root"
    root.mkdir()
    (root / "scale").symlink_to(old)
    async with running(root) as (server, call):
        (served,) = server.repository.versions("scale")
        (root / "scale").unlink()
        (root / "scale").symlink_to(new)
        assert served.path == old / "1" / "model.onnx" and await factor(call) == 2
        await server.repository.load("scale", Override())
        assert await factor(call) == 3

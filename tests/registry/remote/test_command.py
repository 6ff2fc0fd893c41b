# SPDX-License-Identifier: Apache-2.0
"""The commands' options: who asks, which way, and what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import tepi
from registry import oci
from registry.digest import digest_of
from registry.errors import NotFound, WrongSize
from registry.package.layout import split_tag
from registry.remote.bars import Bars
from registry.remote.client import Remote
from registry.remote.command import list_models, pull, push
from registry.remote.credentials import Credentials
from registry.remote.listing import packages
from registry.remote.publish import plan
from tests.registry.remote.package import make_package
from tests.registry.remote.scripted_server import Answer, Asked, scripted

ASK = Answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
EMPTY_LIST = Answer(200, b'{"repositories":[]}')


def closed(asked: Asked) -> Answer:
    """A registry for Ann alone, without packages."""
    return EMPTY_LIST if asked.authorization == Credentials("ann", "pw").basic else ASK


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("DOCKER_CONFIG", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)


def auth_file(path: Path, address: str, user: str = "ann", password: str = "pw") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pair = Credentials(user, password).basic.removeprefix("Basic ")
    path.write_text(json.dumps({"auths": {address: {"auth": pair}}}))
    return path


@pytest.mark.parametrize(
    ("place", "variable"),
    [
        ("home/.docker/config.json", ""),
        ("docker/config.json", "DOCKER_CONFIG=docker"),
        ("run/containers/auth.json", "XDG_RUNTIME_DIR=run"),
        ("some.json", "REGISTRY_AUTH_FILE=some.json"),
    ],
)
def test_credentials_are_found_where_docker_and_podman_keep_them(
    place: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        name, _, value = variable.partition("=")
        monkeypatch.setenv(name, str(tmp_path / value))
    with scripted(closed) as server:
        auth_file(tmp_path / place, server.address)
        assert tepi.main(["model", "list", server.address]) == 0


def test_the_file_that_is_named_is_the_only_one_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(closed) as server:
        auth_file(tmp_path / "home/.docker/config.json", server.address)
        other = auth_file(tmp_path / "other.json", "elsewhere")
        assert tepi.main(["model", "list", server.address, "--auth-file", str(other)]) == 1
    assert "none for it" in capsys.readouterr().err


def test_a_password_from_standard_input() -> None:
    with scripted(closed) as server:
        words = [server.address, "--username", "ann", "--password-stdin", "--json"]
        done = CliRunner().invoke(list_models, words, input="pw\n")
        assert (done.exit_code, done.output) == (0, "[]\n")


@pytest.mark.parametrize("words", [["--username", "ann"], ["--password-stdin"]])
def test_a_name_without_a_password_is_wrong_usage(words: list[str]) -> None:
    done = CliRunner().invoke(list_models, ["localhost:1", *words], input="pw\n")
    assert done.exit_code == 2 and "go together" in done.output


def test_plain_http_to_another_machine_is_refused_unless_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["model", "list", "reg.invalid", "--timeout", "1"]
    assert tepi.main(words) == 1
    assert "https://reg.invalid" in capsys.readouterr().err
    assert tepi.main([*words, "--insecure"]) == 1
    assert "http://reg.invalid" in capsys.readouterr().err


@pytest.mark.parametrize("command", [push, pull, list_models])
def test_help_shows_examples_and_every_option(command: click.Command) -> None:
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0 and "Examples:" in done.output
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help


@pytest.mark.parametrize(
    "reference", ["digits", "reg/Digits:1", "reg/a:1@sha256:x", "reg/a@sha256:" + "0" * 64]
)
def test_what_cannot_be_pushed_to(reference: str, tmp_path: Path) -> None:
    make_package(tmp_path / "one")
    assert tepi.main(["model", "push", str(tmp_path / "one"), reference]) in (1, 2)


def test_a_layout_and_its_tag(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert split_tag(f"{tmp_path}/x:1.0") == (tmp_path / "x", "1.0")
    assert split_tag(f"{tmp_path}/x") == (tmp_path / "x", "")
    assert split_tag(f"{tmp_path}/a:b") == (tmp_path / "a:b", "")
    assert split_tag(f"{tmp_path}/a:c/x") == (tmp_path / "a:c/x", "")


def test_a_package_with_a_blob_missing_or_cut_is_not_pushed(tmp_path: Path) -> None:
    layout = make_package(tmp_path / "one")
    root = layout.resolve("1.0")
    blob = next(iter(plan(layout, root).blobs.values()))
    layout.blob_path(blob.digest).write_bytes(b"cut")
    with pytest.raises(WrongSize, match=blob.digest):
        plan(layout, root)
    layout.blob_path(blob.digest).unlink()
    with pytest.raises(NotFound, match=blob.digest):
        plan(layout, root)


def test_a_delta_of_a_delta_and_one_package_of_two(tmp_path: Path) -> None:
    layout = make_package(tmp_path / "one")
    first = layout.resolve("1.0")
    make_package(tmp_path / "one", "2.0", seed=2)
    empty = layout.add(oci.EMPTY_JSON, oci.EMPTY)
    below = next(iter(layout.referrers(first.digest)))[0]
    signature = layout.add_document(oci.Manifest(empty, (), "x/signature", subject=below))
    layout.hold(signature)
    one, two = plan(layout, first), plan(layout, layout.resolve("2.0"))
    assert signature.digest in one.documents and signature.digest not in two.documents
    assert not set(one.documents) & set(two.documents)
    assert list(one.documents).index(below.digest) < list(one.documents).index(signature.digest)


def test_a_list_says_what_it_cannot_read() -> None:
    docker = (
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}'
    )
    gone = oci.Index((oci.Descriptor(oci.MANIFEST, digest_of(b"gone"), 4),)).encode()
    found = {
        "docker": Answer(200, docker, {"Content-Type": "application/x"}),
        "half": Answer(200, gone),
    }

    def serve(asked: Asked) -> Answer:
        target = asked.path.rpartition("/")[2]
        if target.startswith("list"):
            return Answer(200, json.dumps({"tags": ["docker", "half", "deleted"]}).encode())
        return found.get(target, Answer(404))

    with scripted(serve) as server, Remote(server.address) as remote:
        rows = packages(remote, "a")
    assert [(row.tag, row.size, row.note) for row in rows] == [
        ("docker", -1, "application/x"),
        ("half", -1, "incomplete"),
    ]


def test_bars_count_what_is_done_and_what_is_sent_again() -> None:
    with Bars() as bars:
        bars.expect(300)
        bars.begin("a", "model", 100)
        bars.begin("b", "program", 200)
        bars.at("a", 60)
        bars.at("a", 0)
        bars.at("a", 100)
        bars.at("b", 50)
        assert bars.completed == 150
        bars.end("a", "sent")
        assert bars.completed == 150
        bars.end("b", "exists")
        assert bars.completed == 300


def test_the_layout_is_not_made_where_there_is_nothing_to_pull(tmp_path: Path) -> None:
    with scripted(lambda _asked: Answer(404)) as server:
        words = ["model", "pull", f"{server.address}/a:1", "-o", str(tmp_path / "copy")]
        assert tepi.main(words) == 1
    assert not (tmp_path / "copy").exists()

# SPDX-License-Identifier: Apache-2.0
"""Against Debian's docker-registry, for anyone, for one account and with tokens; and beside skopeo,
which reads what is pushed and writes what is pulled."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import tepi
from registry import oci
from registry.digest import digest_of
from registry.package.layout import Layout
from registry.remote import errors
from registry.remote.backoff import Retry
from registry.remote.client import Remote
from registry.remote.credentials import Credentials
from tests.e2e.docker_registry import PASSWORD, USER, DockerRegistry, docker_registry, skopeo
from tests.registry.remote import token_server
from tests.registry.remote.package import BLOCK_INDEX, DELTA, make_package

DATA = random.Random(3).randbytes(1_000_000)
DIGEST = digest_of(DATA)


@pytest.fixture(scope="module")
def anyone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry for anyone, shared: each test has a repository of its own."""
    with docker_registry(tmp_path_factory.mktemp("anyone")) as registry:
        yield registry


def held(layout: Layout) -> dict[str, oci.Descriptor]:
    """All that a layout's index leads to."""
    return layout.reachable(layout.index.manifests)


def run(*words: str) -> None:
    """A `tepi model` command that must succeed."""
    assert tepi.main(["model", *words]) == 0


def test_blobs_in_chunks_ranges_and_mounts(anyone: DockerRegistry) -> None:
    with Remote(anyone.address) as remote:
        assert not remote.has_blob("blobs/a", DIGEST)
        assert remote.push_blob("blobs/a", DIGEST, DATA, chunk=300_000) == "sent"
        assert remote.push_blob("blobs/a", DIGEST, DATA) == "exists"
        assert remote.push_blob("blobs/b", DIGEST, DATA, mount_from="blobs/a") == "mounted"
        assert remote.head_blob("blobs/b", DIGEST) == len(DATA)
        with remote.blob("blobs/b", DIGEST, 500, 700) as blob:
            assert (blob.status, blob.start, blob.total) == (206, 500, len(DATA))
            assert blob.read(1000) == DATA[500:700]
        with pytest.raises(errors.RangeRefused) as caught:
            remote.open_blob("blobs/b", DIGEST, len(DATA))
        assert caught.value.total == len(DATA)
        with pytest.raises(errors.Missing):
            remote.open_blob("blobs/b", digest_of(b"nothing"))


def test_a_session_interrupted_between_chunks_goes_on(anyone: DockerRegistry) -> None:
    offsets: list[int] = []

    def tell(offset: int) -> None:
        offsets.append(offset)
        if offset > 400_000 and len(offsets) < 5:
            raise errors.Truncated("the test cuts here")

    with Remote(anyone.address) as remote:
        pause = Retry(attempts=3, sleep=lambda _s: None)
        remote.push_blob("cut", DIGEST, DATA, chunk=300_000, tell=tell, retry=pause)
        assert remote.read_blob("cut", DIGEST, 1 << 21) == DATA


def test_a_package_and_its_referrers_there_and_back(
    anyone: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_package(tmp_path / "one.oci")
    root = layout.resolve("1.0")
    run("push", str(layout.path), f"{anyone.address}/there/back:1.0")
    assert capsys.readouterr().out.splitlines()[-1] == f"{anyone.address}/there/back@{root.digest}"
    with Remote(anyone.address) as remote:
        assert remote.tags("there/back").count("1.0") == 1
        kinds = [e.artifact_type for e in remote.referrers("there/back", root.digest).manifests]
        assert kinds == [DELTA]
        cpu = layout.manifest(root).manifests[1].digest  # type: ignore[union-attr]
        assert len(remote.referrers("there/back", cpu, BLOCK_INDEX).manifests) == 1
    run("pull", f"{anyone.address}/there/back:1.0", "-o", str(tmp_path / "two"), "--referrers")
    copy = Layout(tmp_path / "two")
    assert copy.resolve("1.0").digest == root.digest
    assert held(copy).keys() == held(layout).keys()
    for blob in held(copy).values():
        copy.check_blob(blob)
    assert not list(copy.path.rglob(".partial-*"))


def test_nothing_is_sent_twice(
    anyone: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_package(tmp_path / "one.oci")
    where = f"{anyone.address}/twice:1.0"
    run("push", str(tmp_path / "one.oci"), where, "--json")
    first = json.loads(capsys.readouterr().out)
    before = len(anyone.requests("/twice/"))
    run("push", str(tmp_path / "one.oci"), where, "--json")
    second = json.loads(capsys.readouterr().out)
    assert first["sent"] == 8 and first["existing"] == 0 and first["referrers"] == 2
    assert second["sent"] == second["documents"] == second["sent_bytes"] == 0
    lines = anyone.requests("/twice/")[before:]
    assert not [line for line in lines if '"POST' in line or '"PATCH' in line]
    assert len([line for line in lines if '"PUT' in line]) == 1  # the tag


def test_the_tag_comes_last(anyone: DockerRegistry, tmp_path: Path) -> None:
    make_package(tmp_path / "one.oci")
    run("push", f"{tmp_path / 'one.oci'}:1.0", f"{anyone.address}/last:2.0")
    writes = [line for line in anyone.requests("/last/") if '"PUT' in line]
    assert "manifests/2.0" in writes[-1]
    kinds = ["manifests" in line for line in writes]
    assert kinds == sorted(kinds)  # every blob before every manifest


def test_one_variant_is_fetched_alone(
    anyone: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_package(tmp_path / "one.oci")
    run("push", str(layout.path), f"{anyone.address}/variant:1.0")
    capsys.readouterr()
    where = ["-o", str(tmp_path / "cpu"), "--json"]
    run("pull", f"{anyone.address}/variant:1.0", *where, "--variant", "cpu")
    done = json.loads(capsys.readouterr().out)
    assert done["received"] == 3 and done["kept"] == 0
    copy = Layout(tmp_path / "cpu")
    assert len(held(copy)) == 4
    run("pull", f"{anyone.address}/variant:1.0", *where)
    done = json.loads(capsys.readouterr().out)
    assert done["received"] == 2 and done["kept"] == 3  # the program, another configuration
    assert tepi.main(["model", "pull", f"{anyone.address}/variant:1.0", *where, "--variant", "x"])
    assert "it has: card, cpu" in capsys.readouterr().err


def test_skopeo_reads_what_was_pushed_and_the_digests_are_equal(
    anyone: DockerRegistry, tmp_path: Path
) -> None:
    layout = make_package(tmp_path / "one.oci")
    root = layout.resolve("1.0")
    run("push", str(layout.path), f"{anyone.address}/skopeo/reads:1.0")
    source = f"docker://{anyone.address}/skopeo/reads:1.0"
    raw = skopeo("inspect", "--raw", "--tls-verify=false", source)
    assert digest_of(raw.encode()) == root.digest
    target = f"oci:{tmp_path / 'copy'}:1.0"
    skopeo("copy", "-q", "--all", "--src-tls-verify=false", source, target)
    copy = Layout(tmp_path / "copy")
    assert copy.resolve("1.0").digest == root.digest
    for blob in held(copy).values():
        copy.check_blob(blob)


def test_skopeo_writes_what_is_pulled_and_the_digests_are_equal(
    anyone: DockerRegistry, tmp_path: Path
) -> None:
    layout = make_package(tmp_path / "one.oci")
    root = layout.resolve("1.0")
    target = f"docker://{anyone.address}/skopeo/writes:1.0"
    source = f"oci:{layout.path}:1.0"
    skopeo("copy", "-q", "--all", "--dest-tls-verify=false", source, target)
    run("pull", f"{anyone.address}/skopeo/writes:1.0", "-o", str(tmp_path / "copy"))
    copy = Layout(tmp_path / "copy")
    assert copy.resolve("1.0").digest == root.digest
    for blob in held(copy).values():
        copy.check_blob(blob)


def test_the_list_of_a_registry(
    anyone: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_package(tmp_path / "one.oci")
    root = layout.resolve("1.0")
    for tag in ("1.0", "latest"):
        run("push", str(layout.path), f"{anyone.address}/listed:{tag}")
    capsys.readouterr()
    run("list", f"{anyone.address}/listed", "--json")
    rows = json.loads(capsys.readouterr().out)
    assert [row["tag"] for row in rows] == ["1.0", "latest"]
    assert {row["digest"] for row in rows} == {root.digest}
    assert rows[0]["variants"] == ["card", "cpu"] and rows[0]["size"] > 350_000
    run("list", anyone.address)
    out = capsys.readouterr().out
    assert "listed" in out and root.digest in out and "sha256-" not in out
    assert tepi.main(["model", "list", f"{anyone.address}/nowhere"]) == 1


# Accounts


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry that asks for USER and PASSWORD."""
    with docker_registry(tmp_path_factory.mktemp("closed"), password=True) as registry:
        yield registry


def test_a_password_of_dockers_file(
    closed: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_package(tmp_path / "one.oci")
    file = tmp_path / "auth.json"
    basic = Credentials(USER, PASSWORD).basic.removeprefix("Basic ")
    file.write_text(json.dumps({"auths": {closed.address: {"auth": basic}}}))
    where = f"{closed.address}/secret:1.0"
    run("push", str(tmp_path / "one.oci"), where, "--auth-file", str(file))
    run("pull", where, "-o", str(tmp_path / "copy"), "--auth-file", str(file))
    assert PASSWORD not in "".join(capsys.readouterr())


def test_bad_credentials_and_none_name_the_options(
    closed: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_package(tmp_path / "one.oci")
    file = tmp_path / "auth.json"
    wrong = Credentials(USER, "wrong").basic.removeprefix("Basic ")
    for auths, reason in (({closed.address: {"auth": wrong}}, "does not take"), ({}, "none for")):
        file.write_text(json.dumps({"auths": auths}))
        words = ["push", str(tmp_path / "one.oci"), f"{closed.address}/secret2:1.0"]
        assert tepi.main(["model", *words, "--auth-file", str(file)]) == 1
        said = capsys.readouterr().err
        assert reason in said and "--password-stdin" in said and "--auth-file" in said
        assert "wrong" not in said


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[token_server.TokenServer]:
    """A token server that docker-registry is told to believe."""
    with token_server.token_server(tmp_path / "tokens") as found:
        yield found


def test_tokens_of_a_token_server(tokens: token_server.TokenServer, tmp_path: Path) -> None:
    me = Credentials(token_server.USER, token_server.PASSWORD)
    with docker_registry(tmp_path / "registry", token=tokens.settings) as registry:
        with Remote(registry.address, me) as remote:
            remote.push_blob("tokens/a", DIGEST, DATA, chunk=300_000)
            remote.push_blob("tokens/b", DIGEST, DATA, mount_from="tokens/a")
            assert remote.read_blob("tokens/a", DIGEST, 1 << 21) == DATA
        # docker-registry names its actions in any order
        assert {"repository:tokens/a:pull,push", "repository:tokens/a:push,pull"} & set(
            tokens.given
        )
        assert len(tokens.given) <= 5  # one for each scope, however many requests
        refresh = Credentials(identity_token=token_server.REFRESH)
        with Remote(registry.address, refresh) as remote:
            assert remote.push_blob("tokens/c", DIGEST, DATA) == "sent"


def test_bad_credentials_for_tokens(tokens: token_server.TokenServer, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", token=tokens.settings) as registry:
        with Remote(registry.address) as remote, pytest.raises(errors.Denied, match="the token"):
            remote.push_blob("tokens/a", digest_of(b"x"), b"x")  # anyone may pull only
        wrong = Credentials(token_server.USER, "wrong")
        with (
            Remote(registry.address, wrong) as remote,
            pytest.raises(errors.Denied, match="incorrect username") as caught,
        ):
            remote.read_blob("tokens/a", DIGEST, 1 << 21)
    assert "--password-stdin" in caught.value.remedy


def test_a_token_server_that_is_down_is_named(
    tokens: token_server.TokenServer, tmp_path: Path
) -> None:
    settings = tokens.settings | {"realm": "http://127.0.0.1:9/token"}
    with (
        docker_registry(tmp_path / "registry", token=settings) as registry,
        Remote(registry.address) as remote,
        pytest.raises(errors.Unreachable, match="token server") as caught,
    ):
        remote.read_blob("a", DIGEST, 1)
    assert caught.value.retryable

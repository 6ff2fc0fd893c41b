# SPDX-License-Identifier: Apache-2.0
"""Files of credentials as docker and podman write them, and programs that keep credentials."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.remote.credentials import (
    Credentials,
    find_credentials,
    parse_credentials,
    run_helper,
)
from registry.remote.errors import BadCredentials


def pair(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def nobody(program: str, registry: str) -> str:
    raise AssertionError(f"{program} must not be asked for {registry}")


def parse(found: Any, registry: str, run: Any = nobody) -> Credentials | None:
    return parse_credentials(json.dumps(found).encode(), registry, "the file", run)


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("reg.example:5000", "reg.example:5000"),
        ("https://reg.example", "reg.example"),
        ("https://reg.example/v2/", "reg.example"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "registry-1.docker.io"),
    ],
)
def test_a_registry_is_found_under_the_names_that_tools_write(key: str, registry: str) -> None:
    found = parse({"auths": {"other": {"auth": pair("x", "y")}, key: {"auth": pair("a", "b:c")}}},
                  registry)  # fmt: skip
    assert found == Credentials("a", "b:c")


def test_another_registry_gets_nothing() -> None:
    file = {"auths": {"reg.example": {"auth": pair("a", "b")}}}
    for registry in ("reg.example:5000", "example", "evil.reg.example", "reg.example.evil"):
        assert parse(file, registry) is None


def test_an_identity_token_comes_with_the_entry() -> None:
    file = {"auths": {"r": {"auth": pair("<token>", ""), "identitytoken": "secret"}}}
    found = parse(file, "r")
    assert found is not None and found.identity_token == "secret"
    assert "secret" not in repr(found)


def test_the_helper_of_a_registry_wins_and_the_general_store_comes_last() -> None:
    asked = []

    def run(program: str, registry: str) -> str:
        asked.append((program, registry))
        return json.dumps({"ServerURL": registry, "Username": program, "Secret": "s"})

    file = {
        "auths": {"a": {"auth": pair("file", "f")}, "b": {"auth": pair("file", "f")}},
        "credHelpers": {"a": "one"},
        "credsStore": "general",
    }
    assert parse(file, "a", run) == Credentials("one", "s")
    assert parse(file, "b", run) == Credentials("file", "f")
    assert parse(file, "c", run) == Credentials("general", "s")
    assert asked == [("one", "a"), ("general", "c")]


def test_a_helper_may_know_nothing_or_hold_an_identity_token() -> None:
    file = {"credsStore": "x"}
    assert parse(file, "a", lambda _p, _r: "") is None
    token = json.dumps({"Username": "<token>", "Secret": "t"})
    assert parse(file, "a", lambda _p, _r: token) == Credentials(identity_token="t")


@pytest.mark.parametrize("program", ["../evil", "a b", "a/b", "", "x" * 65, None, "a;b"])
def test_a_helper_whose_name_would_leave_its_place_is_not_run(program: object) -> None:
    with pytest.raises(BadCredentials, match="cannot name a credential helper"):
        parse({"credHelpers": {"a": program}}, "a")


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b'{"auths":{"r":{"auth":"!"}}}', b'{"auths":{"r":{"auth":"YWJj"}}}',
     b'{"auths":{"r":{"username":1}}}', b"[" * 100_000],
)  # fmt: skip
def test_a_broken_file_is_named(text: bytes) -> None:
    with pytest.raises(BadCredentials, match="the file"):
        parse_credentials(text, "r", "the file", nobody)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_otherwise(text: bytes) -> None:
    try:
        parse_credentials(text, "r", "the file", nobody)
    except BadCredentials:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["auths", "r", "auth", "credHelpers", "credsStore", "username"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON, st.text(max_size=50))
def test_no_json_makes_the_parser_fail_otherwise(found: Any, said: str) -> None:
    try:
        parse(found, "r", lambda _p, _r: said)
    except BadCredentials:
        pass


def test_the_first_file_that_knows_the_registry_counts(tmp_path: Path) -> None:
    empty, one, two = tmp_path / "none", tmp_path / "one", tmp_path / "two"
    one.write_text(json.dumps({"auths": {"other": {"auth": pair("a", "b")}}}))
    two.write_text(json.dumps({"auths": {"r": {"auth": pair("c", "d")}}}))
    assert find_credentials("r", [empty, one, two]) == Credentials("c", "d")
    assert find_credentials("r", [empty, one]) is None


def test_a_file_that_cannot_be_read_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BadCredentials, match=str(tmp_path)) as caught:
        find_credentials("r", [tmp_path])
    assert "--auth-file" in caught.value.remedy


def program(folder: Path, text: str) -> None:
    path = folder / "docker-credential-test"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_real_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    program(tmp_path, """read registry; echo '{"Username":"'"$1 $registry"'","Secret":"s"}'""")
    said = json.loads(run_helper("test", "reg.example"))
    assert said["Username"] == "get reg.example"
    program(tmp_path, "echo 'credentials not found in native keychain'; exit 1")
    assert run_helper("test", "reg.example") == ""
    program(tmp_path, "echo locked; exit 1")
    with pytest.raises(BadCredentials, match="locked"):
        run_helper("test", "reg.example")


def test_a_helper_that_is_not_installed_is_named() -> None:
    with pytest.raises(BadCredentials, match="docker-credential-nowhere") as caught:
        run_helper("nowhere", "r")
    assert "--password-stdin" in caught.value.remedy

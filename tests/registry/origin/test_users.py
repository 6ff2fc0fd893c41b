# SPDX-License-Identifier: Apache-2.0
"""Who may pull and who may push."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from registry.origin.users import (
    Access,
    BadUsers,
    Users,
    add_user,
    credentials,
    make_user,
    parse_users,
)
from tests.registry.origin.running import Running, running

PASSWORD = "correct horse"


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    text = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    add_user(path, make_user("node", "pull", PASSWORD))
    add_user(path, make_user("ci", "push", PASSWORD))
    return path


@pytest_asyncio.fixture
async def guarded(tmp_path: Path, users: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "registry", Access(Users(users))) as found:
        yield found


async def test_rights_to_pull_and_to_push(guarded: Running) -> None:
    for headers, reads, writes in (
        ({}, 401, 401),
        (basic("node"), 200, 403),
        (basic("ci"), 200, 202),
        (basic("node", "wrong horse"), 401, 401),
        (basic("nobody"), 401, 401),
        ({"Authorization": "Bearer x"}, 401, 401),
    ):
        got = await guarded.ask("GET", "/v2/", headers=headers)
        put = await guarded.ask("POST", "/v2/a/blobs/uploads/", headers=headers)
        assert (got.status, put.status) == (reads, writes), headers
        if got.status == 401:
            assert got.headers["WWW-Authenticate"].startswith("Basic realm=")
            assert got.code == "UNAUTHORIZED"
    assert (await guarded.ask("GET", "/tuf/metadata/root.json")).status == 401


async def test_everybody_may_pull_where_that_is_wanted(tmp_path: Path, users: Path) -> None:
    async with running(tmp_path / "r", Access(Users(users), anonymous_pull=True)) as origin:
        await origin.ask("GET", "/v2/_catalog", headers=basic("ci"))
        assert (await origin.ask("GET", "/v2/_catalog")).status == 200
        assert (await origin.ask("POST", "/v2/a/blobs/uploads/")).status == 401
        # The ping tells a pusher that there are passwords; an empty user is nobody.
        assert (await origin.ask("GET", "/v2/")).status == 401
        assert (await origin.ask("GET", "/v2/", headers=basic("", ""))).status == 200
        assert (await origin.ask("GET", "/v2/", headers=basic("ci", "wrong one"))).status == 401


async def test_without_users_nobody_pushes_from_elsewhere(tmp_path: Path) -> None:
    async with running(tmp_path / "r", Access()) as origin:
        assert (await origin.ask("GET", "/v2/")).status == 200
        answer = await origin.ask("POST", "/v2/a/blobs/uploads/")
        assert answer.status == 403 and b"--add-user" in answer.data


async def test_the_first_user_closes_what_was_open(tmp_path: Path) -> None:
    path = tmp_path / "users"
    async with running(tmp_path / "r", Access(Users(path), open_push=True)) as origin:
        assert (await origin.ask("POST", "/v2/a/blobs/uploads/")).status == 202
        add_user(path, make_user("ci", "push", PASSWORD))
        assert (await origin.ask("POST", "/v2/a/blobs/uploads/")).status == 401
        assert (await origin.ask("GET", "/v2/", headers=basic("ci"))).status == 200
        path.unlink()  # an accident opens nothing
        assert (await origin.ask("GET", "/v2/_catalog")).status == 401
        assert (await origin.ask("GET", "/v2/", headers=basic("ci"))).status == 500


async def test_a_user_added_while_it_serves(guarded: Running, users: Path) -> None:
    assert (await guarded.ask("GET", "/v2/", headers=basic("late"))).status == 401
    add_user(users, make_user("late", "pull", PASSWORD))
    assert (await guarded.ask("GET", "/v2/", headers=basic("late"))).status == 200
    add_user(users, make_user("late", "pull", "another password"))
    assert (await guarded.ask("GET", "/v2/", headers=basic("late"))).status == 401


def test_the_file_keeps_no_password_and_is_the_owners(users: Path) -> None:
    text = users.read_text()
    assert PASSWORD not in text and users.stat().st_mode & 0o077 == 0
    assert set(parse_users(text, "users")) == {"node", "ci"}
    assert parse_users("# a remark\n\n", "users") == {}


@pytest.mark.parametrize(
    "line",
    [
        "ci",
        "ci:push:md5:1:2:3:AA==:AA==",
        "ci:all:scrypt:16384:8:1:AA==:AA==",
        "ci:push:scrypt:999999999:8:1:AA==:AA==",
        "ci:push:scrypt:16384:8:1:*:AA==",
    ],
)
def test_a_line_that_is_wrong_is_named(line: str) -> None:
    with pytest.raises(BadUsers, match="line 2"):
        parse_users(f"# users\n{line}\n", "users")


def test_bad_names_and_short_passwords() -> None:
    for name, password in (("a:b", PASSWORD), ("", PASSWORD), ("ci", "short")):
        with pytest.raises(BadUsers):
            make_user(name, "pull", password)


@given(st.text())
def test_no_header_breaks_the_parser(text: str) -> None:
    assert len(credentials(text)) == 2
    assert len(credentials(f"Basic {text}")) == 2


@given(st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1))
def test_credentials_come_back(name: str) -> None:
    assert credentials(basic(name)["Authorization"]) == (name, PASSWORD)

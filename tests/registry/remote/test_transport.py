# SPDX-License-Identifier: Apache-2.0
"""Connections, statuses and redirects: servers that are broken, busy or hostile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from registry.digest import digest_of
from registry.errors import BadReference, NotFound
from registry.remote import errors
from registry.remote.client import Remote
from registry.remote.credentials import Credentials
from registry.remote.transport import base_url, joined
from tests.registry.remote.scripted_server import Answer, Asked, Script, scripted

DATA = bytes(range(256)) * 400
DIGEST = digest_of(DATA)
ME = Credentials("me", "secret")


def answering(answer: Answer) -> Script:
    return lambda _asked: answer


def receive(remote: Remote, first: int = 0, last: int | None = None, etag: str = "") -> bytes:
    with remote.open_blob("a", DIGEST, first, last, etag) as blob:
        return blob.read(1 << 20)


@pytest.mark.parametrize(
    ("registry", "insecure", "ca", "url"),
    [
        ("reg.example", False, None, "https://reg.example"),
        ("reg.example:80", True, None, "http://reg.example:80"),
        ("https://reg.example/", True, None, "https://reg.example"),
        ("localhost:5000", False, None, "http://localhost:5000"),
        ("[::1]:5000", False, None, "http://[::1]:5000"),
        ("127.0.0.2", False, Path("ca"), "https://127.0.0.2"),
        ("docker.io", False, None, "https://registry-1.docker.io"),
    ],
)
def test_the_scheme(registry: str, insecure: bool, ca: Path | None, url: str) -> None:
    assert base_url(registry, insecure=insecure, ca=ca) == url


def test_plain_http_to_another_machine_must_be_allowed() -> None:
    with pytest.raises(errors.Untrusted) as caught:
        Remote("http://reg.example")
    assert "--insecure" in caught.value.remedy


@pytest.mark.parametrize("registry", ["", "ftp://x", "a b", "u:p@x", "x/y", "x:port", "[::1"])
def test_what_is_no_registry(registry: str) -> None:
    with pytest.raises(BadReference):
        base_url(registry, insecure=False, ca=None)


def test_nobody_listens() -> None:
    with scripted(answering(Answer())) as server:
        address = server.address
    with Remote(address) as remote, pytest.raises(errors.Unreachable, match=address) as caught:
        remote.ping()
    assert caught.value.retryable


# Statuses


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (403, errors.Denied, False),
        (404, errors.Missing, False),
        (400, errors.Refused, False),
        (429, errors.TooManyRequests, True),
        (500, errors.ServerTrouble, True),
        (503, errors.ServerTrouble, True),
    ],
)
def test_a_status_is_a_named_error(status: int, kind: type, retryable: bool) -> None:
    body = json.dumps({"errors": [{"code": "NAMED", "message": "in words"}]}).encode()
    with (
        scripted(answering(Answer(status, body, {"Retry-After": "7"}))) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.RemoteError, match="in words NAMED") as caught,
    ):
        receive(remote)
    assert type(caught.value) is kind and caught.value.retryable is retryable
    assert caught.value.status == status
    if retryable:
        assert caught.value.retry_after == 7.0
    assert issubclass(errors.Missing, NotFound)


def test_an_error_page_does_not_get_into_the_message() -> None:
    page = Answer(502, b"<html>\x1b[31mBad Gateway</html>")
    with (
        scripted(answering(page)) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.ServerTrouble, match=r"status 502$"),
    ):
        receive(remote)


def test_endless_error_text_is_cut_off() -> None:
    def forever() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    with (
        scripted(lambda _asked: Answer(500, forever())) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.ServerTrouble),
    ):
        receive(remote)


@pytest.mark.parametrize("status", [401, 307, 200])
def test_endless_data_where_nobody_needs_any_is_cut_off(status: int) -> None:
    def forever() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    def serve(asked: Asked) -> Answer:
        fields = {"WWW-Authenticate": "Basic realm=x", "Location": "/elsewhere"}
        if asked.path == "/elsewhere" or asked.authorization:
            return Answer(200, DATA)
        return Answer(status, forever(), fields)

    with scripted(serve) as server, Remote(server.address, ME) as remote:
        remote.ping()
    assert len(server.asked) == (1 if status == 200 else 2)


def test_a_server_that_is_silent() -> None:
    def silent() -> Iterator[bytes]:
        yield DATA[:10]
        release.wait()

    release = threading.Event()
    answer = Answer(200, silent(), {"Content-Length": str(len(DATA))})
    with scripted(answering(answer)) as server, Remote(server.address, timeout=0.2) as remote:
        with pytest.raises(errors.Timeout, match=r"0\.2 s") as caught:
            receive(remote)
        release.set()
    assert caught.value.retryable


# Redirects


def test_a_redirect_is_followed_with_its_range_and_without_credentials() -> None:
    def storage(asked: Asked) -> Answer:
        assert asked.headers["Range"] == "bytes=5-9"
        return Answer(206, DATA[5:10], {"Content-Range": f"bytes 5-9/{len(DATA)}"})

    with scripted(storage) as cdn:
        target = f"http://{cdn.address}/blob?signature=x"

        def registry(asked: Asked) -> Answer:
            if not asked.authorization:
                return Answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
            return Answer(307, b"", {"Location": target})

        with scripted(registry) as server, Remote(server.address, ME) as remote:
            assert receive(remote, 5, 9) == DATA[5:10]
        assert [asked.authorization for asked in server.asked] == ["", ME.basic]
    assert [asked.authorization for asked in cdn.asked] == [""]


def test_another_host_that_asks_for_credentials_gets_none() -> None:
    thief = Answer(401, b"", {"WWW-Authenticate": 'Basic realm="registry"'})
    with scripted(answering(thief)) as evil:
        away = Answer(302, b"", {"Location": f"http://{evil.address}/"})
        with (
            scripted(answering(away)) as server,
            Remote(server.address, ME) as remote,
            pytest.raises(errors.Denied),
        ):
            receive(remote)
        assert [asked.authorization for asked in evil.asked] == [""]


def test_a_redirect_loop_is_named_with_its_stations() -> None:
    def turn(asked: Asked) -> Answer:
        return Answer(302, b"", {"Location": "/one" if asked.path == "/two" else "/two"})

    with (
        scripted(turn) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.RedirectLoop, match=r"/two -> .*/one -> .*/two"),
    ):
        receive(remote)
    assert len(server.asked) == 3


def test_redirects_that_lead_on_for_ever_end() -> None:
    def further(asked: Asked) -> Answer:
        return Answer(302, b"", {"Location": asked.path + "x"})

    with (
        scripted(further) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.RedirectLoop),
    ):
        receive(remote)
    assert len(server.asked) <= 7


@pytest.mark.parametrize("status", [300, 304, 305])
def test_a_status_that_is_no_answer(status: int) -> None:
    with (
        scripted(answering(Answer(status))) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match=f"status {status}"),
    ):
        receive(remote)


@given(st.text(max_size=80) | st.text("htp:/[]@.%a1#?\\ ", max_size=40).map("http://".__add__))
def test_no_link_makes_it_fail_otherwise(link: str) -> None:
    try:
        found = joined("http://reg.example/v2/a", link)
    except errors.BadAnswer:
        return
    parts = urllib3.util.parse_url(found)
    assert parts.host and parts.auth is None and found.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    "location",
    [
        "http://u:p@x/",
        "http://a b/",
        f"http://{'a' * 64}.b\\@c/",
        "ftp://x/",
        "http://[",
        "http://x:0/",
    ],
)
def test_a_redirect_to_nowhere(location: str) -> None:
    with (
        scripted(answering(Answer(302, b"", {"Location": location}))) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match="is not a URL"),
    ):
        receive(remote)

# SPDX-License-Identifier: Apache-2.0
"""Basic and Bearer without a network: what is sent where, what is kept, and what is refused."""

import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.remote.credentials import Credentials
from registry.remote.errors import BadAnswer, Denied, Untrusted
from registry.remote.headers import Challenge
from registry.remote.tokens import Authorizer, TokenRequest, parse_token, token_request

ME = Credentials("me", "pä:ss")
BEARER = 'Bearer realm="https://tokens.example/token?x=1",service="reg"'
SCOPE = "repository:a/b:pull"


class TokenServer:
    """Counts what it is asked; tokens are t1, t2, …"""

    def __init__(self, lifetime: float = 100.0) -> None:
        self.asked: list[TokenRequest] = []
        self.lifetime = lifetime

    def fetch(self, request: TokenRequest) -> bytes:
        self.asked.append(request)
        return json.dumps({"token": f"t{len(self.asked)}", "expires_in": self.lifetime}).encode()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def authorizer(
    server: TokenServer, clock: Clock, credentials: Credentials | None = ME, secure: bool = True
) -> Authorizer:
    return Authorizer("reg.example", credentials, server.fetch, clock, secure=secure)


def challenge(text: str = "https://tokens.example/token") -> Challenge:
    return Challenge("bearer", {"realm": text, "service": "reg"})


def test_a_token_is_asked_for_by_get_with_the_password() -> None:
    request = token_request(challenge(), f"{SCOPE} repository:c:pull", ME, secure=True)
    fields = parse_qs(urlsplit(request.url).query)
    assert fields["scope"] == [SCOPE, "repository:c:pull"] and fields["service"] == ["reg"]
    assert request.body is None
    assert request.headers["Authorization"] == ME.basic
    assert "ss" not in repr(request).partition("url=")[2].replace(request.url, "")


def test_an_identity_token_goes_by_post_and_never_into_a_url() -> None:
    known = Credentials(identity_token="refresh me")
    request = token_request(challenge("https://t.example/token?a=b"), SCOPE, known, secure=True)
    assert request.body is not None
    fields = parse_qs(request.body.decode())
    assert fields["grant_type"] == ["refresh_token"] and fields["a"] == ["b"]
    assert fields["refresh_token"] == ["refresh me"] and fields["scope"] == [SCOPE]
    assert request.url == "https://t.example/token"


def test_without_credentials_a_token_for_anyone_is_asked_for() -> None:
    request = token_request(challenge(), SCOPE, None, secure=True)
    assert not request.headers and "account" not in request.url


def test_a_token_server_without_tls_gets_nothing_of_a_registry_with_it() -> None:
    with pytest.raises(Untrusted, match="not sent"):
        raise_with_remedy(challenge("http://tokens.example/"))
    assert token_request(challenge("http://t.example/"), SCOPE, ME, secure=False).url


def raise_with_remedy(found: Challenge) -> None:
    try:
        token_request(found, SCOPE, ME, secure=True)
    except Untrusted as error:
        raise Untrusted(f"{error} {error.remedy}") from None


@pytest.mark.parametrize("realm", ["", "tokens", "ftp://x/", "https://", "https://u:p@x/", "//x",
                                   "https://[x/"])  # fmt: skip
def test_a_realm_that_is_no_token_server(realm: str) -> None:
    with pytest.raises(BadAnswer, match="no token server"):
        token_request(challenge(realm), SCOPE, ME, secure=True)


@given(st.text(max_size=60), st.text(max_size=30))
def test_no_realm_makes_it_fail_otherwise(realm: str, scope: str) -> None:
    try:
        token_request(challenge(realm), scope, ME, secure=True)
    except (BadAnswer, Untrusted):
        pass


@given(st.binary(max_size=100))
def test_no_answer_of_a_token_server_makes_it_fail_otherwise(data: bytes) -> None:
    try:
        parse_token(data)
    except BadAnswer:
        pass


def test_what_a_token_server_may_answer() -> None:
    assert parse_token(b'{"access_token":"x"}').lifetime == 60.0
    assert parse_token(b'{"token":"x","expires_in":-5}').lifetime == 60.0
    for text in (b'{"token":""}', b'{"token":"a\\r\\nEvil: 1"}', b'{"token":5}', b"[" * 99999):
        with pytest.raises(BadAnswer):
            parse_token(text)


def test_a_token_is_kept_for_its_scope_until_it_nears_its_end() -> None:
    server, clock = TokenServer(), Clock()
    found = authorizer(server, clock)
    assert found.header(SCOPE) == ""
    assert found.answer(BEARER, SCOPE, "") == "Bearer t1"
    assert found.header(SCOPE) == "Bearer t1"
    assert found.header("repository:other:pull") == ""
    clock.now += 89
    assert found.header(SCOPE) == "Bearer t1"
    clock.now += 2
    assert found.header(SCOPE) == ""


def test_the_scope_of_the_challenge_is_what_is_asked_for() -> None:
    server = TokenServer()
    found = authorizer(server, Clock())
    found.answer(f'{BEARER},scope="repository:a/b:pull,push"', SCOPE, "")
    assert parse_qs(urlsplit(server.asked[0].url).query)["scope"] == ["repository:a/b:pull,push"]


def test_a_token_that_is_refused_is_replaced() -> None:
    server = TokenServer()
    found = authorizer(server, Clock())
    first = found.answer(BEARER, SCOPE, "")
    assert found.answer(BEARER, SCOPE, first) == "Bearer t2"


def test_many_threads_that_are_asked_at_once_fetch_one_token() -> None:
    server = TokenServer()
    found = authorizer(server, Clock())
    start = threading.Barrier(8)
    got = []

    def ask() -> None:
        start.wait()
        got.append(found.answer(BEARER, SCOPE, ""))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["Bearer t1"] * 8 and len(server.asked) == 1


def test_a_wrong_password_is_not_tried_twice() -> None:
    found = authorizer(TokenServer(), Clock())
    sent = found.answer('Basic realm="x"', SCOPE, "")
    assert sent == ME.basic and found.header("anything") == ME.basic
    with pytest.raises(Denied, match="'me'") as caught:
        found.answer('Basic realm="x"', SCOPE, sent)
    assert "--password-stdin" in caught.value.remedy and "--auth-file" in caught.value.remedy


def test_no_credentials_where_some_are_asked_for() -> None:
    with pytest.raises(Denied, match="there are none") as caught:
        authorizer(TokenServer(), Clock(), None).answer("Basic realm=x", SCOPE, "")
    assert "--auth-file" in caught.value.remedy


def test_a_scheme_that_is_not_known_is_named() -> None:
    with pytest.raises(Denied, match="Negotiate"):
        authorizer(TokenServer(), Clock()).answer("Negotiate", SCOPE, "")


def test_a_registry_that_turns_from_passwords_to_tokens() -> None:
    found = authorizer(TokenServer(), Clock())
    sent = found.answer("Basic realm=x", SCOPE, "")
    assert found.answer(BEARER, SCOPE, sent) == found.header(SCOPE) == "Bearer t1"


def test_a_slow_token_server_holds_up_no_one_who_has_a_token() -> None:
    asked, release = threading.Event(), threading.Event()
    server = TokenServer()

    def slow(request: TokenRequest) -> bytes:
        if "other" in request.url:
            asked.set()
            assert release.wait(20)
        return server.fetch(request)

    found = Authorizer("reg.example", ME, slow, Clock(), secure=True)
    found.answer(BEARER, SCOPE, "")
    thread = threading.Thread(target=found.answer, args=(BEARER, "repository:other:pull", ""))
    thread.start()
    assert asked.wait(20)
    assert found.header(SCOPE) == "Bearer t1"
    release.set()
    thread.join()

# SPDX-License-Identifier: Apache-2.0
"""Header fields: what servers write, and what a stranger may write."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.remote.headers import (
    Challenge,
    ContentRange,
    next_link,
    parse_challenges,
    parse_content_range,
    parse_length,
    parse_retry_after,
    parse_uploaded,
)

HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/alpine:pull,push",error="insufficient_scope"'
)


def test_the_challenge_of_docker_hub() -> None:
    assert parse_challenges(HUB) == [
        Challenge(
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/alpine:pull,push",
                "error": "insufficient_scope",
            },
        )
    ]


def test_several_challenges_in_one_field() -> None:
    text = 'Negotiate abc123==, Basic realm="a \\"quoted\\" name", Bearer realm=x , service = y'
    assert parse_challenges(text) == [
        Challenge("negotiate"),
        Challenge("basic", {"realm": 'a "quoted" name'}),
        Challenge("bearer", {"realm": "x", "service": "y"}),
    ]


@pytest.mark.parametrize("text", ["", ",,", '"', 'realm="x"', "\0", "="])
def test_a_field_that_is_no_challenge_gives_none_that_could_be_met(text: str) -> None:
    assert not [c for c in parse_challenges(text) if c.scheme in ("basic", "bearer")]


def test_the_first_of_two_parameters_of_one_name_counts() -> None:
    found = parse_challenges('Bearer realm="https://a/", realm="https://b/"')
    assert found[0].parameters == {"realm": "https://a/"}


@given(st.text(max_size=300) | st.text('Bearer=", \\realm', max_size=200))
def test_no_text_makes_a_parser_fail(text: str) -> None:
    for parse in (parse_challenges, next_link, parse_content_range, parse_uploaded, parse_length):
        parse(text)
    parse_retry_after(text, 0.0)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=40)))
def test_quoted_parameters_come_back(parameters: dict[str, str]) -> None:
    quoted = [
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"'))
        for name, value in parameters.items()
    ]
    text = "Bearer " + ", ".join(quoted)
    values = {n: v for n, v in parameters.items() if "\n" not in v}
    if values == parameters:
        assert parse_challenges(text) == [Challenge("bearer", parameters)]


def test_a_long_hostile_field_is_read_in_linear_time() -> None:
    for text in ("a" * 100_000, 'a="' * 50_000, "<" * 100_000, "<a>;b=" * 20_000, "\\" * 100_000):
        parse_challenges(text)
        next_link(text)


def test_links() -> None:
    assert next_link('</v2/_catalog?last=b&n=2>; rel="next"') == "/v2/_catalog?last=b&n=2"
    assert next_link('<a>; rel=prev, <b,c>; title="x, y"; rel=next') == "b,c"
    assert next_link("<a>; rel=last") == next_link("a; rel=next") == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 0-9/10", ContentRange(0, 9, 10)),
        ("bytes 5-9/*", ContentRange(5, 9, None)),
        ("bytes */10", ContentRange(None, None, 10)),
        ("bytes 9-5/10", None),
        ("bytes 0-10/10", None),
        ("bytes */*", None),
        ("bytes=0-9/10", None),
        ("bytes 0-٩/10", None),
        ("items 0-9/10", None),
        ("bytes 0-9999999999999999999/*", None),
    ],
)
def test_content_range(text: str, found: ContentRange | None) -> None:
    assert parse_content_range(text) == found


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert parse_retry_after("120", 0.0) == 120.0
    assert parse_retry_after(formatdate(1000.0, usegmt=True), 940.0) == 60.0
    assert parse_retry_after(formatdate(1000.0, usegmt=True), 2000.0) == 0.0
    assert parse_retry_after("soon", 0.0) is None


def test_what_an_upload_session_holds() -> None:
    assert parse_uploaded("0-0") == 0  # nothing, as docker-registry writes it
    assert parse_uploaded("0-1023") == parse_uploaded("bytes=0-1023") == 1024
    assert parse_uploaded("5-9") is None
    assert parse_uploaded("") is None

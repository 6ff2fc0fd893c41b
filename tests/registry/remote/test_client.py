# SPDX-License-Identifier: Apache-2.0
"""Manifests, blobs and lists: bytes that are not what was asked for are refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from registry import oci
from registry.digest import digest_of
from registry.errors import BadManifest, BadReference, WrongDigest
from registry.remote import errors
from registry.remote.client import Document, Remote
from registry.remote.credentials import Credentials
from tests.registry.remote.scripted_server import Answer, Asked, Script, scripted

DATA = bytes(range(256)) * 400
DIGEST = digest_of(DATA)
ME = Credentials("me", "secret")


def answering(answer: Answer) -> Script:
    return lambda _asked: answer


def receive(remote: Remote, first: int = 0, last: int | None = None, etag: str = "") -> bytes:
    with remote.open_blob("a", DIGEST, first, last, etag) as blob:
        return blob.read(1 << 20)


# Manifests

MANIFEST = oci.Manifest(oci.Descriptor("x/y", DIGEST, len(DATA)), ()).encode()


def test_a_manifest_with_another_digest_is_refused() -> None:
    answer = Answer(200, MANIFEST, {"Content-Type": oci.MANIFEST})
    with scripted(answering(answer)) as server, Remote(server.address) as remote:
        assert remote.manifest("a", digest_of(MANIFEST)).data == MANIFEST
        with pytest.raises(WrongDigest, match="digest is"):
            remote.manifest("a", digest_of(b"another"))


def test_a_tag_whose_digest_header_contradicts_its_bytes_is_refused() -> None:
    answer = Answer(200, MANIFEST, {"Docker-Content-Digest": digest_of(b"another")})
    with (
        scripted(answering(answer)) as server,
        Remote(server.address) as remote,
        pytest.raises(WrongDigest),
    ):
        remote.manifest("a", "1.0")


def test_an_endless_manifest_is_cut_off() -> None:
    sent = []

    def forever() -> Iterator[bytes]:
        while True:
            sent.append(65536)
            yield b"x" * 65536

    with (
        scripted(lambda _asked: Answer(200, forever())) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.EndlessData, match="more than 1000000 bytes"),
    ):
        remote.manifest("a", "1.0", limit=1_000_000)
    assert sum(sent) < 20_000_000  # what the sockets' buffers took


def test_a_manifest_that_drips_for_ever_ends() -> None:
    now = [0.0]

    def drip() -> Iterator[bytes]:
        while True:
            now[0] += 10.0
            yield b"x"

    with (
        scripted(lambda _asked: Answer(200, drip())) as server,
        Remote(server.address, timeout=5.0, clock=lambda: now[0]) as remote,
        pytest.raises(errors.Timeout, match="in time"),
    ):
        remote.manifest("a", "1.0")


def test_a_compressed_answer_is_refused() -> None:
    answer = Answer(200, MANIFEST, {"Content-Encoding": "gzip"})
    with (
        scripted(answering(answer)) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match="compressed"),
    ):
        remote.manifest("a", "1.0")


def test_a_head_without_a_digest_is_made_good_by_a_get() -> None:
    with scripted(answering(Answer(200, MANIFEST))) as server, Remote(server.address) as remote:
        found = remote.head_manifest("a", "1.0")
    assert found is not None and found.digest == digest_of(MANIFEST)
    assert server.lines() == ["HEAD /v2/a/manifests/1.0", "GET /v2/a/manifests/1.0"]


@pytest.mark.parametrize("name", ["../../etc", "a/../b", "A", "a?x", "a b", "%2e%2e", ""])
def test_a_name_that_would_leave_its_place_is_not_sent(name: str) -> None:
    with Remote("localhost:1") as remote, pytest.raises(BadReference):
        remote.manifest(name, "1.0")


# Blobs


def test_a_range_that_is_honoured() -> None:
    def serve(asked: Asked) -> Answer:
        assert asked.headers["If-Range"] == '"e"'
        headers = {"Content-Range": f"bytes 100-{len(DATA) - 1}/{len(DATA)}", "ETag": '"e"'}
        return Answer(206, DATA[100:], headers)

    with (
        scripted(serve) as server,
        Remote(server.address) as remote,
        remote.open_blob("a", DIGEST, 100, etag='"e"') as blob,
    ):
        assert (blob.status, blob.start, blob.total) == (206, 100, len(DATA))
        assert blob.etag == '"e"' and blob.length == len(DATA) - 100
        assert blob.read(len(DATA)) == DATA[100:]


def test_a_weak_etag_is_not_used_for_a_range() -> None:
    def serve(asked: Asked) -> Answer:
        assert "If-Range" not in asked.headers
        return Answer(200, DATA)

    with scripted(serve) as server, Remote(server.address) as remote:
        receive(remote, 100, etag='W/"e"')


def test_a_range_that_is_ignored_shows() -> None:
    with (
        scripted(answering(Answer(200, DATA))) as server,
        Remote(server.address) as remote,
        remote.open_blob("a", DIGEST, 100) as blob,
    ):
        assert (blob.status, blob.start, blob.total) == (200, 0, len(DATA))


@pytest.mark.parametrize(
    "said",
    [f"bytes 0-9/{len(DATA)}", f"bytes 100-300/{len(DATA)}", "bytes 300-100/500", "", "bytes */9"],
)
def test_a_range_that_was_not_asked_for_is_refused(said: str) -> None:
    with (
        scripted(answering(Answer(206, DATA[:10], {"Content-Range": said}))) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match="asked for bytes 100-199"),
    ):
        receive(remote, 100, 199)


def test_a_range_whose_length_contradicts_itself_is_refused() -> None:
    answer = Answer(206, DATA[:5], {"Content-Range": f"bytes 0-9/{len(DATA)}"})
    with (
        scripted(answering(answer)) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match="Content-Length 5"),
    ):
        receive(remote, 0, 9)


def test_a_range_behind_the_end_tells_the_size() -> None:
    answer = Answer(416, b"", {"Content-Range": f"bytes */{len(DATA)}"})
    with (
        scripted(answering(answer)) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.RangeRefused) as caught,
    ):
        receive(remote, len(DATA) + 5)
    assert caught.value.total == len(DATA)


def test_a_truncated_blob_is_an_error_and_not_a_short_blob() -> None:
    answer = Answer(200, iter([DATA[:1000]]), {"Content-Length": str(len(DATA))})
    with (
        scripted(answering(answer)) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.Truncated, match=f"1000 of {len(DATA)}") as caught,
    ):
        receive(remote)
    assert caught.value.retryable


def test_a_truncated_chunked_blob_is_an_error() -> None:
    cut = b"3e8\r\n" + DATA[:1000] + b"\r\n3e8\r\n" + DATA[:10]
    answer = Answer(200, iter([cut]), {"Transfer-Encoding": "chunked"})
    with (
        scripted(answering(answer)) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.Truncated),
    ):
        receive(remote)


def test_a_chunked_blob_is_read_to_its_end() -> None:
    chunks = [b"%x\r\n%b\r\n" % (len(p), p) for p in (DATA[:1000], DATA[1000:])]
    answer = Answer(200, iter([*chunks, b"0\r\n\r\n"]), {"Transfer-Encoding": "chunked"})
    with (
        scripted(answering(answer)) as server,
        Remote(server.address) as remote,
        remote.open_blob("a", DIGEST) as blob,
    ):
        assert blob.total is None
        assert blob.read(len(DATA)) == DATA


def test_an_endless_blob_is_cut_off() -> None:
    with (
        scripted(answering(Answer(200, DATA))) as server,
        Remote(server.address) as remote,
        remote.open_blob("a", DIGEST) as blob,
        pytest.raises(errors.EndlessData),
    ):
        blob.read(1000)


def test_a_small_blob_with_other_bytes_is_refused() -> None:
    with scripted(answering(Answer(200, DATA))) as server, Remote(server.address) as remote:
        assert remote.read_blob("a", DIGEST, 1 << 20) == DATA
        with pytest.raises(WrongDigest):
            remote.read_blob("a", digest_of(b""), 1 << 20)


def test_one_connection_serves_many_blobs() -> None:
    with scripted(answering(Answer(200, DATA))) as server, Remote(server.address) as remote:
        for _ in range(5):
            assert receive(remote) == DATA
            remote.has_blob("a", DIGEST)
    assert len({asked.port for asked in server.asked}) == 1


def test_readinto_gives_what_is_there_and_does_not_wait_for_a_full_buffer() -> None:
    release = threading.Event()

    def halves() -> Iterator[bytes]:
        yield DATA[:1000]
        assert release.wait(20)
        yield DATA[1000:]

    answer = Answer(200, halves(), {"Content-Length": str(len(DATA))})
    with (
        scripted(answering(answer)) as server,
        Remote(server.address) as remote,
        remote.open_blob("a", DIGEST) as blob,
    ):
        buffer = memoryview(bytearray(len(DATA)))
        count = blob.readinto(buffer)
        assert 0 < count <= 1000
        release.set()
        while more := blob.readinto(buffer[count:]):
            count += more
        assert buffer == DATA


# Lists


def pages(asked: Asked) -> Answer:
    if "last=b" in asked.path:
        return Answer(200, json.dumps({"tags": ["c"]}).encode())
    link = {"Link": '</v2/a/tags/list?last=b&n=2>; rel="next"'}
    return Answer(200, json.dumps({"tags": ["a", "b"]}).encode(), link)


def test_tags_over_several_pages() -> None:
    with scripted(pages) as server, Remote(server.address) as remote:
        assert remote.tags("a") == ["a", "b", "c"]


def test_pages_that_go_round_in_a_circle() -> None:
    link = {"Link": '</v2/a/tags/list?n=1000>; rel="next"'}
    with (
        scripted(answering(Answer(200, b'{"tags":[]}', link))) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match="no end"),
    ):
        remote.tags("a")


def test_a_next_page_on_another_server_is_not_fetched() -> None:
    link = {"Link": '<http://elsewhere.example/x>; rel="next"'}
    with (
        scripted(answering(Answer(200, b'{"tags":[]}', link))) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match="another server"),
    ):
        remote.tags("a")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags":5}', b'{"tags":[5]}', b"{}"])
def test_a_list_that_is_none(body: bytes) -> None:
    with (
        scripted(answering(Answer(200, body))) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match="no list of tags"),
    ):
        remote.tags("a")


def test_a_repository_without_tags_as_go_writes_it() -> None:
    none = Answer(200, b'{"tags":null}')
    with scripted(answering(none)) as server, Remote(server.address) as remote:
        assert remote.tags("a") == []


# Referrers

ENTRIES = tuple(
    oci.Descriptor(oci.MANIFEST, digest_of(bytes([n])), 1, artifact_type=f"x/{n % 2}")
    for n in range(4)
)


def test_referrers_by_the_api_filtered_here_where_the_server_does_not() -> None:
    answer = Answer(200, oci.Index(ENTRIES).encode(), {"Content-Type": oci.INDEX})
    with scripted(answering(answer)) as server, Remote(server.address) as remote:
        assert remote.referrers("a", DIGEST).manifests == ENTRIES
        assert remote.referrers("a", DIGEST, "x/1").manifests == (ENTRIES[1], ENTRIES[3])
    assert server.asked[1].path.endswith("?artifactType=x%2F1")


def test_referrers_by_the_tag_where_there_is_no_api() -> None:
    tag = DIGEST.replace(":", "-")

    def serve(asked: Asked) -> Answer:
        if asked.path == f"/v2/a/manifests/{tag}":
            return Answer(200, oci.Index(ENTRIES).encode())
        return Answer(404, b"404 page not found\n")

    with scripted(serve) as server, Remote(server.address) as remote:
        assert remote.referrers("a", DIGEST, "x/0").manifests == (ENTRIES[0], ENTRIES[2])
        assert remote.referrers("a", digest_of(b"")).manifests == ()


def test_referrers_that_are_no_index() -> None:
    with (
        scripted(answering(Answer(200, MANIFEST))) as server,
        Remote(server.address) as remote,
        pytest.raises(BadManifest, match="no index"),
    ):
        remote.referrers("a", DIGEST)


# Files beside the packages


def test_a_document_and_its_etag() -> None:
    def serve(asked: Asked) -> Answer:
        if asked.headers.get("If-None-Match") == '"1"':
            return Answer(304, b"", {"ETag": '"1"'})
        return Answer(200, b"text", {"ETag": '"1"'})

    with scripted(serve) as server, Remote(server.address) as remote:
        first: Document = remote.document("/tuf/metadata/timestamp.json", 100)
        assert first == Document(b"text", '"1"')
        assert remote.document("/tuf/metadata/timestamp.json", 100, first.etag) == (None, '"1"')
        with pytest.raises(errors.EndlessData):
            remote.document("/tuf/metadata/timestamp.json", 3)


def test_headers_of_ones_own_go_with_every_request() -> None:
    own = {"Cache-Control": "only-if-cached"}
    answer = answering(Answer(200, DATA))
    with scripted(answer) as server, Remote(server.address, headers=own) as remote:
        receive(remote)
        remote.has_blob("a", DIGEST)
    assert [asked.headers["Cache-Control"] for asked in server.asked] == ["only-if-cached"] * 2

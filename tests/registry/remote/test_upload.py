# SPDX-License-Identifier: Apache-2.0
"""Pushing blobs and manifests through connections that break, and to servers that forget."""

from __future__ import annotations

import random
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from registry import oci
from registry.digest import digest_of
from registry.errors import WrongDigest, WrongSize
from registry.remote import errors
from registry.remote.backoff import Retry
from registry.remote.client import Remote
from registry.remote.upload import Source
from tests.registry.remote.scripted_server import Answer, Asked, scripted

DATA = random.Random(5).randbytes(100_000)
DIGEST = digest_of(DATA)
CHUNK = 30_000


class Uploads:
    """A registry's side of an upload, as the specification has it. `trouble` may answer in its
    place; what `cut_at` bytes of a body have come is kept and the connection cut."""

    def __init__(self) -> None:
        self.held: dict[str, bytearray] = {}
        self.blobs: dict[str, bytes] = {}
        self.trouble: Callable[[Asked], Answer | None] = lambda _asked: None
        self.cut_at: dict[str, int] = {}  # by method, once

    def take(self, asked: Asked) -> int | None:
        """How much of a body is read."""
        return self.cut_at.get(asked.method)

    def answer(self, asked: Asked) -> Answer:
        """The script of the server."""
        found = self.trouble(asked)
        if found is not None:
            return found
        parts = urlsplit(asked.path)
        name = parts.path.rpartition("/")[2]
        if asked.method == "HEAD":
            return Answer(200 if name in self.blobs else 404)
        if asked.method == "POST":
            session = f"s{len(self.held)}"
            self.held[session] = bytearray()
            return self._accepted(session, 202)
        held = self.held.get(name)
        if held is None:
            return Answer(404)
        if asked.method == "GET":
            return self._accepted(name, 204)
        if asked.method == "PATCH" and not asked.headers["Content-Range"].startswith(
            f"{len(held)}-"
        ):
            return Answer(416, b"", {"Range": f"0-{len(held) - 1}"})
        held += asked.body
        if self.cut_at.pop(asked.method, None) is not None:
            return Answer(cut=True)
        if asked.method == "PATCH":
            return self._accepted(name, 202)
        digest = parse_qs(parts.query)["digest"][0]
        if digest_of(held) != digest:
            return Answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        self.blobs[digest] = bytes(self.held.pop(name))
        return Answer(201)

    def _accepted(self, session: str, status: int) -> Answer:
        headers = {"Location": f"/v2/a/blobs/uploads/{session}?state=x%2Fy"}
        end = max(0, len(self.held[session]) - 1)
        return Answer(status, b"", headers | {"Range": f"0-{end}"})


def retry() -> Retry:
    return Retry(attempts=3, rng=random.Random(1), sleep=lambda _seconds: None)


def push(uploads: Uploads, chunk: int, tell: Callable[[int], None] = lambda _n: None) -> list[str]:
    """Push DATA; returns the requests made."""
    with scripted(uploads.answer) as server, Remote(server.address) as remote:
        server.take = uploads.take
        outcome = remote.push_blob("a", DIGEST, DATA, chunk=chunk, retry=retry(), tell=tell)
    assert outcome == "sent" and uploads.blobs == {DIGEST: DATA}
    return [asked.method for asked in server.asked]


def test_a_small_blob_goes_in_one_piece() -> None:
    told: list[int] = []
    assert push(Uploads(), 1 << 20, told.append) == ["HEAD", "POST", "PUT"]
    assert told[-1] == len(DATA)


def test_a_large_blob_goes_in_chunks() -> None:
    assert push(Uploads(), CHUNK) == ["HEAD", "POST", *["PATCH"] * 4, "PUT"]


def test_a_connection_cut_in_a_chunk_costs_what_the_server_did_not_keep() -> None:
    uploads = Uploads()
    uploads.cut_at = {"PATCH": 10_000}
    sent: list[str] = []
    plain = uploads.answer

    def counting(asked: Asked) -> Answer:
        if asked.method == "PATCH":
            sent.append(asked.headers["Content-Range"])
        return plain(asked)

    uploads.answer = counting  # type: ignore[method-assign]
    methods = push(uploads, CHUNK)
    assert methods[:5] == ["HEAD", "POST", "PATCH", "GET", "PATCH"]
    assert sent[:2] == ["0-29999", "10000-39999"]


def test_a_connection_cut_in_a_whole_blob() -> None:
    uploads = Uploads()
    uploads.cut_at = {"PUT": 10_000}
    assert push(uploads, 1 << 20) == ["HEAD", "POST", "PUT", "GET", "PATCH", "PUT"]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_server_that_still_takes_in_what_the_broken_connection_brought(method: str) -> None:
    uploads = Uploads()
    uploads.cut_at = {method: 10_000}
    asked: list[str] = []

    def late(asking: Asked) -> Answer | None:
        asked.append(asking.method)
        if asked[-2:] == [method, "GET"] and asked.count("GET") == 1:
            answer = uploads._accepted("s0", 204)
            uploads.held["s0"] += DATA[10_000:20_000]
            return answer
        return None

    uploads.trouble = late
    methods = push(uploads, CHUNK if method == "PATCH" else 1 << 20)
    assert methods[2:7] == [method, "GET", "PATCH", "GET", "PATCH"]


def test_a_server_that_joins_the_parts_wrongly_gets_the_blob_anew() -> None:
    uploads = Uploads()
    uploads.cut_at = {"PATCH": 10_000}

    def spoil(asked: Asked) -> Answer | None:
        if asked.method == "GET":
            uploads.held["s0"][5] ^= 1
        return None

    uploads.trouble = spoil
    assert push(uploads, CHUNK).count("POST") == 2


def test_a_session_that_the_server_forgot_begins_anew() -> None:
    uploads = Uploads()
    failed: list[int] = []

    def forget(asked: Asked) -> Answer | None:
        if asked.method == "PATCH" and len(uploads.held.get("s0", b"")) >= CHUNK and not failed:
            failed.append(1)
            uploads.held = {"other": bytearray()}
            return Answer(500)
        return None

    uploads.trouble = forget
    told: list[int] = []
    methods = push(uploads, CHUNK, told.append)
    assert methods.count("POST") == 2 and 0 in told


def test_a_storm_of_server_errors_ends_the_upload() -> None:
    uploads = Uploads()
    uploads.trouble = lambda asked: Answer(503) if asked.method != "HEAD" else None
    with pytest.raises(errors.ServerTrouble):
        push(uploads, CHUNK)


def test_a_server_that_confirms_more_than_was_sent_is_not_believed() -> None:
    uploads = Uploads()

    def lie(asked: Asked) -> Answer | None:
        if asked.method == "PATCH":
            return Answer(202, b"", {"Location": "/v2/a/blobs/uploads/s0", "Range": "0-99999"})
        return None

    uploads.trouble = lie
    with pytest.raises(errors.BadAnswer, match="0-99999"):
        push(uploads, CHUNK)


def test_an_upload_location_off_tls_or_nowhere_is_refused() -> None:
    uploads = Uploads()
    uploads.trouble = lambda asked: (
        Answer(202, b"", {"Location": "ftp://x/"}) if asked.method == "POST" else None
    )
    with pytest.raises(errors.BadAnswer, match="not a URL"):
        push(uploads, CHUNK)


def test_other_bytes_than_the_digest_says_are_refused_by_the_registry() -> None:
    uploads = Uploads()
    with (
        scripted(uploads.answer) as server,
        Remote(server.address) as remote,
        pytest.raises(WrongDigest) as caught,
    ):
        remote.push_blob("a", digest_of(b"x"), DATA)
    assert "tepi model verify" in caught.value.remedy and not uploads.blobs


def test_a_file_that_became_shorter_is_named() -> None:
    source = Source(DIGEST, len(DATA) + 1, DATA)
    with pytest.raises(WrongSize, match=DIGEST):
        list(source.pieces(0, source.size, lambda _n: None))


def test_a_blob_from_another_repository_is_mounted() -> None:
    uploads = Uploads()
    uploads.trouble = lambda asked: Answer(201) if asked.method == "POST" else None
    with scripted(uploads.answer) as server, Remote(server.address) as remote:
        assert remote.push_blob("a", DIGEST, DATA, mount_from="b/c") == "mounted"
    query = parse_qs(urlsplit(server.asked[1].path).query)
    assert query == {"mount": [DIGEST], "from": ["b/c"]}


def test_a_mount_that_is_not_made_becomes_an_upload() -> None:
    uploads = Uploads()
    with scripted(uploads.answer) as server, Remote(server.address) as remote:
        assert remote.push_blob("a", DIGEST, DATA, mount_from="b/c") == "sent"
    assert uploads.blobs == {DIGEST: DATA}


# Manifests with a subject

SUBJECT = oci.Descriptor(oci.MANIFEST, digest_of(b"subject"), 7)
REFERRER = oci.Manifest(
    oci.Descriptor(oci.EMPTY, oci.EMPTY_DIGEST, 2), (), "x/y", {"k": "v"}, SUBJECT
).encode()
TAG = SUBJECT.digest.replace(":", "-")


class Manifests:
    """A registry without the referrers API."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.rival: Callable[[], None] = lambda: None

    def answer(self, asked: Asked) -> Answer:
        """The script of the server."""
        target = asked.path.rpartition("/")[2]
        if asked.method == "PUT":
            self.held[target] = asked.body
            if target == TAG:
                self.rival()
            return Answer(201, b"", {"Docker-Content-Digest": digest_of(asked.body)})
        if target not in self.held:
            return Answer(404)
        return Answer(200, self.held[target], {"Content-Type": oci.INDEX})


def test_the_referrers_tag_is_kept_where_there_is_no_api() -> None:
    manifests = Manifests()
    with scripted(manifests.answer) as server, Remote(server.address) as remote:
        digest = remote.push_manifest("a", digest_of(REFERRER), REFERRER, oci.MANIFEST)
        again = remote.push_manifest("a", digest_of(REFERRER), REFERRER, oci.MANIFEST)
        entries = remote.referrers("a", SUBJECT.digest).manifests
    assert digest == again and [e.digest for e in entries] == [digest]
    assert entries[0].artifact_type == "x/y" and entries[0].annotations == {"k": "v"}


def test_a_rival_who_writes_the_referrers_tag_meanwhile_loses_nothing() -> None:
    manifests = Manifests()
    other = oci.Descriptor(oci.MANIFEST, digest_of(b"rival"), 5)

    def overwrite() -> None:
        manifests.rival = lambda: None
        manifests.held[TAG] = oci.Index((other,)).encode()

    manifests.rival = overwrite
    with scripted(manifests.answer) as server, Remote(server.address) as remote:
        digest = remote.push_manifest("a", digest_of(REFERRER), REFERRER, oci.MANIFEST)
        entries = remote.referrers("a", SUBJECT.digest).manifests
    assert {e.digest for e in entries} == {digest, other.digest}


def test_rivals_without_end_are_named() -> None:
    manifests = Manifests()
    manifests.rival = lambda: manifests.held.update({TAG: oci.Index(()).encode()})
    with (
        scripted(manifests.answer) as server,
        Remote(server.address) as remote,
        pytest.raises(errors.BadAnswer, match="other writers"),
    ):
        remote.push_manifest("a", digest_of(REFERRER), REFERRER, oci.MANIFEST)


def test_a_registry_with_the_api_keeps_no_tag() -> None:
    def serve(asked: Asked) -> Answer:
        assert asked.method == "PUT"
        return Answer(201, b"", {"OCI-Subject": SUBJECT.digest})

    with scripted(serve) as server, Remote(server.address) as remote:
        remote.push_manifest("a", digest_of(REFERRER), REFERRER, oci.MANIFEST)
    assert len(server.asked) == 1


def test_a_manifest_that_is_stored_under_another_digest_is_refused() -> None:
    answer = Answer(201, b"", {"Docker-Content-Digest": digest_of(b"another")})
    with (
        scripted(lambda _asked: answer) as server,
        Remote(server.address) as remote,
        pytest.raises(WrongDigest),
    ):
        remote.push_manifest("a", "1.0", REFERRER, oci.MANIFEST)

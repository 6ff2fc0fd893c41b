# SPDX-License-Identifier: Apache-2.0
"""The pull side, clause by clause (OCI Distribution 1.1; RFC 9110 for ranges and conditions)."""

import asyncio
import hashlib
import json
import logging
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.digest import digest_of
from registry.oci import INDEX, MANIFEST, Descriptor, parse
from registry.origin import sending
from registry.origin.app import FIELDS, trust_path
from registry.origin.problems import LOGGER
from tests.registry.origin.running import Running

BLOB = bytes(range(256)) * 5000


async def test_the_base_says_that_this_is_a_registry(origin: Running) -> None:
    for path in ("/v2/", "/v2"):
        answer = await origin.ask("GET", path)
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


async def test_a_manifest_by_tag_and_by_digest(origin: Running) -> None:
    manifest, digest = await origin.push(BLOB)
    for target in ("v1", digest):
        for method in ("GET", "HEAD"):
            answer = await origin.ask(method, f"/v2/a/manifests/{target}")
            assert answer.status == 200
            assert answer.headers["Content-Type"] == MANIFEST
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.headers["Content-Length"] == str(len(manifest.encode()))
            assert answer.data == (manifest.encode() if method == "GET" else b"")
    same = await origin.ask("GET", "/v2/a/manifests/v1", headers={"If-None-Match": f'"{digest}"'})
    assert (same.status, same.data) == (304, b"")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/a/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("/v2/b/manifests/v1", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/sha256:12", 400, "DIGEST_INVALID"),
        ("/v2/A/manifests/v1", 400, "NAME_INVALID"),
        (f"/v2/a/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        ("/v2/a/blobs/sha256:x", 400, "DIGEST_INVALID"),
        ("/v2/b/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/a/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/a/nothing/here", 404, "NAME_UNKNOWN"),
        ("/else", 404, "NAME_UNKNOWN"),
    ],
)
async def test_errors_are_those_of_the_specification(
    origin: Running, path: str, status: int, code: str
) -> None:
    await origin.push(BLOB)
    answer = await origin.ask("GET", path)
    assert (answer.status, answer.code) == (status, code)


async def test_a_manifest_of_another_repository_is_not_here(origin: Running) -> None:
    _, digest = await origin.push(BLOB, name="a")
    await origin.push(b"other", name="b")
    assert (await origin.ask("GET", f"/v2/b/manifests/{digest}")).status == 404


async def test_a_blob_whole_and_in_parts(origin: Running) -> None:
    blob = await origin.push_blob(BLOB)
    path, etag = f"/v2/a/blobs/{blob.digest}", f'"{blob.digest}"'
    whole = await origin.ask("GET", path)
    assert (whole.status, whole.data) == (200, BLOB)
    assert whole.headers["ETag"] == etag and whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Docker-Content-Digest"] == blob.digest
    head = await origin.ask("HEAD", path)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(BLOB)))
    head = await origin.ask("HEAD", path, headers={"Range": "bytes=0-9"})  # for GET alone
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(BLOB)))
    for header, part in (("bytes=10-19", BLOB[10:20]), ("bytes=-7", BLOB[-7:])):
        answer = await origin.ask("GET", path, headers={"Range": header, "If-Range": etag})
        assert (answer.status, answer.data) == (206, part)
    full = await origin.ask("GET", path, headers={"Range": "bytes=0-"})
    assert full.headers["Content-Range"] == f"bytes 0-{len(BLOB) - 1}/{len(BLOB)}"
    other = await origin.ask("GET", path, headers={"Range": "bytes=1-2", "If-Range": '"x"'})
    assert (other.status, other.data) == (200, BLOB)
    behind = await origin.ask("GET", path, headers={"Range": f"bytes={len(BLOB)}-"})
    assert (behind.status, behind.headers["Content-Range"]) == (416, f"bytes */{len(BLOB)}")
    assert (await origin.ask("GET", path, headers={"If-None-Match": etag})).status == 304


async def test_an_empty_blob(origin: Running) -> None:
    blob = await origin.push_blob(b"")
    answer = await origin.ask("GET", f"/v2/a/blobs/{blob.digest}")
    assert (answer.status, answer.data) == (200, b"")


async def test_a_client_that_goes_away_leaves_the_others_alone(origin: Running) -> None:
    data = b"x" * (32 << 20)
    blob = await origin.push_blob(data)
    path = f"/v2/a/blobs/{blob.digest}"
    gone, writer = await asyncio.open_connection("127.0.0.1", origin.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await gone.readexactly(1000)  # and then takes nothing more
    assert (await origin.ask("GET", path)).data == data
    writer.transport.abort()
    assert (await origin.ask("GET", path)).data == data


async def test_a_client_that_takes_nothing_is_given_up(
    origin: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_SILENCE", 200)
    blob = await origin.push_blob(b"x" * (32 << 20))
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    class Ended(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.__dict__[FIELDS]["method"] == "GET":
                loop.call_soon(ended.set)

    handler = Ended()
    LOGGER.addHandler(handler)
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", origin.port)
        writer.write(f"GET /v2/a/blobs/{blob.digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(30):
            await reader.readexactly(1000)
            await ended.wait()
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        writer.transport.abort()


async def test_lists_by_pages(origin: Running) -> None:
    for name in ("a", "a/b", "c"):
        for tag in ("v1", "v2", "v3"):
            await origin.push(b"layer", tag=tag, name=name)
    assert json.loads((await origin.ask("GET", "/v2/_catalog")).data) == {
        "repositories": ["a", "a/b", "c"]
    }
    first = await origin.ask("GET", "/v2/a/b/tags/list?n=2")
    assert json.loads(first.data) == {"name": "a/b", "tags": ["v1", "v2"]}
    link = first.headers["Link"]
    assert link == '</v2/a/b/tags/list?n=2&last=v2>; rel="next"'
    rest = await origin.ask("GET", link[1 : link.index(">")])
    assert json.loads(rest.data)["tags"] == ["v3"] and "Link" not in rest.headers
    none = await origin.ask("GET", "/v2/a/tags/list?n=0")
    assert json.loads(none.data)["tags"] == []


async def test_referrers_of_a_manifest(origin: Running) -> None:
    manifest, digest = await origin.push(BLOB)
    subject = Descriptor(MANIFEST, digest, len(manifest.encode()))
    for kind, tag in (("application/x.delta", "d"), ("application/x.index", "i")):
        await origin.push(b"side", tag=tag, subject=subject, artifact_type=kind)
    answer = await origin.ask("GET", f"/v2/a/referrers/{digest}")
    assert answer.headers["Content-Type"] == INDEX and "OCI-Filters-Applied" not in answer.headers
    found = json.loads(answer.data)["manifests"]
    assert {entry["artifactType"] for entry in found} == {
        "application/x.delta",
        "application/x.index",
    }
    one = await origin.ask("GET", f"/v2/a/referrers/{digest}?artifactType=application/x.delta")
    assert one.headers["OCI-Filters-Applied"] == "artifactType"
    assert [e["artifactType"] for e in json.loads(one.data)["manifests"]] == ["application/x.delta"]
    none = await origin.ask("GET", f"/v2/a/referrers/{digest_of(b'unknown')}")
    assert (none.status, parse(none.data)) == (200, parse(none.data))
    assert json.loads(none.data)["manifests"] == []


async def test_trust_files_are_asked_for_again_and_cheaply(origin: Running) -> None:
    folder = origin.storage.trust / "metadata"
    folder.mkdir(parents=True)
    (folder / "timestamp.json").write_bytes(b'{"version": 1}')
    path = "/tuf/metadata/timestamp.json"
    answer = await origin.ask("GET", path)
    assert (answer.status, answer.data) == (200, b'{"version": 1}')
    assert answer.headers["Cache-Control"] == "no-cache"
    etag = answer.headers["ETag"]
    assert etag == f'"{hashlib.sha256(answer.data).hexdigest()}"'
    assert (await origin.ask("GET", path, headers={"If-None-Match": etag})).status == 304
    (folder / "timestamp.json").write_bytes(b'{"version": 2}')
    assert (await origin.ask("GET", path, headers={"If-None-Match": etag})).status == 200
    assert (await origin.ask("GET", "/tuf/metadata/2.root.json")).status == 404


async def test_a_damaged_tag_is_an_error_that_says_so(origin: Running) -> None:
    await origin.push(BLOB)
    (tag,) = origin.storage.root.rglob("tags/v1")
    tag.write_bytes(b"sha256:../../users")
    answer = await origin.ask("GET", "/v2/a/manifests/v1")
    assert (answer.status, answer.code) == (500, "UNKNOWN") and b"is not a digest" in answer.data


@given(st.text() | st.lists(st.sampled_from(["metadata", "..", ".", "", "a", "/"])).map("/".join))
def test_a_trust_path_never_leaves_its_folder(text: str) -> None:
    path = trust_path(text)
    if path is not None:
        assert PurePosixPath("/tuf", path).parts[1] == "tuf"
        assert not {"..", "."} & set(path.split("/")) and not path.startswith("/")


@pytest.mark.parametrize(
    "path",
    [
        "/tuf/metadata/../../users",
        "/tuf/metadata/..%2f..%2fusers",
        "/tuf/%2e%2e/users",
        "/tuf/metadata/.hidden",
        "/tuf/metadata/%00",
        "/tuf//metadata/x",
        "/tuf/keys/x.pem",
        "/v2/../users/manifests/v1",
        "/v2/a%2f..%2f..%2fusers/manifests/v1",
        "/v2/a/manifests/..%2f..%2fusers",
        "/v2/a/manifests/%2e%2e",
        "/v2/a/blobs/sha256:..%2f..%2f..%2fusers",
        "/v2/a/blobs/uploads/..%2f..%2fusers",
        "/v2/_manifests/manifests/v1",
    ],
)
async def test_path_traversal(origin: Running, path: str) -> None:
    secret = b"the users' hashes"
    (origin.storage.root / "users").write_bytes(secret)
    await origin.push(BLOB)
    request = f"GET {path} HTTP/1.1\nHost: x\nConnection: close\n\n"
    answer = await origin.raw(request)
    assert answer.split(b" ", 2)[1] in (b"400", b"404") and secret not in answer

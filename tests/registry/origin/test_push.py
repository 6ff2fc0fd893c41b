# SPDX-License-Identifier: Apache-2.0
"""The push side, clause by clause (OCI Distribution 1.1, Push), and what it refuses."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.oci import (
    EMPTY,
    EMPTY_DIGEST,
    MANIFEST,
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Manifest,
    describe,
)
from registry.origin import uploads
from tests.registry.origin.running import Running, running

BLOB = b"0123456789" * 1000
DIGEST = digest_of(BLOB)
CONFIG = Descriptor(EMPTY, EMPTY_DIGEST, 2)


async def start(origin: Running) -> str:
    answer = await origin.ask("POST", "/v2/a/blobs/uploads/")
    assert (answer.status, answer.headers["Range"]) == (202, "0-0")
    return answer.headers["Location"]


async def held(origin: Running, digest: str = DIGEST) -> bool:
    return (await origin.ask("HEAD", f"/v2/a/blobs/{digest}")).status == 200


async def test_in_chunks(origin: Running) -> None:
    where = await start(origin)
    for first in range(0, len(BLOB), 4000):
        chunk = BLOB[first : first + 4000]
        span = {"Content-Range": f"{first}-{first + len(chunk) - 1}"}
        answer = await origin.ask("PATCH", where, data=chunk, headers=span)
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{first + len(chunk) - 1}")
        where = answer.headers["Location"]
    answer = await origin.ask("PUT", f"{where}?digest={DIGEST}")
    assert answer.status == 201 and answer.headers["Docker-Content-Digest"] == DIGEST
    assert (await origin.ask("GET", answer.headers["Location"])).data == BLOB
    assert (await origin.ask("GET", where)).code == "BLOB_UPLOAD_UNKNOWN"


async def test_in_one_piece_after_a_post(origin: Running) -> None:
    where = await start(origin)
    assert (await origin.ask("PUT", f"{where}?digest={DIGEST}", data=BLOB)).status == 201
    assert await held(origin)


async def test_a_mount_of_what_is_here(origin: Running) -> None:
    await origin.push_blob(BLOB)
    answer = await origin.ask("POST", f"/v2/b/blobs/uploads/?mount={DIGEST}&from=a")
    assert (answer.status, answer.headers["Location"]) == (201, f"/v2/b/blobs/{DIGEST}")
    other = await origin.ask("POST", f"/v2/b/blobs/uploads/?mount={digest_of(b'')}&from=a")
    assert other.status == 202


async def test_a_cancelled_upload_leaves_nothing(origin: Running) -> None:
    where = await start(origin)
    await origin.ask("PATCH", where, data=BLOB)
    assert (await origin.ask("DELETE", where)).status == 204
    assert (await origin.ask("DELETE", where)).status == 404
    assert list(origin.storage.uploads.iterdir()) == []


async def test_wrong_digest(origin: Running) -> None:
    where = await start(origin)
    wrong = digest_of(b"something else")
    answer = await origin.ask("PUT", f"{where}?digest={wrong}", data=BLOB)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    answer = await origin.ask("POST", f"/v2/a/blobs/uploads/?digest={wrong}", data=BLOB)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert not await held(origin, wrong) and not await held(origin)
    assert list(origin.storage.uploads.iterdir()) == []


@pytest.mark.parametrize(
    ("span", "status"),
    [("5-9", 416), ("0-8", 413), ("0-x", 400), ("9-0", 400), ("1000000000000-1000000000009", 416)],
)
async def test_a_chunk_out_of_place(origin: Running, span: str, status: int) -> None:
    where = await start(origin)
    answer = await origin.ask("PATCH", where, data=BLOB[:10], headers={"Content-Range": span})
    assert answer.status == status
    if status == 416:
        assert answer.headers["Range"] == "0-0" and answer.headers["Location"] == where
    answer = await origin.ask("PATCH", where, data=BLOB, headers={"Content-Range": "0-9999"})
    assert answer.status == 202


async def test_truncated_upload_resumes(origin: Running) -> None:
    data = BLOB * 400
    where = await start(origin)
    _, writer = await asyncio.open_connection("127.0.0.1", origin.port)
    head = f"PATCH {where} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data[: 3 << 20])
    while (await origin.ask("GET", where)).headers["Range"] == "0-0":
        await writer.drain()  # until some of it has been written down
    writer.transport.abort()
    while True:  # until the broken request has let go of the session
        offset = int((await origin.ask("GET", where)).headers["Range"].split("-")[1]) + 1
        rest = {"Content-Range": f"{offset}-{len(data) - 1}"}
        answer = await origin.ask("PATCH", where, data=data[offset:], headers=rest)
        if answer.status not in (400, 416):
            break
    assert answer.status == 202 and 1 << 20 <= offset <= 3 << 20
    assert (await origin.ask("PUT", f"{where}?digest={digest_of(data)}")).status == 201


async def test_an_upload_resumes_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "r") as origin:
        where = await start(origin)
        assert (await origin.ask("PATCH", where, data=BLOB[:7000])).status == 202
    async with running(tmp_path / "r") as origin:
        assert (await origin.ask("GET", where)).headers["Range"] == "0-6999"
        answer = await origin.ask("PUT", f"{where}?digest={DIGEST}", data=BLOB[7000:])
        assert answer.status == 201


async def test_endless_data_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path / "r", max_blob=3 << 20) as origin:
        where = await start(origin)
        answer = await origin.ask("PATCH", where, data=b"x" * (5 << 20))
        assert (answer.status, answer.code) == (413, "SIZE_INVALID")
        assert sum(p.stat().st_size for p in origin.storage.uploads.iterdir()) <= 3 << 20


async def test_many_push_the_same_blob_at_once(origin: Running) -> None:
    found = await asyncio.gather(*(origin.push_blob(BLOB) for _ in range(20)))
    assert {blob.digest for blob in found} == {DIGEST}
    assert (await origin.ask("GET", f"/v2/a/blobs/{DIGEST}")).data == BLOB
    assert list(origin.storage.uploads.iterdir()) == []


async def test_two_requests_on_one_upload(origin: Running) -> None:
    where = await start(origin)
    _, writer = await asyncio.open_connection("127.0.0.1", origin.port)
    head = f"PATCH {where} HTTP/1.1\r\nHost: x\r\nContent-Length: {4 << 20}\r\n\r\n"
    writer.write(head.encode() + bytes(2 << 20))
    while (await origin.ask("GET", where)).headers["Range"] == "0-0":
        await writer.drain()
    answer = await origin.ask("PATCH", where, data=BLOB)
    assert (answer.status, answer.code) == (400, "BLOB_UPLOAD_INVALID")
    answer = await origin.ask("PUT", f"{where}?digest={DIGEST}", data=BLOB)
    assert (answer.status, answer.code) == (400, "BLOB_UPLOAD_INVALID")
    writer.transport.abort()


async def test_oversize_manifest(origin: Running) -> None:
    headers = {"Content-Type": MANIFEST}
    data = b" " * (MANIFEST_LIMIT + 1)
    answer = await origin.ask("PUT", "/v2/a/manifests/v1", data=data, headers=headers)
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")

    async def endless() -> AsyncIterator[bytes]:  # no Content-Length
        for _ in range(MANIFEST_LIMIT // 65536 + 2):
            yield b" " * 65536

    answer = await origin.ask("PUT", "/v2/a/manifests/v1", data=endless(), headers=headers)
    assert answer.status == 413


async def test_a_manifest_of_what_is_not_here(origin: Running) -> None:
    await origin.push_blob(b"{}")
    answer = await origin.push_manifest(
        Manifest(CONFIG, (Descriptor("application/x", DIGEST, len(BLOB)),)), "v1"
    )
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    await origin.push_blob(BLOB)
    answer = await origin.push_manifest(
        Manifest(CONFIG, (Descriptor("application/x", DIGEST, 5),)), "v1"
    )
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", MANIFEST),
        (b"{", MANIFEST),
        (b"[]", MANIFEST),
        (b'{"schemaVersion":1}', MANIFEST),
        (b"[" * 100_000, MANIFEST),
        (Manifest(CONFIG, ()).encode(), "text/plain"),
        (Index(()).encode(), MANIFEST),
        (
            Manifest(CONFIG, (), annotations={"a": "x"}).encode().replace(b'"x"', b'"\\ud800"'),
            MANIFEST,
        ),
    ],
)
async def test_bad_manifests(origin: Running, data: bytes, kind: str) -> None:
    await origin.push_blob(b"{}")
    answer = await origin.ask(
        "PUT", "/v2/a/manifests/v1", data=data, headers={"Content-Type": kind}
    )
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


async def test_dockers_schema_2(origin: Running) -> None:
    layer = await origin.push_blob(BLOB)
    await origin.push_blob(b"{}")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    found = json.loads(Manifest(CONFIG, (layer,)).encode()) | {"mediaType": kind}
    data, headers = json.dumps(found).encode(), {"Content-Type": kind}
    answer = await origin.ask("PUT", "/v2/a/manifests/v1", data=data, headers=headers)
    assert answer.status == 201
    got = await origin.ask("GET", "/v2/a/manifests/v1")
    assert (got.data, got.headers["Content-Type"]) == (data, kind)
    found["layers"][0]["digest"] = digest_of(b"not here")
    data = json.dumps(found).encode()
    answer = await origin.ask("PUT", "/v2/a/manifests/v1", data=data, headers=headers)
    assert answer.code == "MANIFEST_BLOB_UNKNOWN"


async def test_a_manifest_under_another_digest(origin: Running) -> None:
    await origin.push_blob(b"{}")
    answer = await origin.push_manifest(Manifest(CONFIG, ()), digest_of(b"other"))
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


async def test_an_index_needs_its_manifests_in_this_repository(origin: Running) -> None:
    manifest, _ = await origin.push(BLOB, name="b")
    entry, _ = describe(manifest)
    data = Index((entry,)).encode()
    kind = {"Content-Type": Index.media_type}
    answer = await origin.ask("PUT", "/v2/a/manifests/all", data=data, headers=kind)
    assert answer.code == "MANIFEST_BLOB_UNKNOWN"
    answer = await origin.ask("PUT", "/v2/b/manifests/all", data=data, headers=kind)
    assert answer.status == 201


async def test_a_referrer_says_so(origin: Running) -> None:
    await origin.push_blob(b"{}")
    subject = Descriptor(MANIFEST, digest_of(b"not here yet"), 12)
    answer = await origin.push_manifest(Manifest(CONFIG, (), "x", {}, subject), "d")
    assert answer.headers["OCI-Subject"] == subject.digest
    deleted = json.loads((await origin.ask("GET", f"/v2/a/referrers/{subject.digest}")).data)
    own = deleted["manifests"][0]["digest"]
    assert (await origin.ask("DELETE", f"/v2/a/manifests/{own}")).status == 202
    left = json.loads((await origin.ask("GET", f"/v2/a/referrers/{subject.digest}")).data)
    assert left["manifests"] == []


async def test_deleting(origin: Running) -> None:
    _, digest = await origin.push(BLOB)
    assert (await origin.ask("DELETE", "/v2/a/manifests/v1")).status == 202
    assert (await origin.ask("GET", "/v2/a/manifests/v1")).status == 404
    assert (await origin.ask("GET", f"/v2/a/manifests/{digest}")).status == 200
    await origin.push(BLOB, tag="v2")
    assert (await origin.ask("DELETE", f"/v2/a/manifests/{digest}")).status == 202
    assert json.loads((await origin.ask("GET", "/v2/a/tags/list")).data)["tags"] == []
    assert (await origin.ask("DELETE", f"/v2/a/manifests/{digest}")).status == 404
    assert (await origin.ask("DELETE", f"/v2/a/blobs/{DIGEST}")).status == 405


async def test_disk_full(origin: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: object, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads.Upload, "append", full)
    where = await start(origin)
    answer = await origin.ask("PATCH", where, data=BLOB)
    assert answer.status == 507 and b"full" in answer.data

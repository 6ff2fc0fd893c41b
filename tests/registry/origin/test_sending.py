# SPDX-License-Identifier: Apache-2.0
"""Bodies that come while they are sent, and bodies that cannot be finished."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from registry.digest import digest_of
from registry.oci import Descriptor
from registry.origin.app import HttpServer, make_app, tls_context
from registry.origin.pull import Pull
from registry.origin.source import Arriving, ManifestFound, SourceFailed, Stored, TrustFile
from registry.origin.users import Access

BLOB = bytes(range(251)) * 20_000
PATH = f"/v2/a/blobs/{digest_of(BLOB)}"


class Slowly:
    """An Arriving whose bytes the test lets in."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._here = 0
        self._failed = False
        self._more = asyncio.Condition()
        self.closed = False

    async def let_in(self, count: int, *, failed: bool = False) -> None:
        async with self._more:
            self._here += count
            self._failed = failed
            self._more.notify_all()

    async def size(self) -> int:
        return len(self._data)

    async def read(self, offset: int, limit: int) -> bytes:
        async with self._more:
            await self._more.wait_for(lambda: self._here > offset or self._failed)
            if self._here <= offset:
                raise SourceFailed("the origin broke off")
            return self._data[offset : min(self._here, offset + limit)]

    def close(self) -> None:
        self.closed = True


class One:
    """A Source of one blob."""

    def __init__(self, make: Callable[[], Stored | Arriving]) -> None:
        self._make = make

    async def manifest(self, name: str, target: str) -> ManifestFound | None:
        raise SourceFailed("no origin answers", "look at the uplink")

    async def content(self, name: str, digest: str, held: bool) -> Stored | Arriving | None:
        return None if held else self._make()

    async def referrers(self, name: str, digest: str) -> list[Descriptor]:
        return []

    async def trust_file(self, path: str) -> TrustFile | None:
        return None


@asynccontextmanager
async def serving(make: Callable[[], Stored | Arriving]) -> AsyncIterator[aiohttp.ClientSession]:
    server = HttpServer(make_app(Pull(One(make)).routes(), Access()), "127.0.0.1", 0)
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            yield session
    finally:
        await server.stop()


async def test_bytes_are_sent_before_the_last_has_come() -> None:
    content = Slowly(BLOB)
    async with serving(lambda: content) as session, session.get(PATH) as answer:
        assert answer.headers["Content-Length"] == str(len(BLOB))
        await content.let_in(1000)
        assert await answer.content.readexactly(1000) == BLOB[:1000]
        await content.let_in(len(BLOB))
        assert await answer.content.read() == BLOB[1000:]
    assert content.closed


async def test_a_range_waits_for_its_bytes() -> None:
    content = Slowly(BLOB)
    async with (
        serving(lambda: content) as session,
        session.get(PATH, headers={"Range": "bytes=5000-5999"}) as answer,
    ):
        assert answer.status == 206
        await content.let_in(5500)
        assert await answer.content.readexactly(500) == BLOB[5000:5500]
        await content.let_in(500)
        assert await answer.content.read() == BLOB[5500:6000]


async def test_a_source_that_fails_midway_is_no_whole_blob() -> None:
    content = Slowly(BLOB)
    async with serving(lambda: content) as session, session.get(PATH) as answer:
        await content.let_in(1000, failed=True)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_truncated_file_is_no_whole_blob(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BLOB[:1000])
    stored = Stored((tmp_path / "blob").open("rb", buffering=0), len(BLOB))
    async with serving(lambda: stored) as session, session.get(PATH) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_source_that_answers_nothing_is_503() -> None:
    async with serving(lambda: Slowly(BLOB)) as session:
        async with session.get("/v2/a/manifests/v1") as answer:
            assert answer.status == 503 and answer.headers["Retry-After"]
            assert "look at the uplink" in await answer.text()
        only = {"Cache-Control": "only-if-cached"}
        async with session.get(PATH, headers=only) as answer:
            assert answer.status == 504


async def test_over_tls(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    (tmp_path / "blob").write_bytes(BLOB)

    def stored() -> Stored:
        return Stored((tmp_path / "blob").open("rb", buffering=0), len(BLOB))

    server = HttpServer(make_app(Pull(One(stored)).routes(), Access()), "127.0.0.1", 0)
    await server.start(tls_context(str(certificate), str(key)))
    trusted = ssl.create_default_context(cafile=str(certificate))
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as session,
            session.get(f"https://localhost:{server.port}{PATH}") as answer,
        ):
            assert await answer.read() == BLOB
    finally:
        await server.stop()


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of localhost that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"

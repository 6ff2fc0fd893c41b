# SPDX-License-Identifier: Apache-2.0
"""A node serves what it holds, and what it is still fetching, to the nodes below it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from edge_server.fill.fills import Fills
from edge_server.fill.origins import Origins
from edge_server.fill.source import Origin
from edge_server.store.store import Store
from edge_server.tier.errors import CannotListen
from edge_server.tier.records import Records
from edge_server.tier.relay import Relay
from edge_server.tier.source import PATIENCE, TierSource
from edge_server.tier.tier import Tier
from registry.digest import digest_of
from registry.oci import EMPTY, EMPTY_DIGEST, Descriptor, Index, Manifest
from registry.remote.client import Remote
from tests.edge_server.tier.held_origin import HeldOrigin, held_origin

BLOB = random.Random(5).randbytes(6 << 20)
MANIFEST = Manifest(Descriptor(EMPTY, EMPTY_DIGEST, 2), ()).encode()
CLIENTS = 50


class Clock:
    """Seconds since 1970 that the test moves."""

    now = 1.8e9

    def __call__(self) -> float:
        return self.now


@dataclass
class Region:
    """A node between origins and clients."""

    tier: Tier
    store: Store
    fills: Fills
    clock: Clock
    url: str


@contextmanager
def region(folder: Path, *held: HeldOrigin, patience: float = PATIENCE) -> Iterator[Region]:
    clock = Clock()
    remotes = [Remote(origin.url, insecure=True) for origin in held]
    origins = Origins(
        [Origin(f"o{n}", r.base, r, priority=n) for n, r in enumerate(remotes)],
        rng=random.Random(1),
    )
    store = Store.open(folder / "store")
    fills = Fills(store, origins, rng=random.Random(1))
    tier = Tier(store, fills, origins, folder / "tier", clock, patience=patience)
    url = tier.start("127.0.0.1:0")
    try:
        yield Region(tier, store, fills, clock, url)
    finally:
        for origin in held:
            origin.gate.set()
        tier.stop()
        fills.stop()
        store.close()
        for remote in remotes:
            remote.close()


@asynccontextmanager
async def client(node: Region) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(node.url, connector=connector) as session:
        yield session


@pytest.fixture
def origin() -> Iterator[HeldOrigin]:
    with held_origin() as found:
        yield found


@pytest.fixture
def node(tmp_path: Path, origin: HeldOrigin) -> Iterator[Region]:
    with region(tmp_path, origin) as found:
        yield found


async def test_fifty_cold_clients_make_one_fetch_and_have_bytes_before_the_origin_has_sent_its_last(
    origin: HeldOrigin, node: Region
) -> None:
    path = origin.hold_blob(BLOB)
    origin.gate.clear()
    began = 0

    async def fetch(session: aiohttp.ClientSession) -> bytes:
        nonlocal began
        async with session.get(path) as answer:
            assert answer.headers["Content-Length"] == str(len(BLOB))
            first = await answer.content.readany()
            assert first and not origin.gate.is_set()
            began += 1
            if began == CLIENTS:  # only now may the origin send its second half
                origin.gate.set()
            return hashlib.sha256(first + await answer.content.read()).digest()

    async with client(node) as session:
        found = await asyncio.gather(*(fetch(session) for _ in range(CLIENTS)))
    assert set(found) == {hashlib.sha256(BLOB).digest()}
    assert origin.gets[path] == 1
    counts = node.tier.counts
    assert (counts.misses, counts.joined, counts.bytes) == (1, CLIENTS - 1, CLIENTS * len(BLOB))
    assert node.store.path(digest_of(BLOB)) is not None


async def test_ranges_of_a_cold_blob_share_its_fetch(origin: HeldOrigin, node: Region) -> None:
    path, half = origin.hold_blob(BLOB), len(BLOB) // 2
    origin.gate.clear()
    async with client(node) as session:

        async def part(first: int, last: int) -> bytes:
            async with session.get(path, headers={"Range": f"bytes={first}-{last}"}) as answer:
                assert answer.status == 206
                assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(BLOB)}"
                return await answer.read()

        far = asyncio.create_task(part(half + 1000, half + 1999))
        assert await part(10, 19) == BLOB[10:20]  # here long before the rest is
        assert await part(half - 70000, half - 65537) == BLOB[half - 70000 : half - 65536]
        assert not far.done()
        origin.gate.set()
        assert await far == BLOB[half + 1000 : half + 2000]
    assert origin.gets[path] == 1


async def test_a_client_that_goes_away_does_not_stop_the_fill(
    origin: HeldOrigin, node: Region
) -> None:
    path = origin.hold_blob(BLOB)
    origin.gate.clear()
    async with client(node) as session, session.get(path) as answer:
        await answer.content.readany()
    fill = node.fills.find(digest_of(BLOB))
    assert fill is not None
    origin.gate.set()
    assert (await asyncio.to_thread(fill.wait, 30)).read_bytes() == BLOB
    assert origin.gets[path] == 1


async def test_a_slow_client_does_not_hold_the_others(origin: HeldOrigin, node: Region) -> None:
    path = origin.hold_blob(BLOB)
    async with client(node) as session, session.get(path) as slow:
        await slow.content.readany()  # and takes no more for a while
        async with session.get(path) as answer:
            assert await answer.read() == BLOB
        async with session.get("/v2/") as answer:
            assert answer.status == 200
    assert origin.gets[path] == 1


async def test_an_origin_that_breaks_off_is_followed_by_the_next(tmp_path: Path) -> None:
    with held_origin() as first, held_origin() as second:
        path = first.hold_blob(BLOB)
        second.hold_blob(BLOB)
        first.cut = True
        first.gate.clear()
        with region(tmp_path, first, second) as node:
            async with client(node) as session, session.get(path) as answer:
                begun = await answer.content.readany()
                first.down = True
                first.gate.set()
                assert begun + await answer.content.read() == BLOB
        assert second.gets[path] >= 1


async def test_only_what_is_held_where_a_peer_asks(origin: HeldOrigin, node: Region) -> None:
    path = origin.hold_blob(BLOB)
    only = {"Cache-Control": "only-if-cached"}
    async with client(node) as session:
        async with session.get(path, headers=only) as answer:
            assert answer.status == 504
        assert not origin.gets
        async with session.get(path) as answer:
            await answer.read()
        await asyncio.to_thread(_settled, node)
        async with session.get(path, headers=only) as answer:
            assert (answer.status, await answer.read()) == (200, BLOB)


def _settled(node: Region) -> None:
    for fill in node.fills.under_way():
        fill.wait(30)


async def test_what_nobody_has_is_404_and_asked_once(origin: HeldOrigin, node: Region) -> None:
    path = f"/v2/a/blobs/{digest_of(b'nowhere')}"
    async with client(node) as session:
        for _ in range(3):
            async with session.get(path) as answer:
                assert answer.status == 404
            async with session.get("/v2/a/manifests/none") as answer:
                assert answer.status == 404
    assert origin.gets[path] == 1


async def test_no_origin_at_all_is_503_in_time(tmp_path: Path, origin: HeldOrigin) -> None:
    origin.down = True
    with region(tmp_path, origin, patience=0.2) as node:
        async with client(node) as session:
            path = f"/v2/a/blobs/{digest_of(BLOB)}"
            async with session.get(path) as answer:
                assert answer.status == 503 and answer.headers["Retry-After"]
            async with session.get("/v2/a/manifests/v1") as answer:
                assert answer.status == 503


async def test_a_tag_is_asked_again_after_a_while_and_served_stale(
    origin: HeldOrigin, node: Region
) -> None:
    digest = origin.hold_manifest(MANIFEST, "v1")
    path = "/v2/a/manifests/v1"
    async with client(node) as session:

        async def tag() -> str:
            async with session.get(path) as answer:
                assert answer.status == 200, await answer.text()
                data = await answer.read()
                assert digest_of(data) == answer.headers["Docker-Content-Digest"]
                return digest_of(data)

        assert [await tag() for _ in range(3)] == [digest] * 3
        assert origin.gets[path] == 1
        other = origin.hold_manifest(Index(()).encode(), "v1")
        node.clock.now += 10
        assert await tag() == other
        origin.down = True
        node.clock.now += 1000
        assert await tag() == other
        async with session.get(f"/v2/a/manifests/{digest}") as answer:  # held for ever
            assert await answer.read() == MANIFEST


async def test_many_ask_for_a_tag_and_one_goes(
    tmp_path: Path, origin: HeldOrigin, node: Region
) -> None:
    origin.hold_manifest(MANIFEST, "v1")
    origin.gate.clear()
    with Remote(origin.url, insecure=True) as remote, ThreadPoolExecutor(4) as threads:
        origins = Origins([Origin("o", remote.base, remote)])
        relay = Relay(node.store, origins, Records(tmp_path / "records"))
        source = TierSource(node.store, node.fills, relay, threads)
        tasks = [asyncio.create_task(source.manifest("a", "v1")) for _ in range(20)]
        leaving = asyncio.create_task(source.manifest("a", "v1"))
        await asyncio.sleep(0)  # each has asked
        leaving.cancel()
        origin.gate.set()
        found = await asyncio.gather(*tasks)
    assert {one.data for one in found if one is not None} == {MANIFEST} and None not in found
    assert origin.gets["/v2/a/manifests/v1"] == 1


async def test_a_blob_is_no_manifest(origin: HeldOrigin, node: Region) -> None:
    path = origin.hold_blob(BLOB[:100])
    async with client(node) as session:
        async with session.get(path) as answer:
            await answer.read()
        await asyncio.to_thread(_settled, node)
        async with session.get(path.replace("/blobs/", "/manifests/")) as answer:
            assert answer.status == 404


async def test_trust_files_go_through_and_are_served_stale(
    origin: HeldOrigin, node: Region
) -> None:
    path = "/tuf/metadata/timestamp.json"
    origin.bodies[path] = (b'{"version":1}', "application/json")
    async with client(node) as session:

        async def get(where: str = path) -> tuple[int, bytes]:
            async with session.get(where) as answer:
                return answer.status, await answer.read()

        assert await get() == await get() == (200, b'{"version":1}')
        node.clock.now += 10
        assert await get() == (200, b'{"version":1}') and origin.gets[path] == 2  # 304 from above
        origin.bodies[path] = (b'{"version":2}', "application/json")
        node.clock.now += 10
        assert await get() == (200, b'{"version":2}')
        assert (await get("/tuf/metadata/2.root.json"))[0] == 404
        origin.down = True
        node.clock.now += 10
        assert await get() == (200, b'{"version":2}')
        assert (await get("/tuf/metadata/3.root.json"))[0] == 404  # not on this mirror
        assert (await get("/tuf/metadata/9.targets.json"))[0] == 503
        asked = origin.gets.total()
        assert (await get("/tuf/metadata/..%2f..%2fstore"))[0] == 404
        assert origin.gets.total() == asked


async def test_all_origins_down_and_a_restart(tmp_path: Path, origin: HeldOrigin) -> None:
    path = origin.hold_blob(BLOB)
    digest = origin.hold_manifest(MANIFEST, "v1")
    origin.bodies["/tuf/metadata/root.json"] = (b"{}", "application/json")
    wanted = (path, "/v2/a/manifests/v1", "/tuf/metadata/root.json")
    with region(tmp_path, origin) as node:
        async with client(node) as session:
            for where in wanted:
                async with session.get(where) as answer:
                    await answer.read()
        await asyncio.to_thread(_settled, node)
    origin.down = True
    with region(tmp_path, origin) as node:
        node.clock.now += 86400
        async with client(node) as session:
            bodies = []
            for where in wanted:
                async with session.get(where) as answer:
                    assert answer.status == 200, await answer.text()
                    bodies.append(await answer.read())
    assert bodies == [BLOB, MANIFEST, b"{}"] and digest == digest_of(MANIFEST)


async def test_referrers_come_from_further_up(origin: HeldOrigin, node: Region) -> None:
    subject = digest_of(MANIFEST)
    path = f"/v2/a/referrers/{subject}"
    entry = Descriptor(Manifest.media_type, digest_of(b"delta"), 5, {}, "application/x.delta")
    origin.bodies[path] = (Index((entry,)).encode(), Index.media_type)
    async with client(node) as session:
        for asked in ("", "?artifactType=application/x.delta"):
            async with session.get(path + asked) as answer:
                found = json.loads(await answer.read())["manifests"]
                assert [e["digest"] for e in found] == [entry.digest]
        async with session.get(f"{path}?artifactType=other") as answer:
            assert json.loads(await answer.read())["manifests"] == []
    assert origin.gets[path] == 1


async def test_nothing_is_pushed_here(node: Region) -> None:
    async with client(node) as session:
        for method, path in (("POST", "/v2/a/blobs/uploads/"), ("PUT", "/v2/a/manifests/v1")):
            async with session.request(method, path, data=b"x") as answer:
                assert answer.status in (403, 405)


def test_an_address_in_use_and_an_address_that_is_none(tmp_path: Path, node: Region) -> None:
    other = Tier(node.store, node.fills, Origins(), tmp_path / "t")
    for listen in (node.url.removeprefix("http://"), "nowhere", "h:99999"):
        with pytest.raises(CannotListen):
            other.start(listen)
    assert threading.active_count() < 20

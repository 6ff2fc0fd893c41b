# SPDX-License-Identifier: Apache-2.0
"""Against the origin of `tepi registry serve`, which has the referrers API and keeps what came of a
chunk before the connection broke."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import tepi
from registry.digest import digest_of
from registry.package.layout import Layout
from registry.remote.backoff import Retry
from registry.remote.client import Remote
from registry.remote.errors import Truncated
from tests.registry.origin.running import running
from tests.registry.remote.package import BLOCK_INDEX, DELTA, make_package

DATA = random.Random(9).randbytes(8 << 20)
DIGEST = digest_of(DATA)
CHUNK = 4 << 20
CUT = 6 << 20


async def test_a_package_and_its_referrers_there_and_back(tmp_path: Path) -> None:
    layout = make_package(tmp_path / "one.oci")
    root = layout.resolve("1.0")

    def there_and_back(address: str) -> None:
        where = f"{address}/there/back:1.0"
        assert tepi.main(["model", "push", str(layout.path), where]) == 0
        words = ["pull", where, "-o", str(tmp_path / "two"), "--referrers"]
        assert tepi.main(["model", *words]) == 0
        with Remote(address) as remote:
            assert remote.tags("there/back") == ["1.0"]  # no referrers tag where there is the API
            assert len(remote.referrers("there/back", root.digest, DELTA).manifests) == 1
            assert not remote.referrers("there/back", root.digest, BLOCK_INDEX).manifests

    async with running(tmp_path / "registry") as origin:
        await asyncio.to_thread(there_and_back, f"127.0.0.1:{origin.port}")
    copy = Layout(tmp_path / "two")
    held = copy.reachable(copy.index.manifests)
    assert held.keys() == layout.reachable(layout.index.manifests).keys()
    for blob in held.values():
        copy.check_blob(blob)


async def test_a_chunk_that_was_cut_goes_on_in_its_middle(tmp_path: Path) -> None:
    told: list[int] = []

    def tell(offset: int) -> None:
        told.append(offset)
        if offset >= CUT and told.count(offset) == 1:
            raise Truncated("the test cuts here")

    def push(address: str) -> bytes:
        retry = Retry(500, sleep=lambda _seconds: None)
        with Remote(address) as remote:
            remote.push_blob("a", DIGEST, DATA, chunk=CHUNK, retry=retry, tell=tell)
            return remote.read_blob("a", DIGEST, len(DATA))

    async with running(tmp_path / "registry") as origin:
        assert await asyncio.to_thread(push, f"127.0.0.1:{origin.port}") == DATA
    after = told[told.index(CUT) + 1]
    assert after > CHUNK, told  # the first chunk and a part of the second stay sent

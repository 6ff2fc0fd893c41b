# SPDX-License-Identifier: Apache-2.0
"""The embedded origin serves what nodes read of trust, and nothing else of it."""

from __future__ import annotations

import asyncio

import pytest

from registry import errors
from registry.digest import digest_of
from registry.oci import Manifest
from registry.remote.client import Remote
from registry.trust.packages import package_in_registry
from registry.trust.sources import HttpSource
from tests.registry.origin.running import running
from tests.registry.trust.conftest import World


async def test_a_node_follows_the_embedded_origin(world: World) -> None:
    async with running(world.path) as origin:
        source = HttpSource(f"http://127.0.0.1:{origin.port}/tuf")
        node = world.node()
        for changed in (True, False):
            trusted = await asyncio.to_thread(node.refresh, [source], "canary")
            assert trusted.changed == changed
        assert trusted.desired("canary").models[0].name == "digits"


@pytest.mark.parametrize("where", ["pending/targets.json", "settings.json", ".lock", "../keys"])
async def test_nothing_but_metadata_and_targets_is_served(world: World, where: str) -> None:
    (world.path / "tuf" / "pending").mkdir(exist_ok=True)
    (world.path / "tuf" / "pending" / "targets.json").write_text("{}")
    async with running(world.path) as origin:
        assert (await origin.ask("GET", f"/tuf/{where}")).status == 404


async def test_a_package_is_signed_by_what_a_registry_says_it_is(world: World) -> None:
    async with running(world.path) as origin:
        blob = await origin.push_blob(b"model", "vision/digits")
        manifest = Manifest(blob, (blob,))
        assert (await origin.push_manifest(manifest, "2.0", "vision/digits")).status == 201
        digest = digest_of(manifest.encode())
        with Remote(f"127.0.0.1:{origin.port}") as remote:
            text = "vision/digits:2.0"
            found = await asyncio.to_thread(package_in_registry, text, remote)
            assert (found.digest, found.size) == (digest, len(manifest.encode()))
            with pytest.raises(errors.NotFound):
                await asyncio.to_thread(package_in_registry, f"{text}@{blob.digest}", remote)
            with pytest.raises(errors.NotFound):
                await asyncio.to_thread(package_in_registry, "vision/digits:9", remote)

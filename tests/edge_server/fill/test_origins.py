# SPDX-License-Identifier: Apache-2.0
"""Documents from whichever origin answers first, and what is said where none does."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from edge_server.fill.errors import AllOriginsDown
from edge_server.fill.origins import Origins
from edge_server.fill.source import Origin
from registry import oci
from registry.digest import digest_of
from registry.errors import NotFound
from registry.remote.client import Remote
from tests.edge_server.fill import scripted
from tests.edge_server.fill.fake_time import FakeTime
from tests.edge_server.fill.scripted import NAME, Handler, Registry, origins_of

MANIFEST = oci.Manifest(oci.Descriptor(oci.EMPTY, oci.EMPTY_DIGEST, 2), ()).encode()
DIGEST = digest_of(MANIFEST)
PATH = f"/v2/{NAME}/manifests/{DIGEST}"
TUF = "/tuf/metadata/timestamp.json"


@pytest.fixture
def origins(registry: Registry, second: Registry, time: FakeTime) -> Iterator[Origins]:
    """Of the two registries, both of which have all."""
    for one in (registry, second):
        one.documents |= {PATH: MANIFEST, TUF: b"{}"}
    with origins_of(registry, second) as there:
        yield Origins(there, time=time, rng=random.Random(1))


def test_the_first_in_order_answers(registry: Registry, second: Registry, origins: Origins) -> None:
    assert origins.manifest(NAME, DIGEST)[0] == MANIFEST
    assert origins.get(TUF, 100).data == b"{}"
    assert len(registry.asked) == 2
    assert second.asked == []


def test_priority_goes_before_order(time: FakeTime) -> None:
    with Remote("127.0.0.1:1") as remote:
        far = Origin("far", "", remote, priority=2)
        near = Origin("near", "", remote, priority=1)
        assert [origin.name for origin in Origins([far, near], time=time)] == ["near", "far"]


def test_failover_for_documents(registry: Registry, second: Registry, origins: Origins) -> None:
    registry.always = scripted.refuse(502)
    assert origins.manifest(NAME, DIGEST)[0] == MANIFEST
    assert origins.get(TUF, 100).origin == "o1"
    health = {one.name: one for one in origins.report()}
    assert not health["o0"].healthy
    assert "502" in health["o0"].reason
    assert (health["o0"].failures, health["o1"].failures) == (2, 0)


def test_an_origin_that_failed_often_is_left_alone_for_a_while(
    registry: Registry, origins: Origins, time: FakeTime
) -> None:
    registry.always = scripted.refuse(502)
    for _ in range(5):
        origins.get(TUF, 100)
    assert len(registry.asked) == 3
    registry.always = None
    time.advance(origins.report()[0].retry_in)
    assert origins.get(TUF, 100).origin == "o0"
    assert origins.report()[0].healthy


def test_an_unchanged_document_is_not_sent_again(registry: Registry, origins: Origins) -> None:
    def act(handler: Handler, _data: bytes) -> None:
        assert handler.headers["If-None-Match"] == '"tag"'
        handler.status(304, ETag='"tag"')

    registry.script.append(act)
    found = origins.get(TUF, 100, '"tag"')
    assert (found.data, found.etag) == (None, '"tag"')


def test_endless_document(registry: Registry, origins: Origins) -> None:
    registry.always = scripted.endless
    assert origins.get(TUF, 100).origin == "o1"


def test_manifest_with_a_wrong_digest(registry: Registry, origins: Origins) -> None:
    registry.documents[PATH] = MANIFEST + b" "
    assert origins.manifest(NAME, DIGEST)[0] == MANIFEST
    assert "digest" in origins.report()[0].reason


def test_what_no_origin_has(registry: Registry, second: Registry, origins: Origins) -> None:
    for one in (registry, second):
        one.documents.clear()
    with pytest.raises(NotFound, match="no origin has it"):
        origins.manifest(NAME, DIGEST)
    assert all(health.healthy for health in origins.report())


def test_all_origins_down(registry: Registry, second: Registry, origins: Origins) -> None:
    """Each is named with its reason; that one merely lacks it does not make it missing."""
    registry.documents.clear()
    second.always = scripted.refuse(503, Retry_After="60")
    with pytest.raises(AllOriginsDown) as caught:
        origins.manifest(NAME, DIGEST)
    assert "404" in caught.value.reasons["o0"]
    assert "503" in caught.value.reasons["o1"]
    assert "asked again in 60 s" in caught.value.reasons["o1"]


def test_no_origin_at_all() -> None:
    with pytest.raises(AllOriginsDown, match="none is configured"):
        Origins().get(TUF, 100)


def test_referrers(registry: Registry, origins: Origins) -> None:
    index = oci.Index((oci.Descriptor(oci.MANIFEST, DIGEST, len(MANIFEST)),))
    registry.documents[f"/v2/{NAME}/referrers/{DIGEST}"] = index.encode()
    assert origins.referrers(NAME, DIGEST).manifests[0].digest == DIGEST

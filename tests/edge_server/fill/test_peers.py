# SPDX-License-Identifier: Apache-2.0
"""Blocks from here, from peers that may lie, and from origins last."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edge_server.fill.errors import FillFailed
from edge_server.fill.fill import Want
from edge_server.store.store import Store
from registry.delta.block_index import BlockIndex, index_file, parse
from registry.digest import digest_of
from tests.edge_server.fill import scripted
from tests.edge_server.fill.conftest import MakeFills
from tests.edge_server.fill.scripted import NAME, Handler, Registry, some_bytes, truncate

SIZE = 3 << 20
OLD = some_bytes(SIZE)
NEW = OLD[: 1 << 20] + some_bytes(100, 7) + OLD[(1 << 20) + 90 :]  # the rest is moved by ten bytes
DIGEST = digest_of(NEW)


@pytest.fixture
def index(tmp_path: Path) -> BlockIndex:
    """Of the new blob."""
    return indexed(NEW, tmp_path)


def indexed(data: bytes, folder: Path) -> BlockIndex:
    path = folder / "blob"
    path.write_bytes(data)
    return parse(index_file(path))


def test_blocks_of_an_older_blob_are_not_fetched(
    registry: Registry, store: Store, make_fills: MakeFills, index: BlockIndex, tmp_path: Path
) -> None:
    registry.add(NEW)
    store.add(OLD, digest_of(OLD))
    want = Want(NAME, DIGEST, len(NEW), index=index, holders=(indexed(OLD, tmp_path),))
    fills = make_fills(registry)
    fill = fills.start(want)
    assert fill.wait(20).read_bytes() == NEW
    assert fill.sources["origin o0"] < SIZE // 8
    assert fill.sources["local"] > SIZE * 7 // 8
    assert fills.totals() == fill.sources
    assert len(registry.asked) == 1
    assert registry.ranges()[0].startswith("bytes=")


def test_an_older_blob_that_rotted_is_not_believed(
    registry: Registry, store: Store, make_fills: MakeFills, index: BlockIndex, tmp_path: Path
) -> None:
    registry.add(NEW)
    path = store.add(OLD, digest_of(OLD))
    holder = indexed(OLD, tmp_path)
    path.chmod(0o644)
    path.write_bytes(OLD[:100] + b"?" + OLD[101:])
    want = Want(NAME, DIGEST, len(NEW), index=index, holders=(holder,))
    fill = make_fills(registry).start(want)
    assert fill.wait(20).read_bytes() == NEW
    assert fill.attempt == 0
    assert fill.sources["local"] > SIZE // 2


def test_a_damaged_blob_is_mended_from_what_is_left_of_it(
    registry: Registry, store: Store, make_fills: MakeFills, index: BlockIndex
) -> None:
    registry.add(NEW)
    path = store.add(NEW, DIGEST)
    path.chmod(0o644)
    path.write_bytes(NEW[: SIZE // 2] + b"?" + NEW[SIZE // 2 + 1 :])
    assert store.verify()
    fills = make_fills(registry)
    want = Want(NAME, DIGEST, len(NEW), index=index)
    assert store.repair(lambda _digest: fills.start(want).wait(20)).mended == (DIGEST,)
    path = store.path(DIGEST) or path
    assert path.read_bytes() == NEW
    assert registry.sent <= 256 << 10


def test_peers_before_origins(
    registry: Registry, second: Registry, make_fills: MakeFills, index: BlockIndex
) -> None:
    second.add(NEW)
    fill = make_fills(registry, peers=(second,)).start(Want(NAME, DIGEST, len(NEW), index=index))
    assert fill.wait(20).read_bytes() == NEW
    assert fill.sources == {"peer p0": len(NEW)}
    assert registry.asked == []


def test_a_peer_that_lies(
    registry: Registry, second: Registry, make_fills: MakeFills, index: BlockIndex
) -> None:
    """Its good blocks are kept, the bad one comes from elsewhere, and it is never asked again."""
    registry.add(NEW)
    second.add(NEW)
    second.always = scripted.lie
    fills = make_fills(registry, peers=(second,))
    fill = fills.start(Want(NAME, DIGEST, len(NEW), index=index))
    assert fill.wait(20).read_bytes() == NEW
    assert fill.attempt == 0
    rest = registry.ranges()[0]
    assert SIZE // 4 < int(rest.removeprefix("bytes=").partition("-")[0]) <= SIZE // 2
    other = some_bytes(1000, 3)
    registry.add(other)
    asked = len(second.asked)
    assert fills.start(Want(NAME, digest_of(other), 1000)).wait(20)
    assert len(second.asked) == asked


def test_a_peer_that_lies_about_a_blob_without_index(
    registry: Registry, second: Registry, make_fills: MakeFills
) -> None:
    registry.add(NEW)
    second.add(NEW)
    second.always = scripted.lie
    fill = make_fills(registry, peers=(second,)).start(Want(NAME, DIGEST, len(NEW)))
    assert fill.wait(20).read_bytes() == NEW
    assert fill.attempt == 1
    assert len(second.asked) == 1
    assert registry.ranges() == [""]


def test_a_peer_that_lacks_the_blob(
    registry: Registry, second: Registry, make_fills: MakeFills
) -> None:
    registry.add(NEW)
    second.always = scripted.refuse(504)  # RFC 9111, 5.2.1.7
    fill = make_fills(registry, peers=(second,)).start(Want(NAME, DIGEST, len(NEW)))
    assert fill.wait(20).read_bytes() == NEW
    assert len(second.asked) == 1


def test_a_peer_that_dies_in_the_middle(
    registry: Registry, second: Registry, make_fills: MakeFills, index: BlockIndex
) -> None:
    registry.add(NEW)
    second.add(NEW)
    second.script.append(truncate(SIZE // 2))
    second.always = scripted.refuse(500)
    fill = make_fills(registry, peers=(second,)).start(Want(NAME, DIGEST, len(NEW), index=index))
    assert fill.wait(20).read_bytes() == NEW
    assert registry.sent < SIZE // 2 + (256 << 10)


def test_an_index_that_is_not_the_blobs(
    registry: Registry, store: Store, make_fills: MakeFills, index: BlockIndex, tmp_path: Path
) -> None:
    """Its blocks prove themselves and make another blob: the whole comes from the origin."""
    registry.add(NEW)
    store.add(OLD, digest_of(OLD))
    old = indexed(OLD, tmp_path)
    wrong = BlockIndex(DIGEST, old.size, old.blocks)
    registry.put_under(DIGEST, NEW[:SIZE])
    fill = make_fills(registry).start(Want(NAME, DIGEST, SIZE, index=wrong, holders=(old,)))
    with pytest.raises(FillFailed, match="no source gives"):
        fill.wait(20)
    good = NEW[:SIZE]
    wrong = BlockIndex(registry.add(good), old.size, old.blocks)
    want = Want(NAME, digest_of(good), SIZE, index=wrong, holders=(old,))
    assert make_fills(registry).start(want).wait(20).read_bytes() == good


def test_resumed_within_a_block(
    registry: Registry, store: Store, make_fills: MakeFills, index: BlockIndex, tmp_path: Path
) -> None:
    """A prefix that ends within a block goes on there."""
    registry.add(NEW)
    store.add(OLD, digest_of(OLD))
    with store.partial(DIGEST, len(NEW)) as partial:
        partial.write(NEW[:12345])
    want = Want(NAME, DIGEST, len(NEW), index=index, holders=(indexed(OLD, tmp_path),))
    fill = make_fills(registry).start(want)
    assert fill.wait(20).read_bytes() == NEW
    assert fill.attempt == 0
    assert sum(fill.sources.values()) <= len(NEW) - 12345 + (256 << 10)


def test_a_corrupted_prefix_and_an_index(
    registry: Registry, store: Store, make_fills: MakeFills, index: BlockIndex, tmp_path: Path
) -> None:
    """It is thrown away, and the blocks that are here are still not fetched."""
    registry.add(NEW)
    store.add(OLD, digest_of(OLD))
    with store.partial(DIGEST, len(NEW)) as partial:
        partial.write(b"?" * 12345)
    want = Want(NAME, DIGEST, len(NEW), index=index, holders=(indexed(OLD, tmp_path),))
    fill = make_fills(registry).start(want)
    assert fill.wait(20).read_bytes() == NEW
    assert fill.attempt == 1
    assert registry.sent < SIZE // 2


def test_an_origin_that_ignores_ranges_gives_the_whole_at_once(
    registry: Registry, store: Store, make_fills: MakeFills, index: BlockIndex, tmp_path: Path
) -> None:
    """Not the whole again for each range."""
    changed = bytearray(OLD)
    for at in range(0, SIZE, SIZE // 5):
        changed[at] ^= 1
    data = bytes(changed)
    digest = registry.add(data)
    registry.always = scripted.ignore_range
    store.add(OLD, digest_of(OLD))
    old, new = indexed(OLD, tmp_path), indexed(data, tmp_path)
    want = Want(NAME, digest, SIZE, index=new, holders=(old,))
    assert make_fills(registry).start(want).wait(20).read_bytes() == data
    assert len(registry.asked) <= 3


def test_a_liar_among_blocks_of_an_origin(
    registry: Registry,
    second: Registry,
    third: Registry,
    make_fills: MakeFills,
    index: BlockIndex,
) -> None:
    """With an index an origin's lie is found at the block and costs no more than that."""
    registry.add(NEW)
    second.add(NEW)
    registry.always = scripted.lie
    fills = make_fills(registry, second, peers=(third,))
    fill = fills.start(Want(NAME, DIGEST, len(NEW), index=index))
    assert fill.wait(20).read_bytes() == NEW
    assert fill.attempt == 0
    assert fill.sources["origin o1"] < SIZE * 3 // 4


def test_two_nodes_never_wait_for_each_other(
    registry: Registry, second: Registry, make_fills: MakeFills
) -> None:
    """The request says that only what is there is wanted."""
    registry.add(NEW)
    seen = threading.Event()

    def act(handler: Handler, _data: bytes) -> None:
        if handler.headers.get("Cache-Control") == "only-if-cached":
            seen.set()
        handler.status(504)

    second.always = act
    assert make_fills(registry, peers=(second,)).start(Want(NAME, DIGEST, len(NEW))).wait(20)
    assert seen.is_set()

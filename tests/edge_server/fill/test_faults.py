# SPDX-License-Identifier: Apache-2.0
"""What origins, links and disks do wrong, each test named after it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from edge_server.fill.errors import FillFailed, Restarted
from edge_server.fill.fill import Want
from edge_server.fill.turns import Patience
from edge_server.store.disk import Disk
from edge_server.store.errors import DiskFull, NoRoom
from edge_server.store.room import StoreLimits
from edge_server.store.store import Store
from registry.digest import digest_of
from tests.edge_server.fill import scripted
from tests.edge_server.fill.conftest import MakeFills
from tests.edge_server.fill.fake_time import FakeTime
from tests.edge_server.fill.scripted import NAME, Handler, Registry, hold, some_bytes, truncate

SIZE = 3 << 20
DATA = some_bytes(SIZE)
WANT = Want(NAME, digest_of(DATA), SIZE)


@pytest.fixture(autouse=True)
def _published(registry: Registry, second: Registry) -> None:
    registry.add(DATA)
    second.add(DATA)


def first_byte(range_header: str) -> int:
    return int(range_header.removeprefix("bytes=").partition("-")[0])


def test_truncated_blob(registry: Registry, make_fills: MakeFills) -> None:
    """It goes on where the connection broke, and asks for nothing twice."""
    registry.script.extend([truncate(1 << 20), truncate(1 << 20)])
    fill = make_fills(registry).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert registry.ranges() == ["", f"bytes={1 << 20}-", f"bytes={2 << 20}-"]
    assert registry.sent == SIZE


def test_failover_in_mid_blob(registry: Registry, second: Registry, make_fills: MakeFills) -> None:
    """The next origin goes on at the byte where the first broke."""
    registry.script.append(truncate(1 << 20))
    fill = make_fills(registry, second).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert second.ranges() == [f"bytes={1 << 20}-"]
    assert fill.sources == {"origin o0": 1 << 20, "origin o1": 2 << 20}


def test_range_ignored(registry: Registry, make_fills: MakeFills) -> None:
    """Asked for the rest, got the whole: what is here already is read again and compared."""
    registry.script.extend([truncate(2 << 20), scripted.ignore_range])
    fill = make_fills(registry).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert registry.ranges() == ["", f"bytes={2 << 20}-"]
    assert fill.sources == {"origin o0": SIZE}


def test_range_ignored_while_another_origin_honours_it(
    registry: Registry, second: Registry, make_fills: MakeFills
) -> None:
    registry.script.extend([truncate(2 << 20), scripted.ignore_range])
    registry.always = scripted.ignore_range
    second.script.append(truncate(1 << 16))
    fill = make_fills(registry, second).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert fill.sources["origin o1"] == 1 << 20


def test_range_ignored_and_truncated_for_ever(
    registry: Registry, time: FakeTime, make_fills: MakeFills
) -> None:
    """No progress: it gives up, says why, and keeps what it has for the next time."""

    def act(handler: Handler, data: bytes) -> None:
        handler.head(data, 0, len(data))
        handler.body(data[: 1 << 20])
        handler.close_connection = True

    registry.always = act
    fills = make_fills(registry)
    fill = fills.start(WANT)
    with pytest.raises(FillFailed, match="origin o0: ") as caught:
        fill.wait(20)
    assert "kept" in caught.value.remedy
    assert len(registry.asked) <= 8
    assert sum(time.waits) < 300
    registry.always = None
    time.advance(600)
    assert fills.start(WANT).wait(20).read_bytes() == DATA
    assert registry.ranges()[-1] == f"bytes={1 << 20}-"


def test_5xx_storm(registry: Registry, time: FakeTime, make_fills: MakeFills) -> None:
    """Pauses grow and are drawn by chance; it ends, and says when it may be tried again."""
    registry.always = scripted.refuse(503)
    fills = make_fills(registry, patience=Patience(rounds=6, seconds=1e6))
    with pytest.raises(FillFailed, match="status 503"):
        fills.start(WANT).wait(20)
    assert len(registry.asked) == 7
    assert len(set(time.waits)) == len(time.waits) == 6
    registry.always = None
    time.advance(600)
    assert fills.start(WANT).wait(20).read_bytes() == DATA


def test_5xx_storm_at_one_origin(
    registry: Registry, second: Registry, time: FakeTime, make_fills: MakeFills
) -> None:
    registry.always = scripted.refuse(500)
    assert make_fills(registry, second).start(WANT).wait(20).read_bytes() == DATA
    assert time.waits == []


def test_too_many_requests(registry: Registry, time: FakeTime, make_fills: MakeFills) -> None:
    """What Retry-After asks for is waited for."""
    registry.script.append(scripted.refuse(429, Retry_After="17"))
    assert make_fills(registry).start(WANT).wait(20).read_bytes() == DATA
    assert max(time.waits) == pytest.approx(17, abs=0.1)


def test_retry_after_beyond_patience(registry: Registry, make_fills: MakeFills) -> None:
    registry.script.append(scripted.refuse(503, Retry_After="3000"))
    with pytest.raises(FillFailed, match="asked again in 3000 s"):
        make_fills(registry).start(WANT).wait(20)


def test_redirect_loop(registry: Registry, second: Registry, make_fills: MakeFills) -> None:
    registry.always = scripted.redirect("/v2/there")
    registry.script.append(scripted.redirect("/v2/here"))
    fill = make_fills(registry, second).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert list(fill.sources) == ["origin o1"]


def test_endless_data(registry: Registry, make_fills: MakeFills) -> None:
    """No more is read than the blob has."""
    registry.script.append(scripted.endless)
    fill = make_fills(registry).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert fill.sources == {"origin o0": SIZE}


def test_endless_data_announced(
    registry: Registry, second: Registry, make_fills: MakeFills
) -> None:
    """A length that is not the blob's is refused before a byte is read."""
    registry.put_under(WANT.digest, DATA + b"more")
    fill = make_fills(registry, second).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert list(fill.sources) == ["origin o1"]


def test_endless_data_of_unknown_size(registry: Registry, make_fills: MakeFills) -> None:
    """Who does not say how much it is gives nothing to someone who does not know either."""
    registry.always = scripted.endless
    with pytest.raises(FillFailed, match="does not say how large"):
        make_fills(registry, patience=Patience(rounds=1)).start(Want(NAME, WANT.digest)).wait(20)


def test_wrong_digest(registry: Registry, second: Registry, make_fills: MakeFills) -> None:
    """All is thrown away, and comes from another origin."""
    registry.always = scripted.lie
    fill = make_fills(registry, second).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert fill.sources == {"origin o0": SIZE, "origin o1": SIZE}
    assert len(registry.asked) == 1


def test_wrong_digest_for_ever(registry: Registry, make_fills: MakeFills) -> None:
    """An origin that lies twice about a blob is not asked for it a third time."""
    registry.always = scripted.lie
    with pytest.raises(FillFailed, match="no source gives the bytes"):
        make_fills(registry).start(WANT).wait(20)
    assert len(registry.asked) == 2


def test_wrong_size_that_was_learnt(
    registry: Registry, second: Registry, make_fills: MakeFills
) -> None:
    """Where the size is not known before, a lie about it goes with the lie about the bytes."""
    registry.put_under(WANT.digest, DATA[:1000])
    fill = make_fills(registry, second).start(Want(NAME, WANT.digest))
    assert fill.wait(20).read_bytes() == DATA
    assert fill.size == SIZE


def test_a_peer_does_not_say_how_large_a_blob_is(
    registry: Registry, second: Registry, store: Store, make_fills: MakeFills
) -> None:
    """Room would be made for it, and others' blobs would go."""
    second.put_under(WANT.digest, DATA + DATA)
    store.limits = StoreLimits(max_bytes=SIZE + 1000)
    store.add(b"here", digest_of(b"here"))
    fill = make_fills(registry, peers=(second,)).start(Want(NAME, WANT.digest))
    assert fill.wait(20).read_bytes() == DATA
    assert store.path(digest_of(b"here"))


def test_wrong_digest_once(registry: Registry, make_fills: MakeFills) -> None:
    registry.script.append(scripted.lie)
    assert make_fills(registry).start(WANT).wait(20).read_bytes() == DATA


def test_wrong_digest_is_not_mixed_with_right_bytes_for_readers(
    registry: Registry, second: Registry, make_fills: MakeFills
) -> None:
    """A reader of wrong bytes is told to begin again."""
    go_on = threading.Event()

    def act(handler: Handler, data: bytes) -> None:
        wrong = bytes([data[0] ^ 1]) + data[1:]
        hold(1 << 20, go_on)(handler, wrong)

    registry.script.append(act)
    fill = make_fills(registry, second).start(WANT)
    attempt = fill.attempt
    assert fill.read(0, 1, 20, attempt=attempt) != DATA[:1]
    go_on.set()
    fill.wait(20)
    with pytest.raises(Restarted):
        fill.read(1, 1 << 20, 20, attempt=attempt)
    assert fill.read(0, 1 << 20, 20, attempt=fill.attempt) == DATA[: 1 << 20]


def test_wrong_content_range(registry: Registry, second: Registry, make_fills: MakeFills) -> None:
    def act(handler: Handler, data: bytes) -> None:
        first, end = handler.span(data)
        handler.head(data, first - 1, end - 1)
        handler.body(data[first - 1 : end - 1])

    registry.script.extend([truncate(1 << 20), act])
    second.script.append(scripted.refuse(500))
    fill = make_fills(registry, second).start(WANT)
    assert fill.wait(20).read_bytes() == DATA


def test_range_not_satisfiable(registry: Registry, second: Registry, make_fills: MakeFills) -> None:
    registry.script.append(truncate(1 << 20))
    second.script.append(scripted.refuse(416, Content_Range="bytes */5"))
    fill = make_fills(registry, second).start(WANT)
    assert fill.wait(20).read_bytes() == DATA
    assert fill.sources == {"origin o0": SIZE}


def test_a_corrupted_prefix_of_an_earlier_run(
    registry: Registry, store: Store, make_fills: MakeFills
) -> None:
    """Wrong bytes that were here before cost one fetch and no origin its name."""
    with store.partial(WANT.digest, SIZE) as partial:
        partial.write(b"?" * (1 << 20))
    fills = make_fills(registry)
    assert fills.start(WANT).wait(20).read_bytes() == DATA
    assert registry.ranges() == [f"bytes={1 << 20}-", ""]


def test_no_room(tmp_path: Path, registry: Registry, make_fills: MakeFills, store: Store) -> None:
    store.limits = StoreLimits(max_bytes=SIZE - 1)
    with pytest.raises(NoRoom):
        make_fills(registry).start(WANT).wait(20)
    assert registry.asked == []
    store.limits = StoreLimits()
    assert make_fills(registry).start(WANT).wait(20).read_bytes() == DATA


def test_disk_full(
    registry: Registry, store: Store, make_fills: MakeFills, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's error comes through, what arrived is kept, and the next fill goes on."""
    left = 2 << 20
    pwrite = Disk.pwrite

    def full(self: Disk, fd: int, data: memoryview, offset: int) -> None:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        pwrite(self, fd, data, offset)

    fills = make_fills(registry)
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "pwrite", full)
        with pytest.raises(DiskFull):
            fills.start(WANT).wait(20)
    assert fills.start(WANT).wait(20).read_bytes() == DATA
    assert first_byte(registry.ranges()[1]) >= 1 << 20


def test_all_origins_down(registry: Registry, make_fills: MakeFills) -> None:
    with scripted.running() as gone:
        pass
    with pytest.raises(FillFailed, match=r"origin o0: .*no connection.*asked again in"):
        make_fills(gone).start(WANT).wait(20)

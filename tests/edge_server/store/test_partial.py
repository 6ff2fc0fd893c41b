# SPDX-License-Identifier: Apache-2.0
"""A blob on its way in: buffers, digests, going on, readers beside the writer."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_server.store import Disk, Partial, Store
from edge_server.store.errors import BlobPresent, DiskFailed, PartialBusy, PartialClosed
from edge_server.store.hashing import BUFFER, BUFFERS, Hashing
from edge_server.store.record import Record, last_record
from registry.digest import digest_of
from registry.errors import BadDigest, WrongDigest, WrongSize

MIB = 1 << 20
DATA = random.Random(1).randbytes(3 * MIB + 17)
DIGEST = digest_of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as found:
        yield found


def fill(partial: Partial, data: bytes, piece: int = BUFFER) -> None:
    """Through the buffers, from where it was left, as a receiver does."""
    while partial.offset < partial.size:
        room = partial.buffer()
        part = data[partial.offset :][: min(piece, len(room))]
        room[: len(part)] = part
        partial.advance(len(part))


@pytest.mark.parametrize("piece", [1000, 64 << 10, 100_000, BUFFER])
def test_what_goes_in_comes_out(store: Store, piece: int) -> None:
    with store.partial(DIGEST, len(DATA)) as partial:
        fill(partial, DATA, piece)
        path = partial.commit()
    assert path == store.path(DIGEST)
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o444
    assert store.unfinished() == []


@pytest.mark.parametrize("size", [0, 1, BUFFER, BUFFER + 1, BUFFER * (BUFFERS + 2) - 3])
def test_sizes_around_the_buffers(store: Store, size: int) -> None:
    data = random.Random(size).randbytes(size)
    with store.partial(digest_of(data), size) as partial:
        partial.write(data)
        assert len(partial.buffer()) == 0
        partial.commit()
    assert store.read(digest_of(data), size) == data


def test_it_goes_on_where_it_was_left(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store, store.partial(DIGEST, len(DATA)) as partial:
        partial.set_etag("origin", '"7"')
        partial.write(DATA[: 2 * MIB])
    with Store.open(tmp_path / "store") as store:
        assert [(p.there, p.size) for p in store.unfinished()] == [(2 * MIB, len(DATA))]
        with store.partial(DIGEST, len(DATA)) as partial:
            assert partial.resumed == partial.offset == 2 * MIB
            assert partial.etags == {"origin": '"7"'}
            fill(partial, DATA)
            partial.commit()
        assert store.verify() == []


def test_the_store_closes_what_is_being_filled(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    partial = store.partial(DIGEST, len(DATA))
    partial.write(DATA[:100])
    store.close()
    with pytest.raises(PartialClosed):
        partial.write(b"x")
    with Store.open(tmp_path / "store") as store, store.partial(DIGEST, len(DATA)) as partial:
        assert partial.offset == 100


def test_wrong_digest(store: Store) -> None:
    """Other bytes than the digest names: none is kept, and the next one begins anew."""
    with store.partial(DIGEST, len(DATA)) as partial:
        partial.write(bytes(len(DATA)))
        with pytest.raises(WrongDigest, match="received for"):
            partial.commit()
    assert store.path(DIGEST) is None
    assert store.unfinished() == []
    with store.partial(DIGEST, len(DATA)) as partial:
        assert partial.offset == 0


def test_truncated_blob(store: Store) -> None:
    """Too few bytes: they are kept, for the rest may come."""
    with store.partial(DIGEST, len(DATA)) as partial:
        partial.write(DATA[:-1])
        with pytest.raises(WrongSize, match=f"{len(DATA) - 1} of {len(DATA)}"):
            partial.commit()
        partial.write(DATA[-1:])
        partial.commit()


def test_endless_data(store: Store) -> None:
    """More than was promised is not even written."""
    with store.partial(DIGEST, len(DATA)) as partial:
        with pytest.raises(WrongSize):
            partial.write(DATA + b"x")
        assert partial.offset == 0
        partial.write(DATA)
        with pytest.raises(WrongSize):
            partial.write(b"x")
        with pytest.raises(WrongSize):
            partial.advance(1)


def test_another_size_begins_anew(store: Store) -> None:
    """A prefix of what was said to be of another size is not trusted."""
    with store.partial(DIGEST, len(DATA) + 5) as partial:
        partial.write(bytes(1000))
    with store.partial(DIGEST, len(DATA)) as partial:
        assert partial.offset == 0
        fill(partial, DATA)
        partial.commit()


def test_one_writer_for_a_blob(store: Store) -> None:
    with store.partial(DIGEST, len(DATA)) as partial:
        with pytest.raises(PartialBusy):
            store.partial(DIGEST, len(DATA))
        fill(partial, DATA)
        partial.commit()
    with pytest.raises(BlobPresent):
        store.partial(DIGEST, len(DATA))


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha512:" + "0" * 64, "", "/"])
def test_path_traversal_in_a_digest(store: Store, digest: str) -> None:
    for call in (
        store.path,
        store.size,
        lambda d: store.partial(d, 1),
        lambda d: store.add(b"", d),
    ):
        with pytest.raises(BadDigest):
            call(digest)


def test_readers_beside_the_writer(store: Store) -> None:
    """They see the prefix as it grows, and go on after the commit."""
    partial = store.partial(DIGEST, len(DATA))
    seen: list[bytes] = []
    grown = threading.Condition()

    def follow(found: bytearray) -> None:
        def more() -> bool:
            return partial.offset > len(found)

        while len(found) < len(DATA):
            with grown:
                grown.wait_for(more, timeout=10)
            found += partial.pread(len(found), 300_000)
        seen.append(bytes(found))

    readers = [threading.Thread(target=follow, args=(bytearray(),)) for _ in range(4)]
    for reader in readers:
        reader.start()
    while partial.offset < partial.size:
        partial.write(DATA[partial.offset :][:70_000])
        with grown:
            grown.notify_all()
    partial.commit()
    assert partial.pread(10, 20) == DATA[10:30]
    for reader in readers:
        reader.join()
    partial.close()
    assert [hashlib.sha256(found).hexdigest() for found in seen] == [DIGEST[7:]] * 4
    with pytest.raises(PartialClosed):
        partial.pread(0, 1)


def test_closed_while_it_is_written(tmp_path: Path) -> None:
    """By another thread: the writer hears it, and never writes to a descriptor that is another's
    by now."""
    for _ in range(20):
        store = Store.open(tmp_path / "store")
        partial = store.partial(DIGEST, len(DATA))
        heard: list[str] = []

        def write(partial: Partial, heard: list[str]) -> None:
            try:
                while partial.offset < partial.size:
                    partial.write(DATA[partial.offset :][:5000])
                partial.commit()
            except PartialClosed as error:
                heard.append(str(error))

        writer = threading.Thread(target=write, args=(partial, heard))
        writer.start()
        store.close()
        writer.join()
        assert heard
    with Store.open(tmp_path / "store") as store, store.partial(DIGEST, len(DATA)) as partial:
        assert partial.pread(0, len(DATA)) == DATA[: partial.offset]
        fill(partial, DATA)
        partial.commit()


class BadSync(Disk):
    """Says EIO to every sync of bytes."""

    def fdatasync(self, fd: int) -> None:
        raise OSError(5, "Input/output error")


def test_a_sync_that_fails_is_not_believed_later(tmp_path: Path) -> None:
    """After a failed fdatasync the kernel may have dropped what it was for: it is fetched again."""
    Store.open(tmp_path / "store").close()
    with (
        Store.open(tmp_path / "store", disk=BadSync()) as store,
        store.partial(DIGEST, len(DATA)) as partial,
    ):
        partial.write(DATA[:MIB])
        with pytest.raises(DiskFailed, match="Input/output error") as caught:
            partial.sync()
        assert "dmesg" in caught.value.remedy
    with Store.open(tmp_path / "store") as store, store.partial(DIGEST, len(DATA)) as partial:
        assert partial.offset == 0


class SlowFile:
    """A file that is read only when it is let."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.go = threading.Event()

    def __call__(self, buffer: memoryview, offset: int) -> int:
        self.go.wait(10)
        part = self.data[offset:][: len(buffer)]
        buffer[: len(part)] = part
        return len(part)


def test_a_resumed_fill_does_not_wait_for_the_prefix_to_be_hashed() -> None:
    prefix = random.Random(2).randbytes(BUFFER * (BUFFERS + 2))
    file = SlowFile(prefix)
    hashing = Hashing(file, len(prefix))
    more = random.Random(3).randbytes(BUFFER)
    for _ in range(BUFFERS * 2):  # more than the ring holds
        hashing.buffer()[:BUFFER] = more
        file.data += more
        hashing.wrote(BUFFER)
    file.go.set()
    assert hashing.digest() == digest_of(file.data)
    hashing.stop()


@pytest.mark.parametrize(
    "torn", [b"", b"\n1234", b"\0" * 100, b"\n{}\n", b"\nffffffff {}\n", b"\n00000000 \xff\xfe"]
)
def test_a_torn_record_is_as_if_it_was_not_written(torn: bytes) -> None:
    record = Record(1000, 400, "boot", {"a": "b"})
    assert last_record(record.line() + torn) == record
    assert last_record(torn + record.line()) == record
    assert last_record(torn) is None


def test_only_synced_bytes_count_after_a_reboot() -> None:
    record = Record(1000, 400, "boot", {})
    assert record.usable(900, "boot") == 900
    assert record.usable(900, "next boot") == 400
    assert record.usable(300, "next boot") == 300
    assert record.usable(1001, "boot") == 0  # not what was written
    assert Record(1000, 400, "", {}).usable(900, "") == 400  # boots that cannot be told apart

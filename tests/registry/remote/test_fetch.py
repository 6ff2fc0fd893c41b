# SPDX-License-Identifier: Apache-2.0
"""Pulling through faults: what is in the layout is right or not there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry import oci
from registry.digest import digest_of, hex_of
from registry.errors import WrongDigest
from registry.package.layout import Layout
from registry.remote import errors
from registry.remote.backoff import Retry
from registry.remote.client import Remote
from registry.remote.fetch import Fetched, fetch, look_up
from registry.remote.transfers import Transfers, Unwatched
from tests.registry.remote.package import MODEL_BYTES, make_package
from tests.registry.remote.scripted_server import Answer, Asked, scripted

Trouble = Callable[[Asked], Answer | None]


class Origin:
    """Serves a layout as a registry does, ranges and all; makes the trouble it is told to make."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.trouble: Trouble = lambda _asked: None
        self.model = max(
            layout.reachable(layout.index.manifests).values(), key=lambda blob: blob.size
        ).digest

    def answer(self, asked: Asked) -> Answer:
        """The script of the server."""
        found = self.trouble(asked)
        if found is not None:
            return found
        target = asked.path.rpartition("/")[2]
        tags = self.layout.tags()
        digest = tags[target].digest if target in tags else target
        if not digest.startswith("sha256:") or not self.layout.has(digest):
            return Answer(404)
        data = self.layout.blob_path(digest).read_bytes()
        if span := asked.headers.get("Range"):
            first = int(span.removeprefix("bytes=").rstrip("-"))
            said = f"bytes {first}-{len(data) - 1}/{len(data)}"
            return Answer(206, data[first:], {"Content-Range": said})
        return Answer(200, data)

    def wants_model(self, asked: Asked) -> bool:
        """Whether this request is for the largest blob."""
        return asked.path.endswith(self.model)

    @property
    def model_bytes(self) -> bytes:
        """The largest blob."""
        return self.layout.blob_path(self.model).read_bytes()


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    """A package to pull."""
    return Origin(make_package(tmp_path / "origin"))


def transfers(attempts: int = 4) -> Transfers:
    return Transfers(Retry(attempts, rng=random.Random(1), sleep=lambda _seconds: None))


def pull(origin: Origin, path: Path, how: Transfers | None = None) -> tuple[Fetched, list[Asked]]:
    """Pull all into a layout at `path`, and check it."""
    done = pull_beside_others(origin, path, how)
    check(path)
    return done


def pull_beside_others(
    origin: Origin, path: Path, how: Transfers | None = None
) -> tuple[Fetched, list[Asked]]:
    """The same, where others may not have ended yet."""
    how = how or transfers()
    with scripted(origin.answer) as server, Remote(server.address) as remote:
        try:
            package = look_up(remote, "a", "1.0", how)
            done = fetch(remote, Layout(path, create=True), "a", package, "1.0", how)
        finally:
            asked = list(server.asked)
    return done, asked


def check(path: Path) -> None:
    """All is there, and nothing else."""
    copy = Layout(path)
    for blob in copy.reachable(list(copy.tags().values())).values():
        copy.check_blob(blob)
    assert not list(path.rglob(".partial-*"))


def ranges(origin: Origin, asked: list[Asked]) -> list[str]:
    return [a.headers.get("Range", "") for a in asked if origin.wants_model(a)]


def once(answer: Answer, when: Callable[[Asked], bool]) -> Trouble:
    """`answer` to the first request that `when` picks."""
    left = [answer]
    return lambda asked: left.pop() if left and when(asked) else None


def test_a_blob_that_was_cut_goes_on_where_it_was(origin: Origin, tmp_path: Path) -> None:
    half = Answer(200, iter([origin.model_bytes[:1000]]), {"Content-Length": str(MODEL_BYTES)})
    origin.trouble = once(half, origin.wants_model)
    done, asked = pull(origin, tmp_path / "copy")
    assert ranges(origin, asked) == ["", "bytes=1000-"]
    assert done.received_bytes == done.size


def test_a_pull_that_was_killed_goes_on_where_it_was(origin: Origin, tmp_path: Path) -> None:
    copy = Layout(tmp_path / "copy", create=True)
    partial = copy.blob_path(origin.model).with_name(f".partial-{hex_of(origin.model)}")
    partial.write_bytes(origin.model_bytes[:200_000])
    done, asked = pull(origin, copy.path)
    assert ranges(origin, asked) == ["bytes=200000-"]
    assert done.received_bytes == done.size - 200_000


def test_what_a_power_cut_left_wrong_is_fetched_anew(origin: Origin, tmp_path: Path) -> None:
    copy = Layout(tmp_path / "copy", create=True)
    partial = copy.blob_path(origin.model).with_name(f".partial-{hex_of(origin.model)}")
    partial.write_bytes(bytes(200_000))
    _, asked = pull(origin, copy.path)
    assert ranges(origin, asked) == ["bytes=200000-", ""]


def test_a_partial_file_that_is_too_long_is_fetched_anew(origin: Origin, tmp_path: Path) -> None:
    copy = Layout(tmp_path / "copy", create=True)
    partial = copy.blob_path(origin.model).with_name(f".partial-{hex_of(origin.model)}")
    partial.write_bytes(bytes(MODEL_BYTES + 1))
    _, asked = pull(origin, copy.path)
    assert ranges(origin, asked) == [""]


def test_a_range_that_is_ignored(origin: Origin, tmp_path: Path) -> None:
    data = origin.model_bytes
    bodies = [data[:1000], data[:200_000], data]

    def ignore(asked: Asked) -> Answer | None:
        if not origin.wants_model(asked):
            return None
        return Answer(200, iter([bodies.pop(0)]), {"Content-Length": str(MODEL_BYTES)})

    origin.trouble = ignore
    done, asked = pull(origin, tmp_path / "copy")
    assert ranges(origin, asked) == ["", "bytes=1000-", "bytes=200000-"]
    assert done.received_bytes == done.size + 201_000


def test_wrong_digest(origin: Origin, tmp_path: Path) -> None:
    other = bytes([origin.model_bytes[0] ^ 1]) + origin.model_bytes[1:]
    origin.trouble = lambda asked: Answer(200, other) if origin.wants_model(asked) else None
    with pytest.raises(WrongDigest, match=origin.model):
        pull(origin, tmp_path / "copy")
    copy = Layout(tmp_path / "copy")
    assert not copy.has(origin.model) and not copy.tags()
    assert not list(copy.path.rglob(f".partial-{hex_of(origin.model)}"))


def test_endless_data(origin: Origin, tmp_path: Path) -> None:
    more = origin.model_bytes + b"x"
    origin.trouble = lambda asked: Answer(200, more) if origin.wants_model(asked) else None
    with pytest.raises(errors.EndlessData):
        pull(origin, tmp_path / "copy")
    assert not Layout(tmp_path / "copy").has(origin.model)


def test_less_data_than_the_manifest_says(origin: Origin, tmp_path: Path) -> None:
    less = origin.model_bytes[:-1]

    def short(asked: Asked) -> Answer | None:
        if not origin.wants_model(asked):
            return None
        return Answer(200, less) if "Range" not in asked.headers else Answer(416)

    origin.trouble = short
    with pytest.raises(errors.RangeRefused):
        pull(origin, tmp_path / "copy")
    assert not Layout(tmp_path / "copy").has(origin.model)


def test_a_storm_of_server_errors_passes_or_ends(origin: Origin, tmp_path: Path) -> None:
    storm = [Answer(503)] * 3
    origin.trouble = lambda asked: storm.pop() if storm and origin.wants_model(asked) else None
    pull(origin, tmp_path / "passes")
    origin.trouble = lambda asked: Answer(503) if origin.wants_model(asked) else None
    with pytest.raises(errors.ServerTrouble):
        pull(origin, tmp_path / "ends")
    assert not Layout(tmp_path / "ends").tags()


def test_a_damaged_blob_of_the_layout_is_healed(origin: Origin, tmp_path: Path) -> None:
    pull(origin, tmp_path / "copy")
    Layout(tmp_path / "copy").blob_path(origin.model).write_bytes(bytes(MODEL_BYTES))
    done, _ = pull(origin, tmp_path / "copy")
    assert done.received == 1 and done.received_bytes == MODEL_BYTES


def test_two_pulls_into_one_layout_fetch_each_blob_once(origin: Origin, tmp_path: Path) -> None:
    asked: list[str] = []

    def counting(found: Asked) -> Answer | None:
        if "/blobs/" in found.path:
            asked.append(found.path)
        return None

    origin.trouble = counting
    Layout(tmp_path / "copy", create=True)
    words = (origin, tmp_path / "copy")
    threads = [threading.Thread(target=pull_beside_others, args=words) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(tmp_path / "copy")
    assert sorted(asked) == sorted(set(asked)) and len(asked) == 5
    assert Layout(tmp_path / "copy").tags().keys() == {"1.0"}


def test_one_failure_stops_the_other_transfers(origin: Origin, tmp_path: Path) -> None:
    failed = threading.Event()

    class Watch(Unwatched):
        def begin(self, digest: str, what: str, size: int) -> None:
            if digest != origin.model:
                assert failed.wait(20)

    def fail(asked: Asked) -> Answer | None:
        if origin.wants_model(asked):
            failed.set()
            return Answer(403)
        return None

    origin.trouble = fail
    how = transfers()
    how = Transfers(how.retry, Watch(), 2, how.stop)
    with pytest.raises(errors.Denied):
        pull(origin, tmp_path / "copy", how)
    assert how.stop.is_set()


def test_a_manifest_that_is_nested_for_ever(tmp_path: Path) -> None:
    layout = make_package(tmp_path / "origin")
    entry = layout.resolve("1.0")
    for _ in range(5):
        entry = layout.add_document(oci.Index((entry,)))
    layout.tag("1.0", entry)
    with pytest.raises(Exception, match="deep"):
        pull(Origin(layout), tmp_path / "copy")


def test_a_digest_is_pulled_without_a_tag(origin: Origin, tmp_path: Path) -> None:
    root = origin.layout.resolve("1.0")
    with scripted(origin.answer) as server, Remote(server.address) as remote:
        package = look_up(remote, "a", root.digest, transfers())
        copy = Layout(tmp_path / "copy", create=True)
        fetch(remote, copy, "a", package, "", transfers())
    assert copy.resolve().digest == root.digest and not copy.tags()
    assert digest_of(copy.read(root.digest, 1 << 20)) == root.digest


def test_an_interrupt_ends_a_pull_at_once_and_the_next_goes_on(
    origin: Origin, tmp_path: Path
) -> None:
    half, hold = threading.Event(), threading.Event()

    def first_half() -> Iterator[bytes]:
        yield origin.model_bytes[: MODEL_BYTES // 2]
        half.set()
        hold.wait(60)

    body = Answer(200, first_half(), {"Content-Length": str(MODEL_BYTES)})
    origin.trouble = once(body, origin.wants_model)
    with scripted(origin.answer) as server:
        words = ["model", "pull", f"{server.address}/a:1.0", "-o", str(tmp_path / "copy")]
        command = [str(Path(sys.executable).with_name("tepi")), *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert half.wait(60)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        hold.set()
    assert process.returncode == 130 and "interrupted" in said
    pull(origin, tmp_path / "copy")

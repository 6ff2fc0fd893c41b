# SPDX-License-Identifier: Apache-2.0
"""Layouts on disk: what is written stays, what is damaged is found."""

import json
import threading
from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.errors import BadDigest, BadReference, NotFound, WrongDigest, WrongSize
from registry.oci import EMPTY, EMPTY_JSON, Descriptor, Index, Manifest
from registry.package.errors import BadLayout
from registry.package.layout import Layout, split_tag

KIND = "application/octet-stream"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", create=True)


def document(layout: Layout, text: bytes) -> Descriptor:
    config = layout.add(EMPTY_JSON, EMPTY)
    return layout.add_document(Manifest(config, (layout.add(text, KIND),), "application/x"))


def test_a_blob_from_memory_and_from_a_file_is_the_same(layout: Layout, tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "f").write_bytes(data)
    told: list[int] = []
    first = layout.add(data, KIND, {"a": "b"})
    second = layout.add(tmp_path / "f", KIND, tell=told.append)
    assert (
        (first.digest, first.size) == (second.digest, second.size) == (digest_of(data), len(data))
    )
    assert first.annotations == {"a": "b"}
    assert sum(told) == len(data)
    assert layout.read(first.digest, len(data)) == data
    assert [p.name for p in layout.blob_path(first.digest).parent.iterdir()] == [
        first.digest.removeprefix("sha256:")
    ]


def test_tags_replace_each_other_and_resolve(layout: Layout) -> None:
    one, two = document(layout, b"1"), document(layout, b"2")
    layout.tag("a", one)
    layout.tag("a", two)
    assert layout.resolve("a").digest == two.digest
    assert layout.resolve().digest == two.digest
    layout.tag("b", one)
    assert list(layout.tags()) == ["a", "b"]
    assert layout.resolve(one.digest).digest == one.digest
    with pytest.raises(NotFound, match="say which") as caught:
        layout.resolve()
    assert "a, b" in caught.value.remedy
    with pytest.raises(NotFound, match="'c'"):
        layout.resolve("c")
    with pytest.raises(BadReference):
        layout.tag("../x", one)


def test_a_held_referrer_is_found_and_is_no_package(layout: Layout) -> None:
    one = document(layout, b"1")
    layout.tag("a", one)
    empty = layout.add(EMPTY_JSON, EMPTY)
    referrer = layout.add_document(Manifest(empty, (), "application/y", subject=one))
    layout.hold(referrer)
    layout.hold(referrer)
    assert len(layout.index.manifests) == 2
    assert layout.resolve().digest == one.digest
    ((entry, manifest),) = layout.referrers(one.digest)
    assert (entry.digest, manifest.artifact_type) == (referrer.digest, "application/y")
    assert layout.referrers(referrer.digest) == []


def test_a_referrer_goes_with_the_last_tag_of_what_it_refers_to(layout: Layout) -> None:
    one, two = document(layout, b"1"), document(layout, b"2")
    layout.tag("a", one)
    layout.tag("b", one)
    empty = layout.add(EMPTY_JSON, EMPTY)
    layout.hold(layout.add_document(Manifest(empty, (), "application/y", subject=one)))
    layout.tag("a", two)
    assert len(layout.referrers(one.digest)) == 1
    layout.tag("b", two)
    assert layout.referrers(one.digest) == []


def test_everything_that_an_index_leads_to_is_reachable(layout: Layout) -> None:
    one, two = document(layout, b"1"), document(layout, b"2")
    top = layout.add_document(Index((one, two)))
    found = layout.reachable([top])
    assert {digest_of(b"1"), digest_of(b"2"), one.digest, two.digest, top.digest} <= found.keys()


def test_two_writers_lose_no_tag(layout: Layout) -> None:
    one = document(layout, b"1")

    def write(names: list[str]) -> None:
        for name in names:
            Layout(layout.path).tag(name, one)

    names = [[f"{letter}{n}" for n in range(10)] for letter in "ab"]
    threads = [threading.Thread(target=write, args=(given,)) for given in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(layout.tags()) == sorted(names[0] + names[1])


def test_an_interrupted_write_leaves_what_was_there(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.tag("a", document(layout, b"1"))
    before = (layout.path / "index.json").read_bytes()

    def cut(_file: int) -> None:
        raise OSError(5, "the power went")

    monkeypatch.setattr("os.fsync", cut)
    with pytest.raises(OSError, match="power"):
        layout.add(b"2", KIND)
    with pytest.raises(OSError, match="power"):
        layout.tag("b", layout.resolve("a"))
    assert (layout.path / "index.json").read_bytes() == before
    assert not layout.has(digest_of(b"2"))
    assert not list(layout.path.rglob(".new-*"))


def test_a_damaged_blob_is_found_and_healed(layout: Layout) -> None:
    blob = layout.add(b"right", KIND)
    layout.blob_path(blob.digest).write_bytes(b"wrong")
    with pytest.raises(WrongDigest):
        layout.read(blob.digest, 100)
    with pytest.raises(WrongDigest):
        layout.check_blob(blob)
    layout.add(b"right", KIND)
    layout.check_blob(blob)


def test_a_truncated_blob_an_endless_blob_and_a_missing_one(layout: Layout) -> None:
    blob = layout.add(b"right", KIND)
    layout.blob_path(blob.digest).write_bytes(b"righ")
    with pytest.raises(WrongSize, match="has 4 bytes, not 5"):
        layout.check_blob(blob)
    with pytest.raises(WrongSize, match="more than 3"):
        layout.read(blob.digest, 3)
    layout.blob_path(blob.digest).unlink()
    with pytest.raises(NotFound):
        layout.check_blob(blob)
    with pytest.raises(NotFound):
        layout.read(blob.digest, 3)


def test_a_digest_that_leaves_the_folder_is_refused(layout: Layout) -> None:
    with pytest.raises(BadDigest):
        layout.blob_path("sha256:../../etc/passwd")


def test_a_folder_of_something_else_is_no_layout(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(BadLayout, match="no OCI layout"):
        Layout(tmp_path, create=True)
    with pytest.raises(BadLayout, match="oci-layout"):
        Layout(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 9999, '{"imageLayoutVersion": "2.0.0"}'])
def test_a_malformed_layout_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "oci-layout").write_text(text)
    with pytest.raises(BadLayout):
        Layout(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"schemaVersion": 2, "manifests": 1}'])
def test_a_malformed_index(layout: Layout, text: str) -> None:
    (layout.path / "index.json").write_text(text)
    with pytest.raises(BadLayout):
        _ = layout.index


def test_an_index_of_another_tool_keeps_what_is_not_ours(layout: Layout) -> None:
    one = document(layout, b"1")
    entry = Descriptor(one.media_type, one.digest, one.size).as_json()
    (layout.path / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [entry], "annotations": {"a": "b"}})
    )
    layout.tag("t", one)
    assert layout.index.annotations == {"a": "b"}
    assert [e.digest for e in layout.index.manifests] == [one.digest, one.digest]


def test_split_tag(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert split_tag(f"{tmp_path}/a:b") == (tmp_path / "a:b", "")
    assert split_tag(f"{tmp_path}/x:1.0") == (tmp_path / "x", "1.0")
    assert split_tag(f"{tmp_path}/x") == (tmp_path / "x", "")
    assert split_tag("x@sha256:00") == (Path("x"), "sha256:00")

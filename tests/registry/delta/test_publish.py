# SPDX-License-Identifier: Apache-2.0
"""Deltas in a layout: from which files they are made, where they hang, how a node finds them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from registry.delta import block_index
from registry.delta.apply import apply_delta
from registry.delta.command import delta as delta_command
from registry.delta.publish import (
    BASE,
    DELTA,
    FROM,
    TO,
    WORTH,
    SamePackage,
    candidates,
    publish_deltas,
)
from registry.digest import digest_of
from registry.errors import NotFound, WrongDigest
from registry.oci import EMPTY, EMPTY_JSON, Descriptor, Manifest, describe
from registry.package.layout import Layout
from registry.package.modelpack import (
    CONFIG,
    MEDIA_TYPES,
    About,
    File,
    Role,
    Variant,
    config_json,
    index_of,
    manifest_of,
)

OLD, MIDDLE, NEW = "1.0", "1.5", "2.0"


def noise(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


def moved(data: bytes, seed: int = 1, share: float = 0.02) -> bytes:
    rng = np.random.default_rng(seed)
    octets = np.frombuffer(data, np.uint8)
    made: bytes = np.where(rng.random(len(octets)) < share, octets + 1, octets).tobytes()
    return made


MODEL, PROGRAM = noise(300_000), noise(200_000, 2)


class Packer:
    """Puts packages into a layout; files by role and path."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def pack(
        self,
        tag: str,
        cpu: Mapping[tuple[Role, str], bytes],
        card: Mapping[tuple[Role, str], bytes] | None = None,
        name: str = "digits",
        indexed: bool = False,
    ) -> Descriptor:
        about = About(name, version=tag)
        variants = [(Variant.CPU, None, cpu)] + ([(Variant.CARD, 7, card)] if card else [])
        entries = []
        for variant, abi, contents in variants:
            files = [self._file(*place, data, indexed) for place, data in contents.items()]
            config = self.layout.add(config_json(about, files), CONFIG)
            manifest = manifest_of(about, files, config, variant, abi)
            entries.append((self.layout.add_document(manifest), variant, abi))
        top = self.layout.add_document(index_of(about, entries))
        self.layout.tag(tag, top)
        return top

    def _file(self, role: Role, path: str, data: bytes, indexed: bool) -> File:
        found = self.layout.add(data, MEDIA_TYPES[role])
        file = File(path, found.digest, found.size, role, media_type=MEDIA_TYPES[role])
        if not indexed:
            return file
        index = block_index.index_file(self.layout.blob_path(found.digest))
        return replace(file, blocks=digest_of(index))


@pytest.fixture
def packer(tmp_path: Path) -> Packer:
    return Packer(Layout(tmp_path / "layout", create=True))


def two(packer: Packer) -> tuple[Descriptor, Descriptor]:
    """An old and a new package: model and program fine-tuned, labels as they were."""
    labels = noise(80_000, 3)
    old = packer.pack(
        OLD,
        {(Role.MODEL, "1/model.onnx"): MODEL, (Role.LABELS, "labels.txt"): labels},
        {(Role.MODEL, "1/model.onnx"): MODEL, (Role.PROGRAM, "1/model.tepi"): PROGRAM},
    )
    new = packer.pack(
        NEW,
        {(Role.MODEL, "2/model.onnx"): moved(MODEL), (Role.LABELS, "labels.txt"): labels},
        {
            (Role.MODEL, "2/model.onnx"): moved(MODEL),
            (Role.PROGRAM, "2/model.tepi"): moved(PROGRAM),
        },
    )
    return old, new


def test_each_changed_layer_gets_a_delta_once(packer: Packer) -> None:
    two(packer)
    found = publish_deltas(packer.layout, NEW, [OLD], level=3)
    assert [(row.path, row.published) for row in found] == [
        ("2/model.onnx", True),
        ("2/model.tepi", True),
    ]
    assert [row.old for row in found] == [digest_of(MODEL), digest_of(PROGRAM)]
    assert all(row.ratio < 0.04 for row in found)


def test_a_node_finds_them_at_the_digest_that_is_signed(packer: Packer, tmp_path: Path) -> None:
    old, new = two(packer)
    publish_deltas(packer.layout, NEW, [OLD], level=3)
    referrers = packer.layout.referrers(new.digest)
    [(entry, manifest)] = referrers
    assert entry.artifact_type == manifest.artifact_type == DELTA
    assert manifest.subject == Descriptor(new.media_type, new.digest, new.size)
    assert manifest.annotations == {BASE: old.digest}
    for delta in candidates(referrers):
        assert (delta.old, delta.new) == (
            delta.blob.annotations[FROM],
            delta.blob.annotations[TO],
        )
        made = bytearray()
        apply_delta(
            packer.layout.blob_path(delta.blob.digest),
            packer.layout.blob_path(delta.old),
            made.extend,
        )
        assert digest_of(made) == delta.new
    assert len(candidates(referrers)) == 2


def test_again_makes_nothing_again(packer: Packer, monkeypatch: pytest.MonkeyPatch) -> None:
    _, new = two(packer)
    first = publish_deltas(packer.layout, NEW, [OLD], level=3)
    told: list[str] = []
    again = publish_deltas(packer.layout, NEW, [OLD], lambda what, _bytes: told.append(what), 3)
    assert again == first and told == []
    assert len(packer.layout.referrers(new.digest)) == 1


def test_progress_tells_which_file(packer: Packer) -> None:
    two(packer)
    told: dict[str, int] = {}

    def tell(what: str, count: int) -> None:
        told[what] = told.get(what, 0) + count

    publish_deltas(packer.layout, NEW, [OLD], tell, 3)
    assert told == {
        "delta of 2/model.onnx from 1.0": len(MODEL),
        "delta of 2/model.tepi from 1.0": len(PROGRAM),
    }


def test_without_old_tags_all_others_of_the_model_are_taken(packer: Packer) -> None:
    two(packer)
    place = (Role.MODEL, "1/model.onnx")
    packer.pack(MIDDLE, {place: moved(MODEL, 8)})
    packer.pack("other", {place: moved(MODEL, 9)}, name="letters")
    packer.layout.tag("stable", packer.layout.resolve(OLD))
    found = publish_deltas(packer.layout, NEW, level=3)
    assert {row.tag for row in found} == {OLD, MIDDLE}


def test_a_delta_of_no_worth_is_not_published(packer: Packer) -> None:
    place = (Role.MODEL, "1/model.onnx")
    packer.pack(OLD, {place: MODEL})
    new = packer.pack(NEW, {place: noise(300_000, 5)})
    [row] = publish_deltas(packer.layout, NEW, [OLD], level=3)
    assert not row.published and row.ratio > WORTH
    assert packer.layout.referrers(new.digest) == []


def test_small_files_and_those_without_a_twin_have_none(packer: Packer) -> None:
    packer.pack(OLD, {(Role.MODEL, "1/model.onnx"): MODEL, (Role.LABELS, "l.txt"): b"a\nb\n"})
    packer.pack(
        NEW,
        {
            (Role.MODEL, "1/model.onnx"): MODEL,
            (Role.LABELS, "l.txt"): b"a\nc\n",
            (Role.GOLDEN, "1/golden.tepi"): noise(90_000),
        },
    )
    assert publish_deltas(packer.layout, NEW, [OLD], level=3) == []


def test_programs_are_paired_with_those_for_the_same_card(packer: Packer) -> None:
    """The cpu variant comes first and has a file of the same role at another path."""
    layout = packer.layout
    model = {(Role.MODEL, "1/model.onnx"): MODEL, (Role.MODEL, "1/head.onnx"): noise(70_000, 6)}
    packer.pack(OLD, model)
    packer.pack(
        NEW,
        {
            (Role.MODEL, "2/head.onnx"): moved(noise(70_000, 6)),
            (Role.MODEL, "2/model.onnx"): moved(MODEL),
        },
    )
    found = {row.path: row.old for row in publish_deltas(layout, NEW, [OLD], level=3)}
    assert found == {
        "2/head.onnx": digest_of(noise(70_000, 6)),
        "2/model.onnx": digest_of(MODEL),
    }


def test_the_same_package_twice_is_refused(packer: Packer) -> None:
    two(packer)
    packer.layout.tag("stable", packer.layout.resolve(NEW))
    with pytest.raises(SamePackage, match=r"stable and 2\.0") as caught:
        publish_deltas(packer.layout, NEW, ["stable"])
    assert "--from" in caught.value.remedy


def test_an_unknown_tag_is_named(packer: Packer) -> None:
    two(packer)
    with pytest.raises(NotFound, match=r"9\.9"):
        publish_deltas(packer.layout, NEW, ["9.9"])


def test_a_damaged_layer_is_named(packer: Packer) -> None:
    two(packer)
    path = packer.layout.blob_path(digest_of(MODEL))
    path.write_bytes(bytes(len(MODEL)))
    with pytest.raises(WrongDigest, match=digest_of(MODEL)):
        publish_deltas(packer.layout, NEW, [OLD], level=3)


def test_block_indexes_left_behind_are_made_again(packer: Packer) -> None:
    place = (Role.MODEL, "1/model.onnx")
    packer.pack(OLD, {place: MODEL})
    new = packer.pack(NEW, {place: moved(MODEL)}, indexed=True)
    for _ in range(2):
        publish_deltas(packer.layout, NEW, [OLD], level=3)
        found = [m for _, m in packer.layout.referrers(new.digest) if m.artifact_type != DELTA]
        [manifest] = found
        assert manifest.artifact_type == block_index.MEDIA_TYPE
        [layer] = manifest.layers
        assert layer.annotations == {block_index.OF: digest_of(moved(MODEL))}
        index = block_index.parse(packer.layout.read(layer.digest, 1 << 20))
        assert index.digest == digest_of(moved(MODEL))


def test_referrers_that_say_nothing_proper_are_left_out() -> None:
    config = Descriptor(EMPTY, digest_of(EMPTY_JSON), 2)
    good = {FROM: digest_of(b"1"), TO: digest_of(b"2")}
    layers = (
        Descriptor(DELTA, digest_of(b"large"), 900, good),
        Descriptor(DELTA, digest_of(b"small"), 90, good),
        Descriptor(DELTA, digest_of(b"no notes"), 9),
        Descriptor(DELTA, digest_of(b"path"), 9, {**good, FROM: "sha256:../../etc/passwd"}),
        Descriptor("text/plain", digest_of(b"type"), 9, good),
    )
    manifest = Manifest(config, layers, DELTA)
    other = replace(manifest, artifact_type="application/vnd.example")
    found = candidates([(describe(m)[0], m) for m in (manifest, other)])
    assert [delta.blob.size for delta in found] == [90, 900]


def test_the_command_prints_a_table_and_json(packer: Packer) -> None:
    two(packer)
    words = [str(packer.layout.path), "--new", NEW, "--from", OLD, "--level", "3"]
    done = CliRunner().invoke(delta_command, words)
    assert done.exit_code == 0, done.output
    assert "2/model.tepi" in done.stdout and "kept" in done.stdout
    rows = json.loads(CliRunner().invoke(delta_command, [*words, "--json"]).stdout)
    assert [row["published"] for row in rows] == [True, True]
    assert rows[0]["ratio"] == rows[0]["delta_size"] / rows[0]["size"]


def test_the_command_says_where_there_is_nothing_to_do(packer: Packer) -> None:
    packer.pack(NEW, {(Role.MODEL, "1/model.onnx"): MODEL})
    done = CliRunner().invoke(delta_command, [str(packer.layout.path), "--new", NEW])
    assert done.exit_code == 0 and "no file of 2.0" in done.output


def test_the_command_needs_to_know_what_is_new(packer: Packer) -> None:
    done = CliRunner().invoke(delta_command, [str(packer.layout.path)])
    assert done.exit_code == 2 and "--new" in done.output

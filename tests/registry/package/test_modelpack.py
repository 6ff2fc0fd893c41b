# SPDX-License-Identifier: Apache-2.0
"""The codec: what it writes it takes, and what strangers write it refuses by name."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.digest import digest_of
from registry.oci import INDEX, MANIFEST, Descriptor, Index, Manifest
from registry.package import modelpack
from registry.package.errors import NotAPackage, NoVariant, PackageError, PackedLayer, UnsafePath
from registry.package.modelpack import (
    ARTIFACT,
    BLOCKS,
    CONFIG,
    FILEPATH,
    ROLE,
    TOLERANCE,
    WEIGHT,
    About,
    File,
    Role,
    Variant,
    about_of,
    check_path,
    choose,
    config_json,
    files_of,
    index_of,
    manifest_of,
)

D = digest_of(b"")
FILES = [
    File("1/model.onnx", digest_of(b"m"), 1, Role.MODEL, blocks=digest_of(b"i")),
    File("1/golden.tepi", digest_of(b"g"), 1, Role.GOLDEN, 0.05, media_type=modelpack.DATASET),
]
ABOUT = About("digits", "1", source=D, tools={"onnx": "1"}, precision="int8", parameters="1.0K")


def manifest(files: list[File] = FILES, about: About = ABOUT) -> tuple[Manifest, bytes]:
    config = config_json(about, files)
    descriptor = Descriptor(CONFIG, digest_of(config), len(config))
    return manifest_of(about, files, descriptor, Variant.CARD, 1), config


def with_layer(**changes: Any) -> Manifest:
    """A manifest whose first layer somebody changed."""
    found, _ = manifest()
    notes = {**found.layers[0].annotations, **changes.pop("annotations", {})}
    first = replace(found.layers[0], annotations=notes, **changes)
    return replace(found, layers=(first, *found.layers[1:]))


def test_what_is_written_is_what_is_read() -> None:
    found, config = manifest()
    assert files_of(found) == FILES
    assert about_of(found, config) == ABOUT
    assert found.artifact_type == ARTIFACT
    assert found.layers[0].annotations == {
        FILEPATH: "1/model.onnx",
        ROLE: "model",
        BLOCKS: digest_of(b"i"),
    }
    assert found.layers[1].annotations[TOLERANCE] == "0.05"


def test_the_configuration_is_what_the_schema_allows() -> None:
    found = json.loads(manifest()[1])
    assert found == {
        "descriptor": {"name": "digits", "version": "1"},
        "config": {"format": "onnx", "precision": "int8", "paramSize": "1.0K"},
        "modelfs": {"type": "layers", "diffIds": [file.digest for file in FILES]},
    }


def test_a_node_gets_the_variant_of_its_card() -> None:
    entries = [
        (Descriptor(MANIFEST, digest_of(bytes([n])), 1), v, a)
        for n, (v, a) in enumerate([(Variant.CPU, None), (Variant.CARD, 1), (Variant.CARD, 2)])
    ]
    index = index_of(ABOUT, entries)
    for abi, number in ((1, 1), (2, 2), (3, 0), (None, 0)):
        assert choose(index, abi).digest == entries[number][0].digest
    only_card = index_of(ABOUT, entries[1:])
    with pytest.raises(NoVariant, match=r"card \(ABI 1\), card \(ABI 2\)"):
        choose(only_card, None)
    with pytest.raises(NoVariant, match="none"):
        choose(Index((Descriptor(INDEX, D, 1),)), 1)


def test_an_entry_without_annotations_is_for_nodes_without_a_card() -> None:
    index = Index((Descriptor(MANIFEST, D, 1),))
    assert choose(index, 1).digest == D


@pytest.mark.parametrize("abi", ["x", "-1", "1e9", "٣", "9" * 5000])
def test_an_abi_that_is_no_number_fits_no_card(abi: str) -> None:
    notes = {modelpack.VARIANT: "card", modelpack.ABI: abi}
    with pytest.raises(NoVariant):
        choose(Index((Descriptor(MANIFEST, D, 1, notes),)), 1)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "..", ".", "a\\b", "a\0b"),
        *("a\nb", "C:x", ".hidden", "a/.ssh/x", "a ", "a.", "x" * 201, "a/" * 9 + "b", "\ud800"),
        *("//a", "a\x7f", "con?"),
    ],
)
def test_path_traversal_in_a_filepath(path: str) -> None:
    with pytest.raises(UnsafePath):
        files_of(with_layer(annotations={FILEPATH: path}))


def test_a_layer_without_a_filepath() -> None:
    with pytest.raises(UnsafePath):
        files_of(replace(manifest()[0], layers=(Descriptor(WEIGHT, D, 1),)))


@pytest.mark.parametrize("other", ["1/golden.tepi", "1/GOLDEN.tepi", "1", "1/golden.tepi/x"])
def test_two_layers_on_one_path(other: str) -> None:
    with pytest.raises(UnsafePath, match="two layers or is a folder"):
        files_of(with_layer(annotations={FILEPATH: other}))


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.cncf.model.weight.v1.tar",
        "application/vnd.cncf.model.weight.v1.tar+gzip",
        "application/vnd.cncf.model.weight.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/zip",
        "application/gzip",
    ],
)
def test_a_tar_or_zip_bomb_is_refused_by_its_type(kind: str) -> None:
    with pytest.raises(PackedLayer, match="none is ever unpacked"):
        files_of(with_layer(media_type=kind))


def test_an_unknown_media_type_is_refused_and_an_unknown_role_is_not() -> None:
    with pytest.raises(PackedLayer, match="unknown here"):
        files_of(with_layer(media_type="application/x-new"))
    assert files_of(with_layer(annotations={ROLE: "poster"}))[0].role == "poster"


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1.1", "", "5%"])
def test_a_tolerance_that_lets_anything_pass(text: str) -> None:
    with pytest.raises(NotAPackage, match="tolerance"):
        files_of(with_layer(annotations={TOLERANCE: text}))


def test_a_block_index_that_is_no_digest() -> None:
    with pytest.raises(NotAPackage, match="blocks"):
        files_of(with_layer(annotations={BLOCKS: "../x"}))


def test_an_image_is_no_model() -> None:
    image = Descriptor("application/vnd.oci.image.config.v1+json", D, 1)
    with pytest.raises(NotAPackage, match="no model"):
        files_of(Manifest(image, manifest()[0].layers))
    with pytest.raises(NotAPackage, match="no model"):
        files_of(replace(manifest()[0], artifact_type="application/x"))


def test_no_files_too_many_files_and_an_endless_configuration() -> None:
    found, _ = manifest()
    with pytest.raises(NotAPackage, match="0 files"):
        files_of(replace(found, layers=()))
    with pytest.raises(NotAPackage, match="1001 files"):
        files_of(replace(found, layers=(found.layers[0],) * 1001))
    with pytest.raises(NotAPackage, match="over a MiB"):
        files_of(replace(found, config=replace(found.config, size=1 << 30)))


@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"[]",
        b"[" * 5000,
        b"{}",
        b'{"descriptor": 1}',
        b'{"descriptor": {"name": 1}, "config": {}, "modelfs": {"type": "layers"}}',
        config_json(ABOUT, FILES[:1]),  # mix and match
        config_json(ABOUT, FILES).replace(b'"digits"', b'"../x"'),
        config_json(ABOUT, FILES).replace(b'"1"', b'"' + b"1" * 5000 + b'"'),
    ],
)
def test_a_malformed_configuration(change: bytes) -> None:
    with pytest.raises(NotAPackage):
        about_of(manifest()[0], change)


@pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "-a", "a\0", "x" * 129, "ä"])
def test_a_name_that_is_no_folder(name: str) -> None:
    with pytest.raises(NotAPackage):
        config_json(About(name), FILES)


@given(st.text())
def test_any_path_is_refused_or_stays_in_its_folder(path: str) -> None:
    try:
        check_path(path)
    except PackageError:
        return
    parts = path.split("/")
    assert all(part and not part.startswith(".") and "\0" not in part for part in parts)

# SPDX-License-Identifier: Apache-2.0
"""Models to packages: what goes in, what is tried, and what is said where something cannot be."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from device.binding import Card
from device.binding.abi import ABI_VERSION
from device.compiler import compile_model
from edge_server.app import product_parts
from registry.delta import block_index
from registry.digest import digest_of_file
from registry.package.errors import NotPackable
from registry.package.golden import read_golden
from registry.package.layout import Layout
from registry.package.model_folder import Wanted, gather, read_traits
from registry.package.modelpack import (
    CONFIG,
    Role,
    Variant,
    config_json,
    index_of,
    manifest_of,
)
from registry.package.package import open_package
from registry.package.packing import Options, pack
from registry.package.unpacking import place
from registry.package.verifying import verify

from .models import CPU, DIGITS, model, packed, relu, saved


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", create=True)


def wrong(layout: Layout, tag: str = "") -> list[str]:
    return [f"{check.what}: {check.wrong}" for check in verify(layout, tag) if check.wrong]


def test_a_model_folder_becomes_two_variants_that_share_their_files(layout: Layout) -> None:
    made = packed(DIGITS, layout)
    package = open_package(layout)
    assert (made.name, made.golden, made.no_card) == ("digits", 3, "")
    assert made.digest == package.descriptor.digest
    card, cpu = package.variants
    assert (card.variant, card.abi, cpu.variant, cpu.abi) == ("card", ABI_VERSION, "cpu", None)
    assert package.choose(ABI_VERSION) == card
    assert package.choose(None) == cpu
    shared = {(file.path, file.role) for file in cpu.files}
    assert shared == {
        ("1/model.onnx", "model"),
        ("config.pbtxt", "config"),
        ("labels.txt", "labels"),
        ("1/golden.tepi", "golden"),
    }
    assert set(card.files) - set(cpu.files) == {card.file(Role.PROGRAM)}
    assert cpu.about.source == digest_of_file(DIGITS / "1/model.onnx")
    assert (cpu.about.precision, cpu.about.quantization) == ("int8", "qdq")
    assert set(cpu.about.tools) == {"tepi", "onnx", "onnxruntime"}
    assert wrong(layout) == []


def test_the_same_files_give_the_same_digest(tmp_path: Path, layout: Layout) -> None:
    other = Layout(tmp_path / "other", create=True)
    first, second = packed(DIGITS, layout), packed(DIGITS, other, Options("2.0"))
    assert first.digest == second.digest
    assert packed(DIGITS, layout, Options(created="2026-01-31T12:00:00Z")).digest != first.digest


def test_the_server_takes_the_program_from_the_package(tmp_path: Path, layout: Layout) -> None:
    packed(DIGITS, layout)
    folder = tmp_path / "models/digits"
    place(open_package(layout).choose(ABI_VERSION).files, layout.blob_path, folder)
    with Card.open() as card:
        session: Any = product_parts().open_session(folder / "1/model.onnx", card, 1)
        assert session.not_used == ""
        golden = read_golden(folder / "1/golden.tepi")
        found = session.run(list(golden.outputs[0]), golden.inputs[0])
        np.testing.assert_array_equal(found[0], golden.outputs[0]["probabilities"])
        session.close()


def test_golden_vectors_of_given_data_and_a_calibration(tmp_path: Path, layout: Layout) -> None:
    data = tmp_path / "d.npz"
    images = np.random.default_rng(1).random((7, 1, 8, 8), np.float32)
    np.savez(data, image=images)
    options = Options(golden=5, golden_data=data, calibration=data, tolerance=0.01)
    assert packed(DIGITS, layout, options).golden == 5
    packed_cpu = open_package(layout).choose(None)
    assert packed_cpu.about.calibration == digest_of_file(data)
    file = packed_cpu.file(Role.GOLDEN)
    assert file is not None
    assert file.tolerance == 0.01
    golden = read_golden(layout.blob_path(file.digest))
    np.testing.assert_array_equal(golden.inputs[4]["image"], images[4:5])


def test_a_large_file_gets_a_block_index_that_a_referrer_keeps(
    tmp_path: Path, layout: Layout
) -> None:
    weights = np.random.default_rng(0).normal(size=(1 << 10, 300)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    proto = model(
        [node], {"x": (TensorProto.FLOAT, [1, 1 << 10])}, {"y": TensorProto.FLOAT}, w=weights
    )
    made = packed(saved(proto, tmp_path / "big.onnx"), layout)
    package = open_package(layout)
    file = package.choose(None).file(Role.MODEL)
    assert file is not None
    index = block_index.parse(layout.read(file.blocks, 1 << 20), digest=file.digest, size=file.size)
    assert len(index.blocks) > 5
    ((_, referrer),) = layout.referrers(made.digest)
    assert referrer.artifact_type == block_index.MEDIA_TYPE
    assert file.blocks in {layer.digest for layer in referrer.layers}
    assert file.digest in {layer.annotations[block_index.OF] for layer in referrer.layers}
    small = package.choose(None).file(Role.GOLDEN)
    assert small is not None
    assert small.blocks == ""
    assert wrong(layout) == []


def test_a_model_with_open_sizes_has_no_card_variant_and_says_why(
    tmp_path: Path, layout: Layout
) -> None:
    path = saved(relu([1, "width"]), tmp_path / "relu.onnx")
    with pytest.raises(NotPackable, match="no golden vectors") as caught:
        packed(path, layout)
    assert "--shape" in caught.value.remedy
    made = packed(path, layout, Options(shapes={"x": (1, 5)}))
    assert "sizes open" in made.no_card
    assert set(made.variants) == {"cpu"}
    assert "sizes open" in open_package(layout).about.no_card
    with pytest.raises(NotPackable, match="no card variant"):
        packed(path, layout, Options(variants=(Variant.CARD,), shapes={"x": (1, 5)}))


def test_a_model_that_no_card_runs_has_no_card_variant(tmp_path: Path, layout: Layout) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    proto = model([node], {"x": (TensorProto.STRING, [2])}, {"y": TensorProto.STRING})
    made = packed(saved(proto, tmp_path / "text.onnx"), layout)
    assert "no node of the model runs on the card" in made.no_card
    assert made.golden == 3
    assert wrong(layout) == []


def test_a_program_that_answers_otherwise_is_not_packed(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden vectors that contradict the compiler: here all scales were changed under it."""

    def other(proto: onnx.ModelProto, **options: Any) -> Any:
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        for tensor in changed.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and not tensor.dims:
                value = onnx.numpy_helper.to_array(tensor) * np.float32(3)
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        return compile_model(changed, **options)

    monkeypatch.setattr("registry.package.packing.compile_model", other)
    made = packed(DIGITS, layout)
    assert "the card answers otherwise than onnxruntime" in made.no_card
    assert set(made.variants) == {"cpu"}


def test_weights_in_files_of_their_own_are_packed_for_nodes_without_a_card(
    tmp_path: Path, layout: Layout
) -> None:
    weights = np.ones((64, 64), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    proto = model([node], {"x": (TensorProto.FLOAT, [1, 64])}, {"y": TensorProto.FLOAT}, w=weights)
    path = tmp_path / "model/1/model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(proto, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    made = packed(path.parents[1], layout)
    assert "files of their own" in made.no_card
    package = open_package(layout)
    assert {file.path for file in package.choose(None).files} >= {"1/model.onnx", "1/w.bin"}
    assert wrong(layout) == []


def test_weights_outside_the_folder_are_not_packed(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weights = np.ones((64, 64), np.float32)
    proto = model([node], {"x": (TensorProto.FLOAT, [1, 64])}, {"y": TensorProto.FLOAT}, w=weights)
    path = tmp_path / "m.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    data = path.read_bytes().replace(b"w.bin", b"../ww")
    path.write_bytes(data)
    with pytest.raises(NotPackable, match="no plain path"):
        gather(path, Wanted())


def test_labels_for_a_model_without_a_configuration(tmp_path: Path, layout: Layout) -> None:
    labels = tmp_path / "names"
    labels.write_text("a\nb\n")
    wanted = Wanted(labels=labels, card=labels, preprocessing=labels)
    made = gather(saved(relu([1, 2]), tmp_path / "relu.onnx"), wanted)
    assert [(given.path, given.role) for given in made.others] == [
        ("labels.txt", "labels"),
        ("config.pbtxt", "config"),
        ("README.md", "card"),
        ("names", "preprocessing"),
    ]
    assert made.others[1].content == b'output {\n  name: "y"\n  label_filename: "labels.txt"\n}\n'
    pack(made, Options(variants=CPU), layout)
    assert open_package(layout).about.name == "relu"


def test_what_a_folder_may_lack(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    with pytest.raises(NotPackable, match="no version folder"):
        gather(folder, Wanted())
    saved(relu([1, 2]), folder / "2/model.onnx")
    saved(relu([1, 2]), folder / "10/net.onnx")
    with pytest.raises(NotPackable, match=r"10/model\.onnx is not there; .* versions 2, 10"):
        gather(folder, Wanted())
    assert gather(folder, Wanted(version=2)).model_path == "2/model.onnx"
    (folder / "config.pbtxt").write_text('default_model_filename: "net.onnx"')
    assert gather(folder, Wanted()).model_path == "10/net.onnx"
    (folder / "config.pbtxt").write_text('name: "other"\ndefault_model_filename: "net.onnx"')
    assert gather(folder, Wanted()).name == "other"
    with pytest.raises(NotPackable, match="calls the model 'other', not 'm'"):
        gather(folder, Wanted("m"))
    (folder / "config.pbtxt").write_text("name: ")
    with pytest.raises(NotPackable, match="no model configuration"):
        gather(folder, Wanted())
    with pytest.raises(NotPackable, match="neither"):
        gather(tmp_path / "none", Wanted())


def test_a_label_file_that_leaves_the_folder(tmp_path: Path) -> None:
    saved(relu([1, 2]), tmp_path / "m/1/model.onnx")
    (tmp_path / "m/config.pbtxt").write_text('output { name: "y" label_filename: "../secret" }')
    with pytest.raises(Exception, match="no plain path"):
        gather(tmp_path / "m", Wanted())


def test_a_file_that_is_no_model(tmp_path: Path, layout: Layout) -> None:
    for data in (b"", b"no model", bytes(1000)):
        (tmp_path / "m.onnx").write_bytes(data)
        with pytest.raises(NotPackable, match="not a readable ONNX model"):
            packed(tmp_path / "m.onnx", layout)
    assert layout.tags() == {}


def test_a_time_that_is_none(layout: Layout) -> None:
    with pytest.raises(NotPackable, match="'yesterday' is no time"):
        packed(DIGITS, layout, Options(created="yesterday"))


@pytest.mark.parametrize(
    ("op", "precision", "quantization"),
    [("DynamicQuantizeLinear", "int8", "dynamic"), ("QLinearMatMul", "int8", "qoperator")],
)
def test_how_a_model_was_quantized(
    tmp_path: Path, op: str, precision: str, quantization: str
) -> None:
    proto = relu([1, 2])
    proto.graph.node.append(helper.make_node(op, ["x"], ["q", "s", "z"]))
    traits = read_traits(saved(proto, tmp_path / "m.onnx"))
    assert (traits.precision, traits.quantization) == (precision, quantization)
    assert read_traits(saved(relu([1, 2]), tmp_path / "f.onnx")).precision == "fp32"


def test_packing_interrupted_at_every_step_leaves_the_old_package_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut before any of the syncs, after which nothing more is done."""
    old, new = relu([1, 4]), relu([1, 4])
    new.graph.node[0].op_type = "Abs"
    options = Options(golden=1, variants=CPU)
    first = saved(old, tmp_path / "old/1/model.onnx").parents[1]
    second = saved(new, tmp_path / "new/1/model.onnx").parents[1]
    after = packed(second, Layout(tmp_path / "whole", create=True), options).digest
    steps = 0
    for cut in range(1000):
        layout = Layout(tmp_path / f"layout{cut}", create=True)
        before = packed(first, layout, options).digest
        left, sync = [cut], os.fsync

        def cutting(file: int, left: list[int] = left, sync: Any = sync) -> None:
            if not left[0]:
                raise OSError(5, "the power went")
            left[0] -= 1
            sync(file)

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", cutting)
            try:
                made = packed(second, layout, options)
            except OSError:
                made = None
        found = open_package(layout).descriptor.digest
        assert found in ((after,) if made else (before, after))
        assert wrong(layout) == []
        if made:
            break
        steps += 1
    assert steps > 10


def test_a_damaged_package_is_not_run(layout: Layout) -> None:
    packed(DIGITS, layout)
    file = open_package(layout).choose(None).file(Role.MODEL)
    assert file is not None
    path = layout.blob_path(file.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    checks = verify(layout)
    assert [bool(check.wrong) for check in checks] == [False, True]
    assert file.digest in checks[1].wrong


def test_golden_vectors_that_the_model_does_not_answer(tmp_path: Path, layout: Layout) -> None:
    """Mixed and matched: one model's golden vectors beside another model."""
    packed(saved(relu([1, 64]), tmp_path / "relu.onnx"), layout, Options("a", variants=CPU))
    golden = open_package(layout, "a").choose(None).file(Role.GOLDEN)
    assert golden is not None
    proto = relu([1, 64])
    proto.graph.node[0].op_type = "Abs"
    gathered = gather(saved(proto, tmp_path / "abs.onnx"), Wanted("relu"))
    pack(gathered, Options("b", variants=CPU), layout)
    found = open_package(layout, "b").choose(None)
    files = [replace(golden, path=f.path) if f.role == "golden" else f for f in found.files]
    config = layout.add(config_json(found.about, files), CONFIG)
    entry = layout.add_document(manifest_of(found.about, files, config, Variant.CPU, None))
    layout.tag("c", layout.add_document(index_of(found.about, [(entry, Variant.CPU, None)])))
    (line,) = wrong(layout, "c")
    assert line.startswith("cpu on onnxruntime: golden vector 0, output 'y'")

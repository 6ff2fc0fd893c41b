# SPDX-License-Identifier: Apache-2.0
"""Files of compiled models: what runs from one, and what hostile bytes may do (nothing)."""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device.binding import Card
from device.binding.abi import ABI_VERSION
from device.compiled import (
    KIND,
    BadProgramFile,
    NotStorable,
    OtherProgram,
    Source,
    open_compiled,
    write_compiled,
)
from device.compiler import CardSegment, CompiledModel, HostSegment, compile_model
from device.errors import ModelError
from device.sections import MAPPED, BadSections, Sections, write_sections
from device.session import Session

from .compiler.building import Builder

DIGITS = (
    Path(__file__).resolve().parents[2] / "examples/digits/model_repository/digits/1/model.onnx"
)


def mixed() -> bytes:
    """A model with a part on the card, one on onnxruntime and a constant output."""
    b = Builder(opset=17)
    b.inputs.append(onnx.helper.make_tensor_value_info("x", 1, [2, 8]))
    b.quantized("x", "xq", 0.02, 120, output=False)
    dense = b.node("MatMul", (b.again("xq"), b.weights("w", (8, 4), channels=False)), "dense")
    b.quantized(dense, "dq", 0.05, output=False)
    shaped = b.node("Reshape", (b.again("dq"), b.const("s", [2, 2, 2])), "r")
    b.output(b.node("Det", (shaped,), "det"), 1)
    b.output(b.node("Identity", (b.const("c", [1.5, 2.5]),), "same"), onnx.TensorProto.DOUBLE)
    return b.model().SerializeToString()


def stored(model: bytes, folder: Path) -> Path:
    path = folder / "model.tepi"
    write_compiled(path, compile_model(model), Source.of(model), "test")
    return path


def rewritten(path: Path, change: Any) -> Path:
    """The file with another header, whose sums are right: what a hostile author would make."""
    with Sections(path, KIND) as file:
        header, parts = file.header, [file.read(i) for i in range(len(file))]
    change(header)
    write_sections(path, KIND, header, parts)
    return path


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return stored(DIGITS.read_bytes(), tmp_path)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    for model in (DIGITS.read_bytes(), mixed()):
        compiled = compile_model(model, name="m")
        found = open_compiled(stored(model, tmp_path), Source.of(model), "m")
        assert repr(found) == repr(compiled)
        assert parts(found) == parts(compiled)
    assert {type(s) for s in found.segments} == {CardSegment, HostSegment}


def parts(model: CompiledModel) -> list[bytes]:
    return [bytes(s.program if isinstance(s, CardSegment) else s.model) for s in model.segments]


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    first = stored(mixed(), tmp_path).read_bytes()
    assert stored(mixed(), tmp_path).read_bytes() == first


@pytest.mark.parametrize("batch", [1, 3])
def test_a_session_computes_the_same_bytes_from_the_file(digits: Path, batch: int) -> None:
    x = np.random.default_rng(3).random((batch, 1, 8, 8), np.float32)
    with Session(DIGITS) as compiled, Session(DIGITS, compiled=digits) as read:
        assert read.not_used == ""
        assert compiled.placement == read.placement
        feed = {compiled.inputs[0].name: x}
        for a, b in zip(compiled.run(None, feed), read.run(None, feed), strict=True):
            assert a.tobytes() == b.tobytes()


def test_a_large_program_is_mapped_and_survives_its_file(tmp_path: Path) -> None:
    b = Builder(opset=17)
    b.inputs.append(onnx.helper.make_tensor_value_info("x", 1, [1, 1024]))
    b.quantized("x", "xq", 0.02, 120, output=False)
    w = b.weights("w", (1024, 1200), channels=False)
    b.quantized(b.node("MatMul", (b.again("xq"), w), "dense"), "dq", 0.05, output=False)
    b.output(b.again("dq"), 1)
    model = b.model().SerializeToString()
    path = stored(model, tmp_path)
    (segment,) = open_compiled(path).segments
    assert isinstance(segment, CardSegment)
    assert isinstance(segment.program, mmap.mmap)
    assert len(segment.program) > MAPPED
    x = {"x": np.ones((1, 1024), np.float32)}
    with Session(model) as expected, Session(model, compiled=path) as read:
        path.unlink()
        assert read.run(None, x)[0].tobytes() == expected.run(None, x)[0].tobytes()
        assert read.card is not None
        read.card.reset()
        read.reload()
        assert read.run(None, x)[0].tobytes() == expected.run(None, x)[0].tobytes()


def test_a_program_of_another_model_is_compiled_anew_and_the_session_says_so(
    tmp_path: Path,
) -> None:
    path = stored(mixed(), tmp_path)
    with Session(DIGITS, compiled=path) as session:
        assert "another model file" in session.not_used
        assert session.inputs[0].shape[1:] == [1, 8, 8]


def test_a_program_for_another_card_is_compiled_anew(digits: Path) -> None:
    rewritten(digits, lambda header: header.update(abi=ABI_VERSION + 1))
    with pytest.raises(OtherProgram, match=f"ABI {ABI_VERSION + 1}"):
        open_compiled(digits)
    with Session(DIGITS, compiled=digits) as session:
        assert f"ABI {ABI_VERSION + 1}" in session.not_used


def test_a_program_that_the_card_rejects_is_compiled_anew(tmp_path: Path) -> None:
    path = stored(DIGITS.read_bytes(), tmp_path)
    with Sections(path, KIND) as file:
        header, sections = file.header, [file.read(i) for i in range(len(file))]
    broken = bytearray(sections[0])
    broken[len(broken) // 2] ^= 1
    write_sections(path, KIND, header, [bytes(broken), *sections[1:]])
    with Session(DIGITS, compiled=path) as session:
        assert "does not take the compiled program" in session.not_used
        assert session.run(None, {session.inputs[0].name: np.zeros((1, 1, 8, 8), np.float32)})


def test_ports_of_other_sizes_than_the_program_has_are_compiled_anew(digits: Path) -> None:
    def grow(header: dict[str, Any]) -> None:
        header["segments"][0]["inputs"][0][2] = [1, 1, 8, 9]

    with Session(DIGITS, compiled=rewritten(digits, grow)) as session:
        assert "other ports" in session.not_used


def test_a_file_that_is_not_there_is_compiled_anew(tmp_path: Path) -> None:
    with Card.open() as card, Session(DIGITS, card, compiled=tmp_path / "none.tepi") as session:
        assert "none.tepi" in session.not_used


def test_a_model_with_open_sizes_has_no_program(tmp_path: Path) -> None:
    b = Builder(opset=17)
    b.inputs.append(onnx.helper.make_tensor_value_info("x", 1, [1, "width"]))
    b.output(b.node("Relu", ("x",), "relu"), 1)
    with pytest.raises(NotStorable, match="sizes open"):
        stored(b.model().SerializeToString(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", [0, 9, 20, 60, 5000, -1])
def test_a_flipped_bit_is_found(digits: Path, where: int) -> None:
    data = bytearray(digits.read_bytes())
    data[where] ^= 4
    digits.write_bytes(data)
    with pytest.raises(BadProgramFile):
        open_compiled(digits)


@pytest.mark.parametrize("size", [0, 7, 47, 48, 500, -1])
def test_a_truncated_file_is_found(digits: Path, size: int) -> None:
    digits.write_bytes(digits.read_bytes()[:size])
    with pytest.raises(BadProgramFile):
        open_compiled(digits)


def test_bytes_after_the_end_are_found(digits: Path) -> None:
    digits.write_bytes(digits.read_bytes() + b"\0")
    with pytest.raises(BadProgramFile, match="does not end"):
        open_compiled(digits)


def test_a_section_outside_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_sections(path, KIND, {}, [b"abc"])
    data = path.read_bytes()
    with Sections(path, KIND) as file:
        assert file.read(0) == b"abc"
    length = int.from_bytes(data[8:12], "little")
    text = data[48 : 48 + length].replace(b"4096", b"8192")
    path.write_bytes(data[:16] + hashlib.sha256(text).digest() + text + data[48 + length :])
    with pytest.raises(BadSections, match="not where it belongs"):
        Sections(path, KIND)


def test_a_header_of_endless_depth_is_found(tmp_path: Path) -> None:
    text = b"[" * 200_000
    start = KIND + len(text).to_bytes(4, "little") + bytes(4) + hashlib.sha256(text).digest()
    (tmp_path / "f").write_bytes(start + text)
    with pytest.raises(BadSections, match="not JSON"):
        Sections(tmp_path / "f", KIND)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["float32", "uint8", "object", "V", "card", "O", "image", "i4,i4", "M8[ns]"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of every value in a header."""
    found = [path] if path else []
    rows = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value if isinstance(value, list) else [])
    )
    for key, inner in rows:
        found += places(inner, (*path, key))
    return found


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_hostile_header_is_refused_or_makes_sense(tmp_path: Path, data: st.DataObject) -> None:
    path = stored(mixed(), tmp_path)

    def change(header: dict[str, Any]) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            *way, last = data.draw(st.sampled_from(places(header)))
            inner: Any = header
            for key in way:
                inner = inner[key]
            inner[last] = data.draw(VALUES)

    before = json.dumps(compile_model(mixed()).shapes)
    try:
        found = open_compiled(rewritten(path, change))
    except ModelError:
        return
    assert json.loads(before).keys() == found.shapes.keys() or found.any_shape
    repr(found)

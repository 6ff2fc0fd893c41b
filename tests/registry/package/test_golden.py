# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: stored and read back, judged, and hostile files refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device.sections import Sections, write_sections
from registry.package.errors import BadGolden, PackageError
from registry.package.golden import (
    KIND,
    Feeds,
    Golden,
    check_golden,
    make_golden,
    read_golden,
    write_golden,
)

TYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool")


def file_of(folder: Path, golden: Golden) -> Path:
    path = folder / "golden.tepi"
    write_golden(path, golden)
    return path


def answer(value: Any) -> Golden:
    return Golden([{}], [{"y": np.asarray(value)}])


def judged(expected: Any, found: Any, tolerance: float = 0.05) -> list[str]:
    golden = Golden([{}], [{"y": np.asarray(expected)}], tolerance)
    return check_golden(golden, lambda _names, _feeds: [np.asarray(found)])


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    feeds = {kind: chance.integers(0, 2, (2, 3)).astype(kind) for kind in TYPES}
    feeds["scalar"] = np.array(2.5, np.float32)
    feeds["none"] = np.zeros((0, 4), np.float32)
    feeds["text"] = np.array([["a", "ü\n"]], object)
    golden = Golden([feeds, {}], [{"y": np.arange(5)}, {"y": np.arange(3)}], 0.01)
    found = read_golden(file_of(tmp_path, golden))
    assert found.tolerance == 0.01
    for a, b in zip(
        (*golden.inputs, *golden.outputs), (*found.inputs, *found.outputs), strict=True
    ):
        assert list(a) == list(b)
        for name in a:
            assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
            np.testing.assert_array_equal(a[name], b[name])


def test_the_same_vectors_give_the_same_file(tmp_path: Path) -> None:
    first = file_of(tmp_path, answer([1.5])).read_bytes()
    assert file_of(tmp_path, answer([1.5])).read_bytes() == first


def test_answers_are_asked_for_by_name(tmp_path: Path) -> None:
    def run(names: Sequence[str], feeds: Feeds) -> list[Any]:
        return [feeds["x"] * 2 if name == "double" else feeds["x"] for name in names]

    feeds = [{"x": np.arange(3, dtype=np.float32)}]
    golden = make_golden(feeds, ["double", "same"], run, 0.05)
    assert check_golden(golden, run) == []
    wrong = check_golden(golden, lambda names, given: run(["same"] * len(names), given))
    assert wrong == [
        "golden vector 0, output 'double': 2 of 3 values differ, by up to 2 where 0.2 is allowed"
    ]


def test_the_rule_of_tolerance() -> None:
    assert judged([0.0, 100.0], [4.9, 100.0]) == []
    assert judged([0.0, 100.0], [5.1, 100.0]) != []
    assert judged([0.0, 100.0], [0.1, 100.0], 0.0) != []
    assert judged([1e-9], [2e-9], 0.0) == []  # last places of what is as good as zero
    assert judged(np.array([10], "i1"), np.array([11], "i1"), 0.0) == []  # a step of quantization
    assert judged(np.array([10], "i1"), np.array([12], "i1"), 0.0) != []
    assert judged([np.inf, 1.0], [np.inf, 1.0]) == []
    assert judged([np.nan, 1.0], [1.0, np.nan]) != []
    assert judged([np.inf, 1.0], [-np.inf, 1.0]) != []
    assert judged([1.0, 1.0], [1.0, np.inf]) != []
    assert judged([True], [False]) == ["golden vector 0, output 'y': other values"]
    assert judged(np.array(["a"], object), np.array(["b"], object)) != []
    assert "was expected, not float32[1]" in judged([1.0], np.array([1.0], "f4"))[0]
    assert judged([[1.0]], [1.0]) != []


def test_an_answer_that_says_nothing_is_no_golden_vector() -> None:
    with pytest.raises(BadGolden, match="no number throughout") as caught:
        make_golden([{}], ["y"], lambda _n, _f: [np.array([np.nan, np.nan])], 0.05)
    assert "--golden-data" in caught.value.remedy


def test_types_that_are_not_stored(tmp_path: Path) -> None:
    with pytest.raises(BadGolden, match="complex"):
        file_of(tmp_path, answer([1j]))


def test_an_npz_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "golden.tepi"
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))
    with pytest.raises(BadGolden, match="does not begin"):
        read_golden(path)


@pytest.mark.parametrize("at", [3, 20, 50, -1])
def test_a_flipped_bit_is_found(tmp_path: Path, at: int) -> None:
    path = file_of(tmp_path, answer([1.5]))
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadGolden):
        read_golden(path)


def hostile(path: Path, header: Any, sections: list[bytes] | None = None) -> Path:
    """A file with this header, whose sums are right."""
    write_sections(path, KIND, header, sections or [], 64)
    return path


ONE = {"format": 1, "tolerance": 0.05}


@pytest.mark.parametrize(
    "header",
    [
        {},
        {**ONE, "format": 2},
        {**ONE, "tolerance": 2, "vectors": []},
        {**ONE, "tolerance": "0", "vectors": []},
        ONE,
        {**ONE, "vectors": 3},
        {**ONE, "vectors": [[]]},
        {**ONE, "vectors": [[[], 1]]},
        {**ONE, "vectors": [[[], []]]},  # a section that nothing uses
        {**ONE, "vectors": [[[["x", "float32", [1]]] * 2, []]]},  # more tensors than sections
        {**ONE, "vectors": [[[["x", "float32", [1 << 39]]], []]]},
        {**ONE, "vectors": [[[["x", "float32", [-1]]], []]]},
        {**ONE, "vectors": [[[["x", "float32", [True]]], []]]},
        {**ONE, "vectors": [[[["x", "object", [1]]], []]]},
        {**ONE, "vectors": [[[["x", None, [1]]], []]]},
        {**ONE, "vectors": [[[["x", "i4,i4", [1]]], []]]},
        {**ONE, "vectors": [[[["x", "string", [1 << 39]]], []]]},
        {**ONE, "vectors": [[[[1, "float32", [1]]], []]]},
        {**ONE, "vectors": [[[["x", "float32", [1] * 65]], []]]},
        {**ONE, "vectors": [[[["x", "float32"]], []]]},
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, header: Any) -> None:
    with pytest.raises(BadGolden):
        read_golden(hostile(tmp_path / "g", header, [bytes(4)]))


@pytest.mark.parametrize("text", [b"", b"[", b"{}", b"[1]", b'["a", "b"]', b"[" * 9999])
def test_hostile_texts_are_refused(tmp_path: Path, text: bytes) -> None:
    header = {**ONE, "vectors": [[[["x", "string", [1]]], []]]}
    with pytest.raises(BadGolden, match="not 1 texts"):
        read_golden(hostile(tmp_path / "g", header, [text]))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_change_of_bytes_is_found_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    path = file_of(tmp_path, Golden([{"x": np.arange(4)}], [{"y": np.array(["a"], object)}]))
    found = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(found) - 1))
    found[at : at + data.draw(st.integers(1, 8))] = data.draw(st.binary(max_size=8))
    path.write_bytes(found)
    try:
        golden = read_golden(path)
    except PackageError:
        return
    np.testing.assert_array_equal(golden.inputs[0]["x"], np.arange(4))  # the padding was changed


def test_sections_of_another_alignment_are_refused(tmp_path: Path) -> None:
    write_sections(tmp_path / "g", KIND, {}, [b"x"], 4096)
    with pytest.raises(ValueError, match="not where it belongs"):
        Sections(tmp_path / "g", KIND, 64)

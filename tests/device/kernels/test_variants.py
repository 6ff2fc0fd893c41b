# SPDX-License-Identifier: Apache-2.0
"""Every kernel variant equals the scalar reference byte for byte, over shapes that hypothesis
draws. The operands, the reference and the comparison are variants.c, behind ctypes."""

import ctypes
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build" / "ctest"  # shared with make ctest
WHY_BYTES = 256


def fields(struct_name: str) -> list[str]:
    """Members of one of the tester's structs, which are all uint32_t."""
    header = (Path(__file__).parent / "variants.h").read_text(encoding="utf-8")
    body = re.search(rf"struct {struct_name} {{(.*?)}};", header, re.DOTALL)
    assert body
    members = re.findall(r"uint32_t ([^;]*);", body.group(1))
    return [name.strip() for line in members for name in line.split(",")]


KINDS = ("conv", "pool", "plane", "matmul", "channels")
CONV, POOL, PLANE, MATMUL, CHANNELS = (fields(f"tepi_{kind}_case") for kind in KINDS)
BYTEWISE_KINDS = ("add", "mul", "table")
PLANE_KINDS = ("quantize", "dequantize", "copy")

thorough = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@cache
def library() -> ctypes.CDLL:
    """The tester, built from the sources as they are."""
    configure = ["cmake", "-S", "device", "-B", str(BUILD), "-G", "Ninja"]
    configure += ["-DCMAKE_BUILD_TYPE=Debug", "-DTEPI_TESTS=ON"]
    build = ["cmake", "--build", str(BUILD), "--target", "tepi_kernels_test", "--parallel", "2"]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}
    for command in (configure, build):
        done = subprocess.run(
            command, cwd=ROOT, env=path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    tester = ctypes.CDLL(str(BUILD / "libtepi_kernels_test.so"))
    tester.tepi_set_name.restype = ctypes.c_char_p
    tester.tepi_convolution_name.restype = ctypes.c_char_p
    return tester


def sets() -> Iterator[tuple[int, str]]:
    tester = library()
    for index in range(tester.tepi_sets()):
        yield index, tester.tepi_set_name(index).decode()


def struct(names: list[str], values: dict[str, int]) -> ctypes.Array[ctypes.c_uint32]:
    assert set(names) == set(values)
    return (ctypes.c_uint32 * len(names))(*(values[name] for name in names))


def agree(verdict: int, why: ctypes.Array[ctypes.c_char], name: str) -> None:
    assume(verdict != 2)
    assert verdict == 0, f"{name}: {why.value.decode()}"


def small(largest: int, least: int = 0) -> st.SearchStrategy[int]:
    return st.integers(least, largest)


@st.composite
def convolutions(draw: st.DrawFn, kind: str) -> dict[str, int]:
    """kind: dense, grouped or depthwise."""
    case = {name: draw(small(3, 1)) for name in ("n", "stride_h", "stride_w")}
    case |= {name: draw(small(5, 1)) for name in ("out_h", "kernel_h", "kernel_w")}
    case |= {name: draw(small(2, 1)) for name in ("dilation_h", "dilation_w")}
    case["out_w"] = draw(small(40, 1))
    if draw(st.booleans()):
        case |= {"kernel_h": 3, "kernel_w": 3, "dilation_w": 1}
        if kind == "dense" and draw(st.booleans()):
            case |= dict.fromkeys(("stride_h", "stride_w", "dilation_h"), 1)
    if kind == "dense" and draw(st.booleans()):
        case |= {"kernel_w": 3, "stride_w": 1, "dilation_w": 1, "out_w": draw(small(40, 16))}
        channels = {"groups": 1, "group_in": draw(small(40, 1)), "group_out": draw(small(16, 1))}
    elif kind == "dense":
        channels = {"groups": 1, "group_in": draw(small(200, 1)), "group_out": draw(small(150, 1))}
    elif kind == "grouped":
        channels = {"groups": draw(small(12, 1)), "group_in": draw(small(40, 1))}
        channels["group_out"] = draw(small(40, 1))
    else:
        channels = {"groups": draw(small(200, 1)), "group_in": 1, "group_out": 1}
    case |= channels
    case |= {
        name: draw(st.sampled_from([0, 0, 1, 3, 64])) for name in ("in_padding", "out_padding")
    }
    case["lo"] = draw(st.one_of(st.just(0), small(255)))
    case["hi"] = draw(st.one_of(st.just(255), small(255, case["lo"])))
    case |= {"zero_point": draw(small(255)), "row_cut": draw(small(6))}
    case["floats"] = draw(st.sampled_from([0, 0, 0, 1, 2]))
    return case | {name: draw(small(1)) for name in ("has_table", "extreme")}


@pytest.mark.parametrize("kind", ["dense", "grouped", "depthwise"])
@thorough
@given(data=st.data(), seed=small(2**64 - 1))
def test_convolution(kind: str, data: st.DataObject, seed: int) -> None:
    case = struct(CONV, data.draw(convolutions(kind)))
    why = ctypes.create_string_buffer(WHY_BYTES)
    tester, taken = library(), 0
    for index, name in sets():
        for variant in range(tester.tepi_convolutions(index)):
            verdict = tester.tepi_check_conv(index, variant, case, ctypes.c_uint64(seed), why)
            assert verdict != 1, f"{name}: {why.value.decode()}"
            taken += verdict == 0
    assert taken, "no variant takes this shape: the last of a set must take all"


def test_every_variant_is_reached() -> None:
    """One shape per variant that it must take, so that none is passed over in silence."""
    tester = library()
    plain = (
        dict.fromkeys(CONV, 0) | {"hi": 255} | dict.fromkeys(CONV[: CONV.index("in_padding")], 1)
    )
    for index, name in sets():
        for variant in range(tester.tepi_convolutions(index)):
            kernel = tester.tepi_convolution_name(index, variant).decode()
            case = plain | {"out_h": 9, "out_w": 17, "kernel_h": 3, "kernel_w": 3}
            case |= {"groups": 70} if "dwconv" in kernel else {"group_in": 64, "group_out": 70}
            case |= {"group_out": 12} if "16x16" in kernel else {}
            why = ctypes.create_string_buffer(WHY_BYTES)
            shape = struct(CONV, case)
            verdict = tester.tepi_check_conv(index, variant, shape, ctypes.c_uint64(7), why)
            assert verdict == 0, f"{name} {kernel}: {verdict} {why.value.decode()}"


@st.composite
def pools(draw: st.DrawFn) -> dict[str, int]:
    case = {name: draw(small(12, 1)) for name in ("in_h", "in_w")}
    case |= {name: draw(small(5, 1)) for name in ("kernel_h", "kernel_w")}
    case |= {name: draw(small(3, 1)) for name in ("n", "stride_h", "stride_w")}
    case |= {name: draw(small(2, 1)) for name in ("dilation_h", "dilation_w")}
    case |= {f"pad_{side}": draw(small(2)) for side in ("top", "left", "bottom", "right")}
    case |= {name: draw(st.sampled_from([0, 0, 1, 64])) for name in ("in_padding", "out_padding")}
    case |= {name: draw(small(1)) for name in ("average", "count_include_pad")}
    return case | {"channels": draw(small(200, 1)), "row_cut": draw(small(6))}


@thorough
@given(case=pools(), seed=small(2**64 - 1))
def test_pool(case: dict[str, int], seed: int) -> None:
    for index, name in sets():
        why = ctypes.create_string_buffer(WHY_BYTES)
        shape = struct(POOL, case)
        agree(library().tepi_check_pool(index, shape, ctypes.c_uint64(seed), why), why, name)


@pytest.mark.parametrize("kind", BYTEWISE_KINDS)
@thorough
@given(count=small(400, 1), b_step=small(1), table=small(1), seed=small(2**64 - 1))
def test_bytewise(kind: str, count: int, b_step: int, table: int, seed: int) -> None:
    number = BYTEWISE_KINDS.index(kind)
    for index, name in sets():
        why = ctypes.create_string_buffer(WHY_BYTES)
        verdict = library().tepi_check_bytewise(
            index, number, count, b_step, table, ctypes.c_uint64(seed), why
        )
        agree(verdict, why, name)


PADDINGS = st.sampled_from([0, 0, 1, 3, 64])


@st.composite
def products(draw: st.DrawFn) -> dict[str, int]:
    case = {name: draw(small(150, 1)) for name in ("rows", "depth", "columns")}
    case |= {f"{side}_padding": draw(PADDINGS) for side in ("a", "b", "out")}
    case |= {f"{side}_zero_point": draw(st.one_of(st.just(128), small(255))) for side in "ab"}
    case["lo"] = draw(st.one_of(st.just(0), small(255)))
    case["hi"] = draw(st.one_of(st.just(255), small(255, case["lo"])))
    case |= {name: draw(small(1)) for name in ("b_transposed", "has_table", "extreme")}
    return case | {"row_cut": draw(small(60))}


@thorough
@given(case=products(), seed=small(2**64 - 1))
def test_matmul(case: dict[str, int], seed: int) -> None:
    shape = struct(MATMUL, case)
    for index, name in sets():
        why = ctypes.create_string_buffer(WHY_BYTES)
        agree(library().tepi_check_matmul(index, shape, ctypes.c_uint64(seed), why), why, name)


@st.composite
def channels(draw: st.DrawFn) -> dict[str, int]:
    case = {"rows": draw(small(20, 1)), "count": draw(small(500, 1))}
    case |= {f"{side}_padding": draw(PADDINGS) for side in ("a", "out")}
    return case | {name: draw(small(1)) for name in ("layernorm", "extreme", "flat")}


@thorough
@given(case=channels(), seed=small(2**64 - 1))
def test_along_channels(case: dict[str, int], seed: int) -> None:
    shape = struct(CHANNELS, case)
    for index, name in sets():
        why = ctypes.create_string_buffer(WHY_BYTES)
        agree(library().tepi_check_channels(index, shape, ctypes.c_uint64(seed), why), why, name)


@st.composite
def planes(draw: st.DrawFn) -> dict[str, int]:
    """Rows and columns contiguous or transposed on either side, with or without gaps."""
    rows, columns = draw(st.one_of(st.just(3), small(20, 1))), draw(small(300, 1))
    case = {"rows": rows, "columns": columns, "odd": draw(small(1))}
    case["flip"] = draw(st.sampled_from([0, 0x80]))
    for side in ("in", "out"):
        gap = draw(st.sampled_from([0, 0, 1, 7]))
        across = draw(st.booleans())
        case[f"{side}_row"] = 1 if across else columns + gap
        case[f"{side}_column"] = rows + gap if across else 1
    return case


@pytest.mark.parametrize("kind", PLANE_KINDS)
@thorough
@given(case=planes(), seed=small(2**64 - 1))
def test_plane(kind: str, case: dict[str, int], seed: int) -> None:
    shape = struct(PLANE, case | {"kind": PLANE_KINDS.index(kind)})
    for index, name in sets():
        why = ctypes.create_string_buffer(WHY_BYTES)
        agree(library().tepi_check_plane(index, shape, ctypes.c_uint64(seed), why), why, name)

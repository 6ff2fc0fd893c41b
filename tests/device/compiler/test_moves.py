# SPDX-License-Identifier: Apache-2.0
"""Operators that move data: exact, whether or not the scale changes on the way."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.binding.abi import CODES
from device.compiler import CardSegment

from .building import Builder, unary
from .interpreter import Program
from .running import compile_model, difference, off_card

KINDS = pytest.mark.parametrize("kind", ["u8", "s8"])
SAME = pytest.mark.parametrize("same", [False, True], ids=["requantized", "same"])


def check(b: Builder) -> None:
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    assert difference(model, b.feeds, compiled) == (0, 0)


CASES: list[tuple[str, tuple[int, ...], dict[str, Any], dict[str, Any]]] = [
    ("Flatten", (2, 3, 4, 5), {}, {}),
    ("Flatten", (2, 3, 4, 5), {}, {"axis": 3}),
    ("Flatten", (2, 3), {}, {"axis": 0}),
    ("Reshape", (2, 3, 4, 5), {"shape": np.array([6, -1])}, {}),
    ("Reshape", (2, 3, 4, 5), {"shape": np.array([0, 5, 0, 3])}, {}),
    ("Reshape", (6, 4), {"shape": np.array([4, 6])}, {}),
    ("Reshape", (1,), {"shape": np.array([], np.int64)}, {}),
    ("Transpose", (2, 3, 4, 5), {}, {"perm": [0, 2, 3, 1]}),
    ("Transpose", (2, 3, 4, 5), {}, {"perm": [3, 1, 0, 2]}),
    ("Transpose", (2, 3, 4), {}, {}),
    ("Transpose", (2, 3, 2, 2, 2, 3), {}, {"perm": [5, 3, 1, 4, 2, 0]}),
    ("Squeeze", (2, 1, 4, 1), {"axes": np.array([1, 3])}, {}),
    ("Squeeze", (2, 1, 4, 1), {}, {}),
    ("Unsqueeze", (2, 4), {"axes": np.array([0, 3])}, {}),
    ("Pad", (2, 3, 4), {"pads": np.array([0, 1, 2, 3, 0, 1])}, {}),
    (
        "Pad",
        (1, 3, 4, 5),
        {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 4]), "v": np.float32(0.31)},
        {},
    ),
    ("MaxPool", (1, 3, 6, 6), {}, {"kernel_shape": [2, 2]}),
]


@KINDS
@SAME
@pytest.mark.parametrize(("op", "shape", "constants", "attributes"), CASES, ids=str)
def test_one(
    kind: str,
    same: bool,
    op: str,
    shape: tuple[int, ...],
    constants: dict[str, Any],
    attributes: dict[str, Any],
) -> None:
    check(unary(op, shape, kind, constants, same=same, **attributes))


@pytest.mark.parametrize("opset", [10, 11, 12])
def test_axes_and_pads_as_attributes(opset: int) -> None:
    check(unary("Squeeze", (2, 1, 4, 1), opset=opset, axes=[1]))
    check(unary("Unsqueeze", (2, 4), opset=opset, axes=[0]))
    if opset == 10:
        check(unary("Pad", (2, 3, 4), opset=opset, pads=[0, 1, 2, 3, 0, 1], value=0.2))


def test_pad_along_axes() -> None:
    constants = {"pads": np.array([1, 2]), "v": np.float32(0.2), "axes": np.array([-1])}
    check(unary("Pad", (2, 3, 4), constants=constants, opset=18))


@KINDS
@SAME
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_concat(kind: str, same: bool, axis: int) -> None:
    b = Builder(kind)
    fixed = (0.02, 5) if same else ()
    shapes = [[2, 3, 4, 5], [2, 3, 4, 5], [2, 3, 4, 5]]
    shapes[1][axis] += 2
    reals = [b.dequantized(f"x{i}", shape, *fixed) for i, shape in enumerate(shapes)]
    b.quantized(b.node("Concat", reals, "value", axis=axis), "y", *fixed)
    check(b)


@KINDS
def test_concat_of_branches(kind: str) -> None:
    """Inception style: convolutions and a pool side by side, read by a padded convolution."""
    b = Builder(kind)
    x = b.dequantized("x", (1, 6, 8, 8))
    branches = []
    for index, taps in enumerate((1, 3)):
        w = b.weights(f"w{index}", (10, 6, taps, taps), True)
        value = b.node("Conv", [x, w], f"conv{index}", pads=[taps // 2] * 4)
        b.quantized(value, f"branch{index}", 0.3, output=False)
        branches.append(b.again(f"branch{index}"))
    branches.append(b.node("MaxPool", [x], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    b.quantized(b.node("Concat", branches, "joined", axis=1), "joined_q", 0.35, output=False)
    w = b.weights("w", (4, 26, 3, 3), True)
    b.quantized(b.node("Conv", [b.again("joined_q"), w], "last", pads=[1, 1, 1, 1]), "y", 1.5)
    check(b)


def test_concat_in_place() -> None:
    """Branches that need no copy: no MAP but those at the edges."""
    b = Builder()
    x = b.dequantized("x", (1, 6, 8, 8))
    reals = []
    for index in range(3):
        value = b.node("Conv", [x, b.weights(f"w{index}", (20, 6, 1, 1), True)], f"conv{index}")
        b.quantized(value, f"branch{index}", 0.3, 5, output=False)
        reals.append(b.again(f"branch{index}"))
    b.quantized(b.node("Concat", reals, "joined", axis=1), "y", 0.3, 5)
    check(b)
    (segment,) = compile_model(b.model()).segments
    assert isinstance(segment, CardSegment)
    program = Program(segment.program)
    codes = [program.code[index].code for index in range(program.header.instructions)]
    assert codes.count(CODES["map"]) == 2 and codes.count(CODES["conv"]) == 3


def test_concat_with_constant() -> None:
    b = Builder()
    real = b.const("fixed", b.rng.normal(0, 1, (2, 3)).astype(np.float32))
    b.quantized(b.node("Concat", [b.dequantized("x", (2, 4)), real], "v", axis=1), "y", 0.03)
    check(b)


@KINDS
def test_moves_between_convolution_and_gemm(kind: str) -> None:
    """Pad, Conv, Transpose, Reshape, Gemm; the moves stand right at the float operators."""
    b = Builder(kind)
    x = b.dequantized("x", (1, 5, 6, 6))
    padded = b.node("Pad", [x, b.const("pads", np.array([0, 0, 1, 0, 0, 0, 0, 1]))], "padded")
    value = b.node("Conv", [padded, b.weights("w", (18, 5, 3, 3), True)], "conv")
    value = b.node("Transpose", [value], "turned", perm=[0, 2, 3, 1])
    value = b.node("Reshape", [value, b.const("shape", np.array([5, -1]))], "rows")
    b.quantized(value, "rows_q", 0.3, output=False)
    real = b.again("rows_q")
    flat = b.node("Unsqueeze", [real, b.const("axes", np.array([0]))], "lifted")
    flat = b.node("Squeeze", [flat, "axes"], "lowered")
    value = b.node("Gemm", [flat, b.weights("v", (90, 7), False, 1)], "gemm")
    b.quantized(value, "y", 3.0)
    check(b)


@KINDS
@SAME
@pytest.mark.parametrize(
    "mode", ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"]
)
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("scales", [(2, 1.7), (0.6, 3)], ids=str)
def test_resize(
    kind: str, same: bool, mode: str, rounding: str, scales: tuple[float, float]
) -> None:
    constants = {"roi": np.array([], "f4"), "scales": np.array([1, 1, *scales], "f4")}
    check(
        unary(
            "Resize",
            (1, 3, 4, 5),
            kind,
            constants,
            same=same,
            mode="nearest",
            coordinate_transformation_mode=mode,
            nearest_mode=rounding,
        )
    )


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    out=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    mode=st.sampled_from(["asymmetric", "half_pixel", "align_corners"]),
)
@settings(max_examples=40, deadline=None)
def test_resize_to_sizes(size: tuple[int, int], out: tuple[int, int], mode: str) -> None:
    constants = {
        "roi": np.array([], "f4"),
        "scales": np.array([], "f4"),
        "sizes": np.array([1, 3, *out]),
    }
    b = unary(
        "Resize",
        (1, 3, *size),
        constants=constants,
        mode="nearest",
        coordinate_transformation_mode=mode,
    )
    check(b)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("sizes", [(9, 8), (3, 8), (2, 2), (7, 3)], ids=str)
def test_resize_that_keeps_the_aspect_ratio(policy: str, sizes: tuple[int, int]) -> None:
    constants = {"roi": None, "scales": None, "sizes": np.array(sizes)}
    more: dict[str, Any] = {"axes": [2, 3], "keep_aspect_ratio_policy": policy}
    check(unary("Resize", (1, 3, 4, 5), constants=constants, opset=19, **more))


@KINDS
def test_pad_with_a_quantized_value(kind: str) -> None:
    """As onnxruntime.quantization writes it; the value is known when the model is compiled."""
    b = Builder(kind)
    x = b.dequantized("x", (2, 3, 4), 0.02, 3)
    value = (b.const("v", b.bytes(())), *b.parameters("v", 0.02, 3))
    inputs = [x, b.const("pads", np.array([0, 1, 2, 3, 0, 1]))]
    inputs.append(b.node("DequantizeLinear", value, "v_real"))
    b.quantized(b.node("Pad", inputs, "padded"), "p", 0.02, 3, output=False)
    b.quantized(b.node("Sigmoid", [b.again("p")], "sigmoid"), "y", 0.004)
    check(b)


def test_resize_before_opset_11() -> None:
    check(unary("Resize", (1, 3, 4, 5), constants={"s": np.array([1, 1, 2, 3], "f4")}, opset=10))


@pytest.mark.parametrize(
    ("op", "attributes", "constants", "reason"),
    [
        ("Pad", {"mode": "reflect"}, {"p": np.array([0, 0, 1, 0, 0, 1])}, "Pad in mode reflect"),
        ("Pad", {}, {"p": np.array([0, 0, -1, 0, 0, 1])}, "negative padding"),
        ("Resize", {"mode": "linear"}, {"r": None, "s": np.array([1, 1, 2], "f4")}, "mode linear"),
    ],
)
def test_refused(
    op: str, attributes: dict[str, Any], constants: dict[str, Any], reason: str
) -> None:
    b = unary(op, (2, 3, 4), constants=constants, **attributes)
    compiled = compile_model(b.model())
    row = next(row for row in compiled.placement if row.op == op)
    assert row.where == "onnxruntime" and reason in row.reason
    assert difference(b.model(), b.feeds, compiled) == (0, 0)


def test_maxpool_that_gives_indices_too() -> None:
    b = Builder()
    b.node("MaxPool", [b.dequantized("x", (1, 3, 6, 6))], "value", kernel_shape=[2, 2])
    b.nodes[-1].output.append("indices")
    b.quantized("value", "y")
    b.output("indices", onnx.TensorProto.INT64)
    compiled = compile_model(b.model())
    (reason,) = (row.reason for row in compiled.placement if row.op == "MaxPool")
    assert "indices" in reason

# SPDX-License-Identifier: Apache-2.0
"""Float islands between quantized tensors on the card's vector unit, against onnxruntime."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from .building import Builder
from .float_islands import check, product, rows
from .running import codes, compile_model, off_card, reference, run

KINDS = pytest.mark.parametrize("kind", ["u8", "s8"])
FLOAT = int(TensorProto.FLOAT)
BOOL = int(TensorProto.BOOL)
INT64 = int(TensorProto.INT64)


UNARY: list[tuple[str, dict[str, Any]]] = [
    *((op, {}) for op in ("Abs", "Ceil", "Erf", "Exp", "Floor", "HardSwish", "Neg", "Relu")),
    *((op, {}) for op in ("Round", "Sigmoid", "Softplus", "Tanh")),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("LeakyRelu", {"alpha": 0.2}),
    ("Softmax", {"axis": -1}),
    ("LogSoftmax", {"axis": -1}),
]


@KINDS
@pytest.mark.parametrize(("op", "more"), UNARY, ids=str)
def test_function_of_a_float_tensor(op: str, more: dict[str, Any], kind: str) -> None:
    b, value = rows(kind)
    small = b.node("Mul", (value, b.const("small", np.float32(0.3))), "smaller")
    b.quantized(b.node(op, (small,), "value", **more), "y", 0.02)
    check(b)
    assert codes(b.model()).count("vector") == 1


@pytest.mark.parametrize("op", ["Sqrt", "Log", "Reciprocal"])
def test_function_of_positive_numbers(op: str) -> None:
    b, value = rows()
    positive = b.node(
        "Add", (b.node("Abs", (value,), "size"), b.const("half", np.float32(0.5))), "p"
    )
    b.quantized(b.node(op, (positive,), "value"), "y", 0.02)
    check(b)


@pytest.mark.parametrize("power", [-1.0, 0.5, 1.0, 2.0, 3.0])
def test_constant_power(power: float) -> None:
    b, value = rows()
    positive = b.node(
        "Add", (b.node("Abs", (value,), "size"), b.const("half", np.float32(0.5))), "p"
    )
    b.quantized(b.node("Pow", (positive, b.const("e", np.float32(power))), "value"), "y", 0.05)
    check(b)


OPERANDS: list[tuple[int, ...]] = [(), (1,), (40,), (9, 1), (1, 1, 40), (2, 1, 1), (2, 9, 40)]


@pytest.mark.parametrize("shape", OPERANDS, ids=str)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
def test_float_constant_of_any_broadcast(op: str, shape: tuple[int, ...]) -> None:
    b, value = rows()
    constant = b.rng.uniform(0.5, 2, shape).astype(np.float32)
    b.quantized(b.node(op, (value, b.const("c", constant)), "value"), "y", 0.03)
    check(b)


@pytest.mark.parametrize("shape", [(2, 9, 24), (1, 9, 24), (9, 24), (1, 24)], ids=str)
def test_sum_of_two_products(shape: tuple[int, ...]) -> None:
    b, value = rows()
    other = product(b, b.dequantized("z", shape), "v", (24, 40))
    b.quantized(b.node("Add", (value, other), "value"), "y", 0.05)
    check(b)


def test_quantized_tensor_joins_a_float_one() -> None:
    b, value = rows()
    b.quantized(b.node("Mul", (value, b.dequantized("z", (2, 9, 40))), "value"), "y", 0.05)
    check(b)


REDUCED: list[tuple[int, ...]] = [(-1,), (1,), (0,), (1, 2), (0, 2), (0, 1, 2)]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", REDUCED, ids=str)
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceL2"])
def test_reduction_along_any_axes(op: str, axes: tuple[int, ...], keepdims: int) -> None:
    b, value = rows()
    b.quantized(b.node(op, (value,), "value", axes=list(axes), keepdims=keepdims), "y", 0.05)
    check(b)


def test_sum_with_axes_as_an_input() -> None:
    b, value = rows()
    axes = b.const("axes", np.array([1], np.int64))
    b.quantized(b.node("ReduceSum", (value, axes), "value", keepdims=1), "y", 0.2)
    check(b)


def layer_norm(b: Builder, x: str) -> str:
    """LayerNormalization as exporters before opset 17 write it."""
    mean = b.node("ReduceMean", (x,), "mean", axes=[-1])
    apart = b.node("Sub", (x, mean), "apart")
    squares = b.node("Pow", (apart, b.const("two", np.float32(2))), "squares")
    variance = b.node("ReduceMean", (squares,), "variance", axes=[-1])
    above = b.node("Add", (variance, b.const("epsilon", np.float32(1e-5))), "above")
    normal = b.node("Div", (apart, b.node("Sqrt", (above,), "deviation")), "normal")
    gamma = b.const("gamma", b.rng.uniform(0.5, 2, 40).astype(np.float32))
    beta = b.const("beta", b.rng.uniform(-1, 1, 40).astype(np.float32))
    return b.node("Add", (b.node("Mul", (normal, gamma), "scaled"), beta), "shifted")


def test_layer_normalization_in_primitives_is_one_instruction() -> None:
    b, value = rows()
    b.quantized(layer_norm(b, value), "y", 0.03)
    check(b)
    found = codes(b.model())
    assert found.count("vector") == 1 and len(found) <= 5, found


def test_layer_normalization_between_floats() -> None:
    b, value = rows()
    gamma = b.const("gamma", b.rng.uniform(0.5, 2, 40).astype(np.float32))
    beta = b.const("beta", b.rng.uniform(-1, 1, 40).astype(np.float32))
    b.quantized(b.node("LayerNormalization", (value, gamma, beta), "value"), "y", 0.03)
    check(b)


@pytest.mark.parametrize("tanh", [False, True])
def test_gelu(tanh: bool) -> None:
    b, value = rows()
    b.opset = 20
    more = {"approximate": "tanh"} if tanh else {}
    b.quantized(b.node("Gelu", (value,), "value", **more), "y", 0.03)
    check(b)


MOVES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("Transpose", {"perm": [1, 2, 0]}, []),
    ("Reshape", {}, [np.array([3, 6, 40], np.int64)]),
    ("Unsqueeze", {}, [np.array([1], np.int64)]),
    ("Slice", {}, [[1, -30], [9, 1 << 40], [1, 2], [2, 3]]),
    ("Slice", {}, [[-1], [-100], [1], [-2]]),
    ("Expand", {}, [np.array([3, 1, 1, 1], np.int64)]),
]


@pytest.mark.parametrize(("op", "more", "constants"), MOVES, ids=str)
def test_move_of_floats(op: str, more: dict[str, Any], constants: list[Any]) -> None:
    b, value = rows()
    names = [b.const(f"c{at}", np.asarray(c, np.int64)) for at, c in enumerate(constants)]
    exact = b.node("Exp", (b.node("Tanh", (value,), "bounded"),), "raised")
    moved = b.node(op, (exact, *names), "moved", **more)
    b.quantized(b.node("Sqrt", (moved,), "value"), "y", 0.02)
    check(b)


@KINDS
def test_slices_of_a_quantized_tensor(kind: str) -> None:
    b = Builder(kind)
    x = b.dequantized("x", (2, 9, 24), 0.02, 3)
    at = [b.const(name, np.array(v, np.int64)) for name, v in (("s", [4]), ("e", [20]), ("a", [2]))]
    cut = b.node("Slice", (x, *at), "cut")
    weights = b.weights("w", (16, 8), channels=True, axis=1)
    b.quantized(
        b.node("MatMul", (b.again(b.quantized(cut, "c", 0.02, 3, output=False)), weights), "v"), "y"
    )
    check(b, worst=0, share=0)


@KINDS
def test_split_of_a_quantized_tensor(kind: str) -> None:
    b = Builder(kind)
    x = b.dequantized("x", (2, 9, 24))
    sizes = b.const("sizes", np.array([8, 16], np.int64))
    b.nodes.append(onnx.helper.make_node("Split", [x, sizes], ["left", "right"], "cut", axis=-1))
    for name, size in (("left", 8), ("right", 16)):
        weights = b.weights(f"w{name}", (size, 12), channels=True, axis=1)
        b.quantized(b.node("MatMul", (name, weights), f"{name}_product"), f"{name}_y")
    check(b, worst=0, share=0)


def test_concat_of_floats() -> None:
    b, value = rows()
    other = b.node("Tanh", (product(b, b.dequantized("z", (2, 9, 24)), "v", (24, 16)),), "t")
    b.quantized(b.node("Concat", (value, other), "value", axis=-1), "y", 0.03)
    check(b)


def attention(b: Builder, batch: int, tokens: int, heads: int, depth: int, masked: bool) -> None:
    """Self-attention whose products of activations stay in float."""
    width = heads * depth
    x = b.dequantized("x", (batch, tokens, width))
    split = b.const("split", np.array([batch, tokens, heads, depth], np.int64))
    parts = {}
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        made = product(b, x, f"w{name}", (width, width))
        bias = b.const(f"b{name}", b.rng.uniform(-1, 1, width).astype(np.float32))
        made = b.node("Add", (made, bias), f"{name}_biased")
        made = b.node("Reshape", (made, split), f"{name}_heads")
        parts[name] = b.node("Transpose", (made,), f"{name}_turned", perm=order)
    scores = b.node("MatMul", (parts["q"], parts["k"]), "scores")
    scores = b.node("Div", (scores, b.const("root", np.float32(depth**0.5 * 20))), "scaled")
    if masked:
        scores = b.node("Add", (scores, mask(b, batch, tokens)), "masked")
    weights = b.node("Softmax", (scores,), "attention", axis=-1)
    mixed = b.node("MatMul", (weights, parts["v"]), "mixed")
    mixed = b.node("Transpose", (mixed,), "turned_back", perm=[0, 2, 1, 3])
    mixed = b.node("Reshape", (mixed, b.const("join", np.array([batch, tokens, width]))), "joined")
    b.quantized(mixed, "y", 0.05)


def mask(b: Builder, batch: int, tokens: int) -> str:
    """A mask of 0 and 1 in whole numbers, as transformers add it to their scores."""
    b.inputs.append(onnx.helper.make_tensor_value_info("mask", INT64, [batch, tokens]))
    lengths = b.rng.integers(1, tokens + 1, batch)
    b.feeds["mask"] = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    wide = b.node("Unsqueeze", ("mask", b.const("axes", np.array([1, 2], np.int64))), "mask_wide")
    real = b.node("Cast", (wide,), "mask_real", to=FLOAT)
    gone = b.node("Sub", (b.const("one", np.float32(1)), real), "mask_gone")
    return b.node("Mul", (gone, b.const("far", np.float32(-1e4))), "mask_added")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", [(1, 7, 3, 5), (2, 16, 2, 8)], ids=str)
def test_attention_in_float(sizes: tuple[int, int, int, int], masked: bool) -> None:
    b = Builder()
    attention(b, *sizes, masked)
    check(b)
    found = codes(b.model())
    assert found.count("fmatmul") == 2
    # The input and the result cross the segment's edge, the result's heads change places when they
    # are bytes, the mask becomes float32. Queries, keys and values are read where they lie.
    assert found.count("map") == 3 + masked, found


@pytest.mark.parametrize("batch", [1, 3])
def test_embedding_of_indices(batch: int) -> None:
    """Indices from the request choose rows of a float table and of a quantized one."""
    b = Builder()
    b.inputs.append(onnx.helper.make_tensor_value_info("ids", INT64, [batch, 6]))
    b.feeds["ids"] = b.rng.integers(-50, 50, (batch, 6)).astype(np.int64)
    plain = b.const("table", b.rng.normal(0, 1, (50, 24)).astype(np.float32))
    stored = b.weights("bytes", (50, 24), channels=False)
    both = [b.node("Gather", (name, "ids"), f"{name}_rows") for name in (plain, stored)]
    hidden = b.quantized(b.node("Add", both, "sum"), "h", 0.03, output=False)
    b.quantized(product(b, b.again(hidden), "w", (24, 40)), "y")
    check(b, share=0.03)
    assert codes(b.model()).count("gather") == 2


def test_index_outside_the_table() -> None:
    from device.binding import Card
    from device.errors import CardError
    from device.session import Session

    b = Builder()
    b.inputs.append(onnx.helper.make_tensor_value_info("ids", INT64, [1, 4]))
    table = b.const("table", b.rng.normal(0, 1, (50, 24)).astype(np.float32))
    hidden = b.quantized(b.node("Gather", (table, "ids"), "rows"), "h", 0.03, output=False)
    b.quantized(product(b, b.again(hidden), "w", (24, 40)), "y")
    with Card.open() as card, Session(b.model().SerializeToString(), card) as session:
        for index in (50, -51, 1 << 40):
            with pytest.raises(CardError, match="index"):
                session.run(None, {"ids": np.array([[0, 1, 2, index]], np.int64)})
        (found,) = session.run(None, {"ids": np.array([[0, 49, -50, -1]], np.int64)})
        assert found.shape == (1, 4, 40)


COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]


@pytest.mark.parametrize("op", COMPARISONS)
def test_choice_by_a_comparison(op: str) -> None:
    b, value = rows()
    whole = b.node("Round", (value,), "whole")
    truth = b.node(op, (whole, b.const("one", np.float32(1))), "truth")
    chosen = b.node("Where", (truth, value, b.const("other", np.float32(-0.5))), "value")
    b.quantized(chosen, "y", 0.03)
    check(b)


def test_truth_values_of_a_request() -> None:
    b, value = rows()
    b.inputs.append(onnx.helper.make_tensor_value_info("given", BOOL, [2, 9, 1]))
    b.feeds["given"] = b.rng.integers(0, 2, (2, 9, 1)).astype(bool)
    truth = b.node("Less", (value, b.const("zero", np.float32(0))), "truth")
    both = b.node("And", (truth, "given"), "both")
    either = b.node("Or", (both, b.node("Not", ("given",), "turned")), "either")
    real = b.node("Cast", (either,), "real", to=FLOAT)
    b.quantized(b.node("Mul", (real, value), "value"), "y", 0.03)
    check(b)


def test_float_results_of_the_model() -> None:
    """A float tensor that is both a result and read further."""
    b, value = rows()
    b.node("Tanh", (value,), "tanh")
    b.output("tanh", FLOAT)
    b.quantized(b.node("Mul", ("tanh", value), "value"), "y", 0.03)
    model = b.model()
    assert off_card(compile_model(model)) == []
    expected, found = reference(model, b.feeds), run(compile_model(model), b.feeds)
    np.testing.assert_allclose(found["tanh"], expected["tanh"], 1e-5, 1e-6)


def test_result_that_is_quantized_and_read_in_float() -> None:
    b, value = rows()
    b.quantized(value, "y", 0.05)
    b.quantized(b.node("Tanh", (value,), "t"), "z", 0.01)
    check(b)


def test_convolution_with_a_float_result() -> None:
    b = Builder()
    x = b.dequantized("x", (2, 8, 9, 7))
    weights = b.weights("w", (12, 8, 3, 3), channels=True)
    bias = b.const("b", b.rng.uniform(-1, 1, 12).astype(np.float32))
    value = b.node("Conv", (x, weights, bias), "value", pads=[1, 1, 1, 1])
    silu = b.node("Mul", (value, b.node("Sigmoid", (value,), "s")), "silu")
    b.quantized(silu, "y", 0.05)
    check(b)


def test_rows_and_single_values_of_unlike_rank() -> None:
    """One group, though the shapes begin with 1 on one side only."""
    b, value = rows(shape=(1, 9, 24))
    flat = b.node("Reshape", (value, b.const("flat", np.array([9, 40]))), "flat_value")
    mean = b.node("ReduceMean", (flat,), "mean", axes=[-1])
    again = b.node("Reshape", (mean, b.const("again", np.array([1, 9, 1]))), "mean_again")
    b.quantized(b.node("Mul", (value, b.node("Tanh", (again,), "t")), "value"), "y", 0.05)
    check(b)

# SPDX-License-Identifier: Apache-2.0
"""Everything that onnxruntime takes as a feed, with and without a card, gives what it gives."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from device.binding import Card
from device.errors import InputError
from device.session import Session

from .conformance.official import host

FLOAT = TensorProto.FLOAT
X = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def card() -> Iterator[Card]:
    with Card.open("inproc") as opened:
        yield opened


def sigmoid(
    shape: Sequence[int | str] | None = ("n", 3),
    outputs: Sequence[str] = ("y",),
    more_inputs: Sequence[str] = (),
    ir: int = 8,
) -> onnx.ModelProto:
    """x -> Q -> q -> DQ, Sigmoid, Q -> r -> DQ -> y, in float32 at both ends."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Sigmoid", ["d"], ["g"]),
        helper.make_node("QuantizeLinear", ["g", "t", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "z"], ["y"]),
    ]
    constants = [
        helper.make_tensor("s", FLOAT, [], [0.05]),
        helper.make_tensor("t", FLOAT, [], [0.01]),
        helper.make_tensor("z", TensorProto.UINT8, [], [100]),
    ]
    kinds = {"q": TensorProto.UINT8, "r": TensorProto.UINT8}
    inputs = [helper.make_tensor_value_info("x", FLOAT, shape)]
    inputs += [helper.make_tensor_value_info(name, FLOAT, []) for name in more_inputs]
    ports = [
        helper.make_tensor_value_info(name, kinds.get(name, FLOAT), None if name != "t" else [])
        for name in outputs
    ]
    graph = helper.make_graph(nodes, "sigmoid", inputs, ports, constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def check(model: onnx.ModelProto, feeds: Any, card: Card, names: list[str] | None = None) -> None:
    """The same types, shapes and values from onnxruntime, without a card and with one."""
    expected = host(model).run(names, feeds)
    places: tuple[Literal["none"] | Card, ...] = ("none", card)
    for where in places:
        with Session(model.SerializeToString(), where) as session:
            found = session.run(names, feeds)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [("n", 3), (2, 3), (None, None), None], ids=str)
def test_declared_shapes(shape: Any, card: Card) -> None:
    check(sigmoid(shape), {"x": X}, card)


def test_a_scalar(card: Card) -> None:
    with Session(sigmoid(()).SerializeToString(), card) as session:
        (got,) = session.run(None, {"x": np.array(0.7, np.float32)})
    (expected,) = host(sigmoid((1,))).run(None, {"x": np.array([0.7], np.float32)})
    assert got.shape == () and got == expected[0]


@pytest.mark.parametrize("shape", [("n", 3), (0, 3), ("n", "m")], ids=str)
def test_nothing_at_all(shape: Any, card: Card) -> None:
    check(sigmoid(shape), {"x": X[:0]}, card)


def test_values_that_are_no_arrays(card: Card) -> None:
    check(sigmoid(), {"x": X.tolist()}, card)


def test_values_that_cannot_be_arrays(card: Card) -> None:
    with (
        Session(sigmoid().SerializeToString(), card, name="sigmoid") as session,
        pytest.raises(InputError, match="input 'x' of sigmoid must be float32"),
    ):
        session.run(None, {"x": [[1.0, 2.0], [3.0]]})  # type: ignore[dict-item]


def test_arrays_in_any_order(card: Card) -> None:
    check(sigmoid(), {"x": np.asfortranarray(X)}, card)
    check(sigmoid(), {"x": np.repeat(X, 2, axis=0)[::2]}, card)


@pytest.mark.parametrize("outputs", [("y", "r", "y"), ("y", "x"), ("y", "t"), ("q",)], ids=str)
def test_outputs(outputs: Sequence[str], card: Card) -> None:
    check(sigmoid(outputs=outputs), {"x": X}, card)


def test_an_output_asked_for_twice(card: Card) -> None:
    check(sigmoid(outputs=("y", "r")), {"x": X}, card, ["r", "y", "r"])


@pytest.mark.parametrize("shape", [("n", 3), (2, 3), ("n", "m")], ids=str)
def test_an_initializer_that_is_an_input(shape: Any, card: Card) -> None:
    model = sigmoid(shape, more_inputs=("t",))
    check(model, {"x": X}, card)
    check(model, {"x": X, "t": np.array(0.02, np.float32)}, card)


def test_an_initializer_gets_its_value_back(card: Card) -> None:
    model = sigmoid(more_inputs=("t",))
    plain, changed = {"x": X}, {"x": X, "t": np.array(0.02, np.float32)}
    with Session(model.SerializeToString(), card) as session:
        for feeds in (plain, changed, plain):
            (got,) = session.run(None, feeds)
            np.testing.assert_array_equal(got, host(model).run(None, feeds)[0])


def test_an_initializer_with_the_wrong_type(card: Card) -> None:
    with (
        Session(sigmoid(more_inputs=("t",)).SerializeToString(), card) as session,
        pytest.raises(InputError, match="'t' of model must be float32, got float64"),
    ):
        session.run(None, {"x": X, "t": np.array(0.02)})


def test_before_ir_4_initializers_stay(card: Card) -> None:
    model = sigmoid(more_inputs=("t", "s"), ir=3)
    z = helper.make_tensor_value_info("z", TensorProto.UINT8, [])
    model.graph.input.append(z)
    check(model, {"x": X}, card)
    with (
        Session(model.SerializeToString(), card) as session,
        pytest.raises(InputError, match="has no input 't'"),
    ):
        session.run(None, {"x": X, "t": np.array(0.02, np.float32)})


def test_strings(card: Card) -> None:
    node = helper.make_node("Concat", ["a", "b"], ["c"], axis=0)
    a, b, c = (helper.make_tensor_value_info(n, TensorProto.STRING, [f"{n}n"]) for n in "abc")
    graph = helper.make_graph([node], "strings", [a, b], [c])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    check(model, {"a": np.array(["ä", ""]), "b": np.array(["c"], object)}, card)

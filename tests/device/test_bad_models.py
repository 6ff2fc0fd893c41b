# SPDX-License-Identifier: Apache-2.0
"""Models and feeds that something is wrong with: each gets an error that says what, or a result
that is onnxruntime's. Calibration data: test_cli.py. Broken files: compiler/test_reader.py."""

from typing import Any, get_args

import numpy as np
import pytest
from onnx import TensorProto, helper

from device.binding import Card
from device.binding.card import IsaName
from device.errors import CardError, CardFull, InputError, ModelError
from device.session import Session

from .compiler.building import Builder
from .compiler.running import card_of, reference

EVERYWHERE = pytest.mark.parametrize("card", ["inproc", "none"])
LENGTH = 16  # of the table of positions


def dense(inputs: int, outputs: int) -> bytes:
    b = Builder()
    x = b.dequantized("x", (1, inputs))
    w = b.weights("w", (inputs, outputs), channels=False)
    b.quantized(b.node("MatMul", (x, w), "dense"), "y", 0.5)
    return b.model().SerializeToString()


def test_a_model_too_large_for_card_memory() -> None:
    """The message counts what it needs and what is free; a smaller model still loads."""
    with Card.open(memory=1 << 20) as card:
        with pytest.raises(CardFull) as refused:
            Session(dense(2048, 1024), card, name="wide")
        said = str(refused.value)
        assert "a program of 2." in said and "of the card's 1.00 MiB" in said
        assert "MiB more than the" in said and "that are free" in said
        assert refused.value.remedy
        assert isinstance(refused.value, CardError)
        with Session(dense(64, 32), card) as small:
            small.run(None, {"x": np.zeros((1, 64), np.uint8)})


def test_a_model_whose_activations_do_not_fit_card_memory() -> None:
    """Weights fit, the workers' scratch does not."""
    b = Builder()
    x = b.dequantized("x", (1, 8, 512, 512))
    b.quantized(b.node("MaxPool", (x,), "pool", kernel_shape=[2, 2]), "pq", 0.02, output=False)
    b.quantized(b.node("Relu", (b.again("pq"),), "relu"), "y", 0.02)
    with Card.open(memory=1 << 20) as card, pytest.raises(CardFull, match="that are free"):
        Session(b.model().SerializeToString(), card)


def positions(sliced: bool) -> bytes:
    """x [n, length, 8] plus a table for 16 positions, whole or as much of it as x is long."""
    b = Builder()
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length", 8]))
    b.quantized("x", "xq", 0.02, 120, output=False)
    table = b.const("table", b.rng.normal(0, 1, (1, LENGTH, 8)).astype(np.float32))
    if sliced:
        one = b.const("one", np.array([1]))
        shape = b.node("Shape", ("x",), "shape")
        length = b.node("Slice", (shape, one, b.const("two", np.array([2]))), "length")
        table = b.node("Slice", (table, b.const("zero", np.array([0])), length, one), "cut")
    b.quantized(table, "tq", 0.02, 120, output=False)
    b.quantized(b.node("Add", (b.again("xq"), b.again("tq")), "sum"), "yq", 0.05, output=False)
    b.output(b.again("yq"), TensorProto.FLOAT)
    return b.model().SerializeToString()


@EVERYWHERE
@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "sliced"])
def test_a_sequence_longer_than_the_model_allows(card: Any, sliced: bool) -> None:
    with Session(positions(sliced), card, name="positions") as session:
        session.run(None, {"x": np.zeros((1, LENGTH, 8), np.float32)})
        error = InputError if card == "inproc" else ModelError  # onnxruntime finds it as it runs
        with pytest.raises(error, match=r"positions: .*x \[1, 24, 8\]"):
            session.run(None, {"x": np.zeros((1, 24, 8), np.float32)})
        session.run(None, {"x": np.zeros((1, LENGTH, 8), np.float32)})


@EVERYWHERE
def test_a_sequence_longer_than_declared(card: Any) -> None:
    b = Builder()
    b.quantized(b.node("Relu", (b.dequantized("x", (1, LENGTH, 8)),), "relu"), "y", 0.02)
    with (
        Session(b.model().SerializeToString(), card) as session,
        pytest.raises(InputError, match=r"'x' .* shape \[1, 16, 8\], got \[1, 24, 8\]"),
    ):
        session.run(None, {"x": np.zeros((1, 24, 8), np.uint8)})


def relu(opset: int = 17, domain: str = "", imports: tuple[str, ...] = ()) -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], domain=domain)], "g", [x], [y]
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in imports)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@EVERYWHERE
@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        pytest.param(relu(opset=999), "old: .*opset", id="too new"),
        pytest.param(relu(opset=0), "old: .*(opset 0|domain_version of 0)", id="too old"),
        pytest.param(relu(opset=1), r"old: onnxruntime cannot run it.*Relu\(1\)", id="of long ago"),
        pytest.param(relu(domain="acme", imports=("acme",)), "old: .*acme", id="unknown domain"),
        pytest.param(relu(domain="acme"), "old: .*acme", id="domain not imported"),
    ],
)
def test_opsets_that_nobody_runs(card: Any, model: bytes, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        Session(model, card, name="old")


SPECIAL = np.array(
    [
        *(np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0),
        *(1e-45, -1e-45, 1.17e-38, -1.17e-38),  # denormal
        *(np.finfo(np.float32).max, np.finfo(np.float32).min, 1e10, -1e10, 2.5e9, -2.5e9),
    ],
    np.float32,
)


@pytest.mark.parametrize("kind", ["u8", "s8"])
@pytest.mark.parametrize("scale", [0.02, 1e-40, 1e30], ids=["scale", "tiny scale", "huge scale"])
@pytest.mark.parametrize("isa", [isa for isa in get_args(IsaName) if isa != "auto"])
def test_nan_and_infinities_are_quantized_as_by_onnxruntime(
    isa: str, scale: float, kind: str
) -> None:
    card = card_of(isa)
    if card is None:
        pytest.skip(f"this machine lacks {isa}")
    b = Builder(kind)
    count = 5 * SPECIAL.size + 3  # vectors, and what is left of one
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, count]))
    b.quantized("x", "xq", scale, output=False)
    b.quantized(b.node("Relu", (b.again("xq"),), "relu"), "y", scale)
    x = np.resize(SPECIAL, (1, count))
    x[0, ::3] = b.rng.normal(0, 1, x[0, ::3].shape)
    model = b.model()
    with card, Session(model.SerializeToString(), card) as session:
        assert {row.where for row in session.placement} == {"card"}
        (got,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(got, reference(model, {"x": x})["y"])

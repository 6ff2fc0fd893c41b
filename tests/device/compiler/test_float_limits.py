# SPDX-License-Identifier: Apache-2.0
"""Where the vector unit ends: what is cut into several instructions, what stays on onnxruntime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from .building import Builder
from .float_islands import check, rows
from .running import codes, compile_model, difference

FLOAT = int(TensorProto.FLOAT)


def test_other_powers_stay_on_onnxruntime() -> None:
    b, value = rows()
    b.quantized(b.node("Pow", (value, b.const("e", np.float32(2.5))), "value"), "y", 0.05)
    (row,) = (row for row in compile_model(b.model()).placement if row.op == "Pow")
    assert (row.where, row.reason) == ("onnxruntime", "the card has no power of 2.5")


def test_rows_too_long_to_reduce_stay_on_onnxruntime() -> None:
    """The card holds a row of 2^18 elements at most while it adds it up."""
    b, value = rows(shape=(2, 4096, 24))
    b.quantized(b.node("ReduceMean", (value,), "value", axes=[1, 2]), "y", 0.05)
    (long,) = (r for r in compile_model(b.model()).placement if r.op == "ReduceMean")
    assert long.where == "card"
    b, value = rows(shape=(2, 8192, 24))
    b.quantized(b.node("ReduceMean", (value,), "value", axes=[1, 2]), "y", 0.05)
    (long,) = (r for r in compile_model(b.model()).placement if r.op == "ReduceMean")
    assert long.where == "onnxruntime" and "rows of more than 262144" in long.reason
    apart, _ = difference(b.model(), b.feeds)
    assert apart <= 1


def test_more_operands_than_an_instruction_takes() -> None:
    b, value = rows()
    parts = [b.const(f"c{at}", b.rng.normal(0, 1, 40).astype(np.float32)) for at in range(12)]
    b.quantized(b.node("Max", (value, *parts), "value"), "y", 0.05)
    (row,) = (row for row in compile_model(b.model()).placement if row.op == "Max")
    assert (row.where, row.reason) == ("onnxruntime", "it has more than 12 operands")
    apart, _ = difference(b.model(), b.feeds)
    assert apart <= 1


@pytest.mark.parametrize(
    ("shape", "where"),
    [((2, 3, 1, 1, 1), "card"), ((4, 1, 40), "card"), ((2, 1, 4, 1, 40), "onnxruntime")],
    ids=str,
)
def test_operand_that_broadcasts_along_axes_apart(shape: tuple[int, ...], where: str) -> None:
    b, value = rows(shape=(2, 3, 4, 5, 24))
    other = b.const("c", b.rng.normal(0, 1, shape).astype(np.float32))
    b.quantized(b.node("Sub", (value, other), "value"), "y", 0.05)
    (row,) = (row for row in compile_model(b.model()).placement if row.op == "Sub")
    assert row.where == where
    assert where == "card" or row.reason == "its operands broadcast along too many axes"
    apart, _ = difference(b.model(), b.feeds)
    assert apart <= 1


def test_nothing_but_float_stays_on_onnxruntime() -> None:
    b = Builder()
    b.inputs.append(onnx.helper.make_tensor_value_info("x", FLOAT, [2, 9]))
    b.node("Mul", (b.node("Tanh", ("x",), "t"), "x"), "y")
    b.output("y", FLOAT)
    for row in compile_model(b.model()).placement:
        assert row.where == "onnxruntime" and "float models" in row.reason


def test_many_operators_take_several_instructions() -> None:
    """More than fit the registers, the sources and the steps of one."""
    b, value = rows()
    parts = []
    for at in range(40):
        row = b.const(f"c{at}", b.rng.uniform(0.5, 1, 40).astype(np.float32))
        parts.append(b.node("Mul", (value, row), f"part{at}"))
    total = parts[0]
    for at, part in enumerate(parts[1:]):
        total = b.node("Add", (total, part), f"total{at}")
    b.quantized(b.node("Mul", (total, b.const("less", np.float32(0.03))), "value"), "y", 0.05)
    check(b)
    assert codes(b.model()).count("vector") > 1

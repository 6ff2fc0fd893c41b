# SPDX-License-Identifier: Apache-2.0
"""Additions that a convolution does as it stores, against onnxruntime."""

import numpy as np
import pytest

from device.binding import Card
from device.session import Session

from .building import Builder
from .running import codes, compile_model, difference, off_card, reference

KINDS = pytest.mark.parametrize("kind", ["u8", "s8"])


def conv(b: Builder, x: str, name: str, channels: int, out: int, kernel: int = 3) -> str:
    """A convolution of same size with its result quantized."""
    weights = b.weights(f"{name}_w", (out, channels, kernel, kernel), channels=True)
    pads = [kernel // 2] * 4
    value = b.node("Conv", (x, weights), f"{name}_value", pads=pads)
    b.quantized(value, name, 0.2, output=False)
    return b.again(name)


def check(b: Builder, additions: int, worst: int = 0) -> None:
    """The card's bytes, with as many additions left beside the convolutions."""
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    apart, count = difference(model, b.feeds, compiled)
    assert apart <= worst, f"{count} values differ by up to {apart}"
    assert codes(model).count("add") == additions


@KINDS
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("size", [(1, 8, 9, 7), (2, 33, 5, 4), (1, 64, 30, 31)], ids=str)
def test_shortcut_around_a_convolution(
    size: tuple[int, int, int, int], first: bool, kind: str
) -> None:
    b = Builder(kind)
    x = b.dequantized("x", size)
    made = conv(b, x, "c", size[1], size[1])
    b.quantized(b.node("Add", (x, made) if first else (made, x), "sum"), "y", 0.2)
    check(b, additions=0)


@KINDS
def test_functions_before_and_after_the_addition(kind: str) -> None:
    b = Builder(kind)
    x = b.dequantized("x", (1, 16, 9, 7))
    value = b.node("Conv", (x, b.weights("w", (16, 16, 1, 1), channels=True)), "v")
    b.quantized(b.node("Sigmoid", (value,), "g"), "before", 0.004, output=False)
    total = b.node("Add", (b.again("before"), x), "sum")
    b.quantized(b.node("Tanh", (total,), "t"), "y", 0.008)
    check(b, additions=0, worst=1)


def test_of_two_convolutions_the_later_adds() -> None:
    b = Builder()
    x = b.dequantized("x", (1, 8, 9, 7))
    left, right = conv(b, x, "left", 8, 24), conv(b, x, "right", 8, 24, kernel=1)
    b.quantized(b.node("Relu", (b.node("Add", (left, right), "sum"),), "r"), "y", 0.2)
    check(b, additions=0)
    assert codes(b.model()).count("conv") == 2


def test_result_that_the_next_convolution_pads() -> None:
    b = Builder()
    x = b.dequantized("x", (2, 8, 9, 7))
    made = conv(b, x, "c", 8, 8)
    b.quantized(b.node("Add", (made, x), "sum"), "s", 0.2, output=False)
    conv(b, b.again("s"), "d", 8, 8)
    b.output("d")
    check(b, additions=0)


def test_product_of_a_matrix() -> None:
    b = Builder()
    x = b.dequantized("x", (2, 9, 48))
    made = b.node("MatMul", (x, b.weights("w", (48, 48), channels=True, axis=1)), "m")
    b.quantized(made, "p", 0.3, output=False)
    b.quantized(b.node("Add", (b.again("p"), x), "sum"), "y", 0.3)
    check(b, additions=0)


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, 1, 9, 7), (1, 8, 9, 1)], ids=str)
def test_operand_that_broadcasts_stays_an_addition(shape: tuple[int, ...]) -> None:
    b = Builder()
    made = conv(b, b.dequantized("x", (1, 8, 9, 7)), "c", 8, 8)
    b.quantized(b.node("Add", (made, b.dequantized("o", shape)), "sum"), "y", 0.2)
    check(b, additions=1)


def test_convolution_that_others_read_stays_alone() -> None:
    b = Builder()
    x = b.dequantized("x", (1, 8, 9, 7))
    made = conv(b, x, "c", 8, 8)
    b.quantized(b.node("Add", (made, x), "sum"), "y", 0.2)
    b.quantized(b.node("Add", (made, made), "twice"), "z", 0.2)
    check(b, additions=1)  # the other, of one tensor with itself, is a table


def test_convolution_that_is_an_output_stays_alone() -> None:
    b = Builder()
    x = b.dequantized("x", (1, 8, 9, 7))
    made = conv(b, x, "c", 8, 8)
    b.output("c")
    b.quantized(b.node("Add", (made, x), "sum"), "y", 0.2)
    check(b, additions=1)


def test_convolution_before_the_other_operand_stays_alone() -> None:
    """It would keep its own input waiting for the addition."""
    b = Builder()
    x = b.dequantized("x", (1, 8, 9, 7))
    made = conv(b, x, "c", 8, 8)
    pooled = b.node("MaxPool", (made,), "p", kernel_shape=[3, 3], pads=[1] * 4)
    again = conv(b, x, "d", 8, 8)
    b.quantized(b.node("Add", (again, pooled), "sum"), "y", 0.2)
    check(b, additions=0)


@pytest.mark.parametrize("size", [(1, 256, 14, 14), (1, 32, 56, 56), (1, 512, 7, 7)], ids=str)
def test_threads_change_no_bit(size: tuple[int, int, int, int]) -> None:
    """Strips, sides of channels and pixels of one row, cut for several threads."""
    b = Builder()
    x = b.dequantized("x", size)
    made = conv(b, conv(b, x, "c", size[1], 32, kernel=1), "d", 32, size[1], kernel=1)
    b.quantized(b.node("Add", (made, x), "sum"), "y", 0.2)
    model = b.model()
    (expected,) = reference(model, b.feeds).values()
    for threads in (1, 3):
        with (
            Card.open(threads=threads) as card,
            Session(model.SerializeToString(), card, threads) as session,
        ):
            for _ in range(4):
                np.testing.assert_array_equal(session.run(None, b.feeds)[0], expected)

# SPDX-License-Identifier: Apache-2.0
"""Models with float tensors between quantized ones, and the check that the card takes all."""

from .building import Builder
from .running import compile_model, difference, off_card, reference


def product(b: Builder, x: str, name: str, shape: tuple[int, int]) -> str:
    """A quantized tensor times constant quantized weights, its result float."""
    return b.node("MatMul", (x, b.weights(name, shape, channels=True, axis=1)), f"{name}_product")


def rows(kind: str = "u8", shape: tuple[int, ...] = (2, 9, 24)) -> tuple[Builder, str]:
    """A float tensor [.., 40] behind a product of quantized operands."""
    b = Builder(kind)
    return b, product(b, b.dequantized("x", shape), "w", (24, 40))


def check(b: Builder, worst: int = 1, share: float = 0.02) -> None:
    """All on the card, and hardly a value off by a step where the output is quantized."""
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    apart, count = difference(model, b.feeds, compiled)
    size = sum(value.size for value in reference(model, b.feeds).values())
    assert apart <= worst and count <= share * size, f"{count} of {size} differ by up to {apart}"

# SPDX-License-Identifier: Apache-2.0
"""The card's operators on the models and data of ONNX's own tests, quantized: at most one step
from onnxruntime, on the card or with a reason."""

import logging
from collections.abc import Iterator

import pytest

from device.binding import Card

from .official import cases
from .quantized import compare, variants


@pytest.fixture(scope="module")
def card() -> Iterator[Card]:
    logging.disable(logging.WARNING)  # onnxruntime.quantization recommends preprocessing
    with Card.open("inproc") as opened:
        yield opened
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("name", "kind"), variants())
def test_within_one_step_of_onnxruntime(name: str, kind: str, card: Card) -> None:
    found = compare(cases()[name], kind, card)
    if isinstance(found, str):
        pytest.skip(f"onnxruntime does not run it: {found}")
    assert found.steps <= 1
    assert all(row.reason for row in found.placement if row.where != "card")

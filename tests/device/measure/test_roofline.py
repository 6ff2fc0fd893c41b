# SPDX-License-Identifier: Apache-2.0
"""The measured limits, and the least time that they allow."""

import pytest

from device.binding import Card
from device.measure.roofline import Roofline, measure


def test_the_larger_of_arithmetic_and_memory() -> None:
    limits = Roofline(macs_per_ns=100, bytes_per_ns=10)
    assert limits.ns(1000, 10) == 10
    assert limits.ns(1000, 1000) == 100
    assert limits.ns(0, 0) == 0


@pytest.mark.parametrize("isa", ["scalar", "auto"])
def test_limits_are_of_the_card_in_question(isa: str) -> None:
    with Card.open(isa=isa) as card:
        limits = measure(card)
    assert 0.01 < limits.macs_per_ns < 100_000
    assert 0.01 < limits.bytes_per_ns < 100_000

# SPDX-License-Identifier: Apache-2.0
"""A card of its own for each test."""

from collections.abc import Iterator

import pytest

from device.binding import Card


@pytest.fixture
def card() -> Iterator[Card]:
    with Card.open("inproc", threads=2, memory=64 << 20) as card:
        yield card

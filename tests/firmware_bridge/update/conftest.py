# SPDX-License-Identifier: Apache-2.0
"""A card in memory and an empty history."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_bridge.history import History
from tests.firmware_bridge.update.emulated_card import EmulatedCard


@pytest.fixture(name="card")
def _card(tmp_path: Path) -> Iterator[EmulatedCard]:
    found = EmulatedCard(tmp_path / "card.flash")
    yield found
    found.flash.close()


@pytest.fixture(name="history")
def _history(tmp_path: Path) -> History:
    return History(tmp_path / "history")

# SPDX-License-Identifier: Apache-2.0
"""An origin where everybody may push."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from registry.origin.problems import LOGGER
from tests.registry.origin.running import Running, running


@pytest_asyncio.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "registry") as found:
        yield found


@pytest.fixture(autouse=True)
def _the_log_as_it_was() -> Iterator[None]:
    """A command that runs in this process sends the log to the standard error of its test."""
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:], LOGGER.propagate = before[0], before[2]
    LOGGER.setLevel(before[1])

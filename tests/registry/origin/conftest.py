# SPDX-License-Identifier: Apache-2.0
"""An origin where everybody may push."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.registry.origin.running import Running, running


@pytest_asyncio.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "registry") as found:
        yield found

# SPDX-License-Identifier: Apache-2.0
"""A served copy of the digits repository."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server_process import Served, serving

DIGITS = Path(__file__).resolve().parents[2] / "examples/digits"


@pytest.fixture(scope="session")
def digits_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example's repository that tests may not write to."""
    folder = tmp_path_factory.mktemp("repository") / "models"
    shutil.copytree(DIGITS / "model_repository", folder)
    return folder


@pytest.fixture(scope="module")
def served(digits_repository: Path) -> Iterator[Served]:
    """One server for a module's tests, card control on; must stop with exit code 0."""
    with serving(digits_repository, "--card-control") as server:
        yield server

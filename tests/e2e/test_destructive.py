# SPDX-License-Identifier: Apache-2.0
"""The short form of tests/e2e/destructive.py; `make destroy` is the long one."""

from pathlib import Path

from tests.e2e.destructive import destroy


def test_interrupted_at_random_points_a_node_serves_old_or_new(tmp_path: Path) -> None:
    assert destroy(tmp_path, 24, 20261126).total() >= 24

# SPDX-License-Identifier: Apache-2.0
"""Who runs the models that the sync brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge_server.sync.deployed import Deployment

Commit = Callable[[], None]


class Models(Protocol):
    """Loads what was deployed. Called from the thread of the sync, and blocks it."""

    def replace(self, deployment: Deployment, commit: Commit, *, check: bool = True) -> None:
        """Load it beside what is served, let it answer its golden vectors (`check`), `commit`, then
        serve it. Raises Unfit, or what `commit` raises; then all stays as it was."""

    def retire(self, name: str) -> None:
        """Stop serving a model."""

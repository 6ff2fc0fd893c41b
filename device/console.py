# SPDX-License-Identifier: Apache-2.0
"""Where commands print tables."""

from __future__ import annotations

from typing import Any

_WIDE = 200  # columns of a table that goes into a file or a pipe


def console() -> Any:
    """The terminal, or wide where there is none."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=_WIDE)

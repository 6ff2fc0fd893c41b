# SPDX-License-Identifier: Apache-2.0
"""Giving freed memory back to the operating system after an unload."""

from __future__ import annotations

import ctypes
import gc


def release_free_memory() -> None:
    """Collect what Python still holds, then have the C allocator return its free pages."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)

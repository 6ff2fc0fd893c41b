# SPDX-License-Identifier: Apache-2.0
"""The blobs that a node holds: content-addressed, crash-safe, bounded."""

from edge_server.store.disk import REAL_DISK, Disk
from edge_server.store.partial import Partial
from edge_server.store.room import Collected, StoreLimits
from edge_server.store.store import BLOCK, Repaired, Store
from edge_server.store.view import Damaged, Entry, StoreView, Unfinished

__all__ = [
    "BLOCK",
    "REAL_DISK",
    "Collected",
    "Damaged",
    "Disk",
    "Entry",
    "Partial",
    "Repaired",
    "Store",
    "StoreLimits",
    "StoreView",
    "Unfinished",
]

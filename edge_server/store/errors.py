# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the store. Messages name the thing; `remedy` says the way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge_server.store.sizes import size_text
from registry.errors import RegistryError


class StoreError(RegistryError):
    """The base of them all."""


class NoStore(StoreError):
    """The folder is no store, or one of another version."""


class StoreBusy(StoreError):
    """Another process owns the store."""


class PartialBusy(StoreError):
    """This process is filling that blob already."""


class BlobPresent(StoreError):
    """The blob is in place already; there is nothing to fill."""


class PartialClosed(StoreError):
    """The partial blob was closed or discarded while somebody used it."""


class DiskFull(StoreError):
    """The file system has no room left (ENOSPC), or the quota is used up (EDQUOT)."""


class ReadOnlyDisk(StoreError):
    """The file system is mounted read-only, or the kernel made it so after errors (EROFS)."""


class NotPermitted(StoreError):
    """This user may not do that in the store's folder."""


class DiskFailed(StoreError):
    """The disk did not do as it was told, for example EIO."""


class DamagedPins(StoreError):
    """A pin file does not read. Nothing is evicted while one is there: it may hold anything."""


class BadPinName(StoreError):
    """The name of a pin is empty or too long for a file name."""


class NoRoom(StoreError):
    """Even without everything that may go there would be too little room.

    `need`: bytes asked for; `room`: bytes that can be had at most; `pinned`: bytes held by each
    pin.
    """

    def __init__(self, need: int, room: int, limit: str, pinned: Mapping[str, int]) -> None:
        held = ", ".join(
            f"{name} {size_text(size)}"
            for name, size in sorted(pinned.items(), key=lambda item: (-item[1], item[0]))
        )
        super().__init__(
            f"{size_text(need)} do not fit: {size_text(room)} can be had under {limit}; "
            f"pins hold {held or 'nothing'}",
            "unpin what is not needed (tepi store unpin), raise the limit, or use a larger disk",
        )
        self.need = need
        self.room = room
        self.pinned = dict(pinned)


_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of what is done inside into a StoreError that names `path`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> StoreError:
    """The StoreError that stands for this OSError."""
    where = error.filename if isinstance(error.filename, str) else path
    if error.errno in _FULL:
        return DiskFull(
            f"the disk of {path} is full; what was received so far is kept",
            "free space on it, or remove what nothing needs with: tepi store gc --unpinned",
        )
    if error.errno == errno.EROFS:
        return ReadOnlyDisk(
            f"the disk of {path} is read-only; what it holds can still be served",
            "look for disk errors in dmesg, then mount it read-write again",
        )
    if error.errno in _DENIED:
        return NotPermitted(
            f"{where}: {error.strerror}",
            "run as the user who owns the store, or give that user the folder with chown",
        )
    return DiskFailed(
        f"{where}: {error.strerror or error}",
        "look for disk errors in dmesg; tepi store verify says what is damaged",
    )

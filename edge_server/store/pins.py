# SPDX-License-Identifier: Apache-2.0
"""Pins: named sets of blobs that are never evicted, one file for each name.

Any process may write them, the store's owner beside it too: each takes the pins' lock, and the
owner holds it from reading the pins until what it evicts is gone. A file that does not read counts
as a pin of everything: nothing is evicted until somebody writes or removes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote

from edge_server.store.disk import Disk, read_file, replace_file
from edge_server.store.errors import BadPinName, DamagedPins, disk_errors
from edge_server.store.layout import Places
from registry.digest import check_digest, digest_of
from registry.errors import BadDigest

_SUFFIX = ".json"
_NAME_LIMIT = 200  # of the 255 bytes of a file name
_FILE_LIMIT = 64 << 20


class Pins:
    """The pins of one store."""

    def __init__(self, places: Places, disk: Disk) -> None:
        self._places = places
        self._disk = disk

    def read(self) -> dict[str, frozenset[str]]:
        """What each name pins. Raises DamagedPins, DiskFailed and its like."""
        found, damaged = self.scan()
        if damaged:
            names = ", ".join(damaged)
            raise DamagedPins(
                f"the pins {names} of {self._places.root} do not read; nothing is evicted",
                "write each again with: tepi store pin NAME DIGEST..., "
                "or let go of it with: tepi store unpin NAME",
            )
        return found

    def scan(self) -> tuple[dict[str, frozenset[str]], list[str]]:
        """What each name pins, and the names whose files do not read."""
        found: dict[str, frozenset[str]] = {}
        damaged = []
        with disk_errors(self._places.pins):
            for entry in self._disk.names(self._places.pins):
                if not entry.endswith(_SUFFIX):
                    continue
                data = read_file(self._disk, self._places.pins / entry, _FILE_LIMIT)
                if data is None:
                    continue  # unpinned meanwhile
                name = unquote(entry.removesuffix(_SUFFIX))
                digests = _decode(data)
                if digests is None:
                    damaged.append(name)
                else:
                    found[name] = digests
        return found, damaged

    def settle(self) -> None:
        """Before somebody acts on the pins: what is read now is read after a power cut too, also
        where their writer was killed before its sync. Raises DiskFailed and its like."""
        with disk_errors(self._places.pins):
            self._disk.fsync_dir(self._places.pins)

    def write(self, name: str, digests: Iterable[str]) -> None:
        """Pin these and nothing else under `name`, for good when it returns. The lock is the
        caller's to hold. Raises BadDigest, BadPinName, DiskFull and its like."""
        path = self._places.pins / _file_name(name)
        wanted = sorted({check_digest(digest) for digest in digests})
        with disk_errors(path):
            replace_file(self._disk, path, _encode(wanted))

    def remove(self, name: str) -> bool:
        """Forget a name; False where there was none. The lock is the caller's to hold."""
        path = self._places.pins / _file_name(name)
        with disk_errors(path):
            if self._disk.stat(path) is None:
                return False
            self._disk.unlink(path)
            self._disk.fsync_dir(path.parent)
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """The pins' lock: nobody else writes pins or evicts meanwhile. Never taken twice."""
        path = self._places.pins / ".lock"
        with disk_errors(path):
            fd = self._disk.lock(path, wait=True)
        assert fd is not None
        try:
            yield
        finally:
            self._disk.close(fd)


def _file_name(name: str) -> str:
    quoted = quote(name, safe="")
    if not quoted or len(quoted) > _NAME_LIMIT:
        raise BadPinName(
            f"{name[:60]!r} cannot name a pin",
            f"use 1 to {_NAME_LIMIT} characters; others than letters and digits count threefold",
        )
    return quoted + _SUFFIX


def _encode(digests: list[str]) -> bytes:
    return json.dumps(
        {"digests": digests, "check": digest_of("\n".join(digests).encode())}
    ).encode()


def _decode(data: bytes) -> frozenset[str] | None:
    try:
        found = json.loads(data)
        digests = [check_digest(digest) for digest in found["digests"]]
        good = found["check"] == digest_of("\n".join(digests).encode())
    except (ValueError, KeyError, TypeError, RecursionError, BadDigest):
        return None
    return frozenset(digests) if good else None

# SPDX-License-Identifier: Apache-2.0
"""Bring what is written to the medium beside the writing, so that a power cut costs one block at
most."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_server.store.errors import PartialClosed


class Syncing:
    """`sync(offset)` makes the first `offset` bytes durable; it runs in a thread of its own once
    `block` / 2 bytes are waiting, and a writer `block` bytes ahead of it waits."""

    def __init__(self, sync: Callable[[int], None], written: int, synced: int, block: int) -> None:
        self._sync = sync
        self._block = block
        self._wake = threading.Condition()
        self._written = written
        self._synced = synced
        self._wanted = synced  # bytes that somebody asked to have on the medium
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._stopped = False

    @property
    def synced(self) -> int:
        """Bytes on the medium."""
        return self._synced

    def before(self, count: int) -> None:
        """Wait until `count` more bytes leave at most a block unsynced. Raises what the thread
        met."""
        with self._wake:
            if self._written + count - self._synced > self._block:
                self._ask(self._written)
                self._wake.wait_for(
                    lambda: (
                        self._written + count - self._synced <= self._block
                        or self._synced == self._written
                        or self._over()
                    )
                )
            self._raise_failure()
            if self._stopped:
                raise PartialClosed("the partial blob was closed while it was written")

    def wrote(self, count: int) -> None:
        """So many bytes more are in the file."""
        with self._wake:
            self._written += count
            if self._written - self._wanted >= self._block // 2:
                self._ask(self._written)

    def finish(self) -> None:
        """Return once all is on the medium. Raises what the thread met."""
        with self._wake:
            self._raise_failure()
            if self._thread is not None:
                self._ask(self._written)
                self._wake.wait_for(lambda: self._synced >= self._wanted or self._over())
                self._raise_failure()
                if self._synced < self._wanted:
                    raise PartialClosed("the partial blob was closed before all was on the disk")
                return
        if self._synced < self._written:
            self._sync(self._written)
            self._synced = self._wanted = self._written

    def stop(self) -> None:
        """End the thread; what is not on the medium is not waited for."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _over(self) -> bool:
        return self._failure is not None or self._stopped

    def _ask(self, offset: int) -> None:
        self._wanted = max(self._wanted, offset)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="store sync", daemon=True)
            self._thread.start()
        self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._synced < self._wanted or self._stopped)
                if self._stopped:
                    return
                offset = self._written
            try:
                self._sync(offset)
            except BaseException as error:  # the writer's to hear, whatever it is
                with self._wake:
                    self._failure = error
                    self._wake.notify_all()
                return
            with self._wake:
                self._synced = max(self._synced, offset)
                self._wake.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

# SPDX-License-Identifier: Apache-2.0
"""Several blobs at once: a few threads; one failure or Ctrl-C stops all; someone watches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from registry import oci
from registry.remote.backoff import Retry
from registry.remote.errors import RemoteError

T = TypeVar("T")

PARALLEL = 3
TITLE = "org.cncf.model.filepath"


class Watch(Protocol):
    """Who is told how a transfer goes; called from several threads."""

    def begin(self, digest: str, what: str, size: int) -> None:
        """A blob of `size` bytes is about to be moved."""

    def at(self, digest: str, offset: int) -> None:
        """So many of its bytes are done; may go back."""

    def end(self, digest: str, outcome: str) -> None:
        """Done: `sent`, `exists`, `mounted`, `received` or `kept`."""

    def trouble(self, what: str, error: RemoteError, pause: float) -> None:
        """It failed, and is tried again after `pause` seconds."""


class Unwatched:
    """A Watch that looks away."""

    def begin(self, digest: str, what: str, size: int) -> None:
        """See Watch.begin."""

    def at(self, digest: str, offset: int) -> None:
        """See Watch.at."""

    def end(self, digest: str, outcome: str) -> None:
        """See Watch.end."""

    def trouble(self, what: str, error: RemoteError, pause: float) -> None:
        """See Watch.trouble."""


class Stopped(RemoteError):
    """Another transfer failed, or the user stopped them all."""


@dataclass(frozen=True)
class Transfers:
    """How transfers are made: so many at once, tried again like that, watched by one."""

    retry: Retry = field(default_factory=Retry)
    watch: Watch = field(default_factory=Unwatched)
    parallel: int = PARALLEL
    stop: threading.Event = field(default_factory=threading.Event)

    def again(self, what: str, action: Callable[[], T]) -> T:
        """`action` with retries, each told to the watch."""
        return self.retry.run(action, lambda error, pause: self.trouble(what, error, pause))

    def at(self, digest: str, offset: int) -> None:
        """Tell the watch; raises Stopped in a transfer that is to end."""
        if self.stop.is_set():
            raise Stopped("stopped")
        self.watch.at(digest, offset)

    def each(self, blobs: Iterable[oci.Descriptor], move: Callable[[oci.Descriptor], T]) -> list[T]:
        """`move` for each blob, a few at once; the first error of them, once all have ended."""

        def one(blob: oci.Descriptor) -> T:
            if self.stop.is_set():
                raise Stopped("stopped")
            self.watch.begin(blob.digest, title_of(blob), blob.size)
            return move(blob)

        with ThreadPoolExecutor(self.parallel, "transfer") as pool:
            jobs = [pool.submit(one, blob) for blob in blobs]
            try:
                wait(jobs, return_when=FIRST_EXCEPTION)
                failed = [job.exception() for job in jobs if job.done()]
            except BaseException:
                self.stop.set()
                raise
            if any(failed):
                self.stop.set()
        first = next((e for e in failed if e is not None and not isinstance(e, Stopped)), None)
        if first is not None:
            raise first
        return [job.result() for job in jobs]

    def trouble(self, what: str, error: RemoteError, pause: float) -> None:
        """Tell the watch; raises Stopped where no more is to be tried."""
        if self.stop.is_set():
            raise Stopped("stopped")
        self.watch.trouble(what, error, pause)


def title_of(blob: oci.Descriptor) -> str:
    """What people call a blob: its file's name, else its kind, else the start of its digest."""
    if name := blob.annotations.get(TITLE):
        return "".join(c if c.isprintable() else "?" for c in name)[-40:]
    kinds = {"config": "configuration", "block-index": "block index", "delta": "delta"}
    for mark, kind in kinds.items():
        if mark in blob.media_type:
            return kind
    return blob.digest[:19]

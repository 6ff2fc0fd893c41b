# SPDX-License-Identifier: Apache-2.0
"""Several blobs at once: a few threads; one failure or Ctrl-C stops all; someone watches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue
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
        """`move` for each blob, a few at once; the first error of them, once all have ended. A
        KeyboardInterrupt waits for none of them: they end with the process."""
        waiting = deque(enumerate(blobs))
        results: dict[int, T] = {}
        ended: SimpleQueue[BaseException | None] = SimpleQueue()

        def work() -> None:
            while waiting:
                try:
                    index, blob = waiting.popleft()
                except IndexError:  # another thread was quicker
                    return
                try:
                    if self.stop.is_set():
                        raise Stopped("stopped")
                    self.watch.begin(blob.digest, title_of(blob), blob.size)
                    results[index] = move(blob)
                    ended.put(None)
                except BaseException as error:
                    ended.put(error)

        count = len(waiting)
        for _ in range(min(self.parallel, count)):
            threading.Thread(target=work, name="transfer", daemon=True).start()
        errors: list[BaseException] = []
        try:
            for _ in range(count):
                if (error := ended.get()) is not None:
                    errors.append(error)
                    self.stop.set()
        except BaseException:
            self.stop.set()
            raise
        if errors:
            raise next((e for e in errors if not isinstance(e, Stopped)), errors[0])
        return [results[index] for index in range(count)]

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


def size_text(count: float) -> str:
    """A number of bytes for people, in binary units."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"

# SPDX-License-Identifier: Apache-2.0
"""How fast the store takes a blob in, against what one core's SHA-256 does in the same minute.

    .venv/bin/python -m bench.store [--folder /dev/shm] [--size MIB] [--runs N]

Each run hashes a buffer in memory, appends as many bytes through `buffer` and `advance` and commits
them, then resumes half of the blob; in turns, so that all see the same machine. `best` is of the
run that others disturbed least. Processor times say what is left for receiving: `writer`, of the
appending thread, and `beside it`, of hashing and syncing, both against hashing alone.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from edge_server.store import Store

PIECE = 1 << 20


class Run(NamedTuple):
    """Seconds on the clock, of the processor in this thread, and of the processor in others."""

    clock: float
    here: float
    beside: float


class Watch:
    """Takes the times of one run."""

    def __init__(self) -> None:
        self._start = self._now()

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.thread_time(), time.process_time()

    def stop(self) -> Run:
        """The times since the beginning."""
        clock, here, whole = (b - a for a, b in zip(self._start, self._now(), strict=True))
        return Run(clock, here, whole - here)


def hash_alone(piece: bytes, count: int) -> tuple[Run, str]:
    """`count` pieces, and their digest."""
    watch = Watch()
    hasher = hashlib.sha256()
    for _ in range(count):
        hasher.update(piece)
    return watch.stop(), f"sha256:{hasher.hexdigest()}"


def take_in(store: Store, digest: str, piece: bytes, count: int) -> Run:
    """From nothing until the blob is in place."""
    watch = Watch()
    with store.partial(digest, count * PIECE) as partial:
        ready = set()  # the buffers are filled once, as a network card would: that is not measured
        while partial.offset < partial.size:
            room = partial.buffer()
            at = partial.offset % PIECE
            size = min(len(room), PIECE - at)
            if id(room.obj) not in ready:
                room[:size] = piece[at : at + size]
                ready.add(id(room.obj))
            partial.advance(size)
        partial.commit()
    return watch.stop()


def resume(store: Store, digest: str, piece: bytes, count: int) -> Run:
    """From opening a half-full partial until the blob is in place."""
    with store.partial(digest, count * PIECE) as partial:
        for _ in range(count // 2):
            partial.write(piece)
    watch = Watch()
    with store.partial(digest, count * PIECE) as partial:
        while partial.offset < partial.size:
            partial.write(piece)
        partial.commit()
    return watch.stop()


def show(what: str, runs: list[Run], alone: list[Run], mib: int) -> None:
    """One line."""
    ratios = [a.clock / run.clock for a, run in zip(alone, runs, strict=True)]
    hashing = statistics.median(run.here for run in alone)
    print(
        f"{what:<18} {mib / statistics.median(run.clock for run in runs):6.0f} MiB/s   "
        f"{statistics.median(ratios):.2f} of hashing, best {max(ratios):.2f}   processor: "
        f"writer {statistics.median(run.here for run in runs) / hashing:.2f}, "
        f"beside it {statistics.median(run.beside for run in runs) / hashing:.2f}"
    )


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    piece, count = os.urandom(PIECE), arguments.size
    alone, whole, resumed = [], [], []
    try:
        with Store.open(folder / "store") as store:
            for _ in range(arguments.runs):
                run, digest = hash_alone(piece, count)
                alone.append(run)
                whole.append(take_in(store, digest, piece, count))
                store.collect(unpinned=True)
                resumed.append(resume(store, digest, piece, count))
                store.collect(unpinned=True)
    finally:
        shutil.rmtree(folder)
    print(f"SHA-256 alone      {count / statistics.median(run.clock for run in alone):6.0f} MiB/s")
    show("append and commit", whole, alone, count)
    show("resume the half", resumed, alone, count)


if __name__ == "__main__":
    main()

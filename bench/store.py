# SPDX-License-Identifier: Apache-2.0
"""How fast the store takes a blob in, against what one core's SHA-256 does in the same minute.

    .venv/bin/python -m bench.store [--folder /dev/shm] [--size MIB] [--runs N]

Each run hashes a buffer in memory, appends as many bytes through `buffer` and `advance` and commits
them, then resumes half of the blob; in turns, so that all see the same machine. `writer busy` is
the processor time of the appending thread, of which the rest is left for receiving.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from edge_server.store import Store

PIECE = 1 << 20


def hash_alone(piece: bytes, count: int) -> tuple[float, str]:
    """Seconds for `count` pieces, and their digest."""
    start = time.perf_counter()
    hasher = hashlib.sha256()
    for _ in range(count):
        hasher.update(piece)
    return time.perf_counter() - start, f"sha256:{hasher.hexdigest()}"


def take_in(store: Store, digest: str, piece: bytes, count: int) -> tuple[float, float]:
    """Seconds until the blob is in place, and processor seconds of this thread."""
    start, busy = time.perf_counter(), time.thread_time()
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
    return time.perf_counter() - start, time.thread_time() - busy


def resume(store: Store, digest: str, piece: bytes, count: int) -> float:
    """Seconds from opening a half-full partial until the blob is in place."""
    with store.partial(digest, count * PIECE) as partial:
        for _ in range(count // 2):
            partial.write(piece)
    start = time.perf_counter()
    with store.partial(digest, count * PIECE) as partial:
        while partial.offset < partial.size:
            partial.write(piece)
        partial.commit()
    return time.perf_counter() - start


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    piece, count = os.urandom(PIECE), arguments.size
    alone, whole, busy, resumed = [], [], [], []
    try:
        with Store.open(folder / "store") as store:
            for _ in range(arguments.runs):
                seconds, digest = hash_alone(piece, count)
                alone.append(seconds)
                seconds, thread = take_in(store, digest, piece, count)
                whole.append(seconds)
                busy.append(thread / seconds)
                store.collect(unpinned=True)
                resumed.append(resume(store, digest, piece, count))
                store.collect(unpinned=True)
    finally:
        shutil.rmtree(folder)
    best = statistics.median(alone)
    print(f"SHA-256 alone      {count / best:7.0f} MiB/s")
    ratio = statistics.median(a / w for a, w in zip(alone, whole, strict=True))
    print(
        f"append and commit  {count / statistics.median(whole):7.0f} MiB/s   {ratio:.2f} of it, "
        f"writer busy {statistics.median(busy):.2f}"
    )
    ratio = statistics.median(a / r for a, r in zip(alone, resumed, strict=True))
    print(f"resume the half    {count / statistics.median(resumed):7.0f} MiB/s   {ratio:.2f} of it")


if __name__ == "__main__":
    main()

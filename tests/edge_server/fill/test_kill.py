# SPDX-License-Identifier: Apache-2.0
"""The process that fills is killed in the middle, again and again."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from edge_server.fill.fill import Want
from edge_server.fill.fills import Fills
from edge_server.fill.origins import Origins
from edge_server.store.store import BLOCK, Store
from tests.edge_server.fill.scripted import NAME, Registry, hold, origins_of, some_bytes

ROOT = Path(__file__).parents[3]
SIZE = 16 << 20
DATA = some_bytes(SIZE)
STEPS = [3_333_333, 5_000_001, 1]  # bytes that each process gets before it is killed


def fill_and_kill(folder: Path, registry: Registry, digest: str, until: int) -> None:
    """Start a process, and kill it as soon as it says that it has so many bytes."""
    command = [sys.executable, "-m", "tests.edge_server.fill.filling_process"]
    arguments = [str(folder), registry.url, NAME, digest, str(SIZE)]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= until:
                    break
        finally:
            process.kill()


def test_killed_in_mid_fill(tmp_path: Path, registry: Registry) -> None:
    """Nothing is fetched again beyond the block in flight."""
    digest = registry.add(DATA)
    never = threading.Event()
    registry.script.extend(hold(step, never) for step in STEPS)
    here = 0
    for step in STEPS:
        here += step
        fill_and_kill(tmp_path / "store", registry, digest, here)
    never.set()
    with Store.open(tmp_path / "store") as store, origins_of(registry) as origins:
        fills = Fills(store, Origins(origins))
        assert fills.start(Want(NAME, digest, SIZE)).wait(30).read_bytes() == DATA
        fills.stop()
        assert store.verify() == []
    starts = [int(r.removeprefix("bytes=").partition("-")[0] or 0) for r in registry.ranges()]
    expected = [0, *(sum(STEPS[: at + 1]) for at in range(len(STEPS)))]
    lost = [there - start for start, there in zip(starts, expected, strict=True)]
    assert all(0 <= count <= BLOCK for count in lost)
    assert sum(lost) == 0  # a kill costs nothing, only a power cut does

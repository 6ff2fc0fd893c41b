# SPDX-License-Identifier: Apache-2.0
"""What it costs that the card is another process: `inproc` against `vfio-user`, in turns.

    .venv/bin/python -m bench.link [--network resnet8] [--threads N] [--seconds N]

Median microseconds of an empty command there and back, one after the other and with the card asleep
in between, and of a whole Session.run of a network of bench/networks.py. `throughput` is what the
card in the other process gets done for each command of the one in this. It takes a processor more
than --threads: the program that waits polls on it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench.networks import quantized
from device.binding import Card
from device.session import Session

TURN = 40  # runs before it is the other's turn
WARM = 2  # of these, the first, which find the other's data in the caches


def in_turns(
    runs: Sequence[Callable[[], object]], seconds: float, pause: float = 0.0
) -> list[float]:
    """Median seconds of each, with a pause before each run that is not counted."""
    times: list[list[float]] = [[] for _ in runs]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for run, kept in zip(runs, times, strict=True):
            for i in range(TURN + WARM):
                if pause:
                    time.sleep(pause)
                start = time.perf_counter()
                run()
                if i >= WARM:
                    kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in times]


def show(what: str, medians: list[float]) -> None:
    """One line."""
    here, far = (seconds * 1e6 for seconds in medians)
    print(
        f"{what:<28} inproc {here:9.2f} us   vfio-user {far:9.2f} us   throughput {here / far:.2f}"
    )


def measure(network: str, folder: Path, threads: int, seconds: float) -> None:
    """Print all lines."""
    path = folder / "card.sock"
    command = [Path(sys.executable).with_name("tepi"), "card", "serve", "--socket", path]
    with subprocess.Popen(
        [*map(str, command), f"--threads={threads}", "--memory=1024"], stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            kinds = ("inproc", f"vfio-user:{path}")
            cards = [Card.open(kind, threads=threads, memory=1 << 30) for kind in kinds]
            pings = [card.ping for card in cards]
            show("empty command", in_turns(pings, seconds / 4))
            show("the same, after 1 ms of rest", in_turns(pings, seconds / 4, 0.001))
            model = quantized(network, folder)
            sessions = [Session(model, card=card, threads=threads) for card in cards]
            feeds = {
                i.name: np.zeros([d if isinstance(d, int) else 1 for d in i.shape], i.dtype)
                for i in sessions[0].inputs
            }
            runs = [partial(session.run, None, feeds) for session in sessions]
            show(f"{network}, {threads} threads", in_turns(runs, seconds))
            for session in sessions:
                session.close()
            for card in cards:
                card.close()
        finally:
            server.terminate()


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options.network, Path(folder), options.threads, options.seconds)


if __name__ == "__main__":
    main()

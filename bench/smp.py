# SPDX-License-Identifier: Apache-2.0
"""Firmware into a card's controller: our client and smpclient, in turns, over the same pty.

    .venv/bin/python -m bench.smp [--size KIB] [--turns N] [--baud N] [--stock PYTHON]

Both talk to one `tepi card mcu` with a buffer of 2048 bytes, once as fast as can be and once paced
to a UART's rate. The ceiling of a paced line is what base64 in lines of 127 bytes leaves of it:
rate / 10 * 93 / 127 bytes per second. A third line has one bit in 10,000 wrong, both ways; 0 KiB/s
is an upload that failed. Median of the turns; --stock is the Python that has smpclient (.ci/stock
makes it); without it only ours is measured.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firmware_bridge.client import Controller
from firmware_bridge.image.parse import MAGIC
from firmware_bridge.smp.framing import LINE

ROOT = Path(__file__).resolve().parent.parent
STOCK = ROOT / "build" / "stock" / "bin" / "python"
SMPCLIENT = """
import asyncio, sys, time
from smpclient import SMPClient
from smpclient.transport.serial import SMPSerialTransport

async def main():
    client = SMPClient(SMPSerialTransport(), sys.argv[1])
    await client.connect()
    image = open(sys.argv[2], "rb").read()
    start = time.perf_counter()
    async for _ in client.upload(image, slot=0):
        pass
    print(time.perf_counter() - start)
    await client.disconnect()

asyncio.run(main())
"""


@contextmanager
def controller(folder: Path, baud: int | None, bit_errors: float) -> Iterator[str]:
    """A controller in a process of its own; its port."""
    tepi = [str(Path(sys.executable).with_name("tepi")), "card", "mcu"]
    subprocess.run([*tepi, "--make-vendor", folder / "vendor"], check=True, capture_output=True)
    faults = folder / "faults"
    faults.write_text(json.dumps({"bit_errors": bit_errors}))
    pace = [f"--baud={baud}"] if baud else []
    command = [
        *tepi,
        f"--flash={folder / 'flash'}",
        f"--vendor={folder / 'vendor'}",
        f"--link={folder / 'port'}",
        f"--faults={faults}",
        "--json",
        *pace,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["port"])
        finally:
            process.terminate()


def image(size: int) -> bytes:
    """What a controller takes for one: the header's magic, and other bytes each time."""
    return MAGIC.to_bytes(4, "little") + os.urandom(size - 4)


def ours(port: str, data: bytes) -> float:
    """Seconds."""
    with Controller.open(port) as card:
        start = time.perf_counter()
        card.upload(data)
        return time.perf_counter() - start


def theirs(port: str, data: bytes, stock: Path, folder: Path) -> float:
    """Seconds, without those of starting Python; infinite where it gives up."""
    path = folder / "image"
    path.write_bytes(data)
    command: list[str | Path] = [stock, "-c", SMPCLIENT, port, path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else math.inf


def measure(
    size: int, turns: int, baud: int | None, stock: Path | None, bit_errors: float = 0.0
) -> None:
    """One line."""
    with tempfile.TemporaryDirectory() as name, controller(Path(name), baud, bit_errors) as port:
        mine, others = [], []
        for _ in range(turns):
            mine.append(size / ours(port, image(size)))
            if stock is not None:
                others.append(size / theirs(port, image(size), stock, Path(name)))
    what = f"{baud} baud" if baud else "unpaced"
    what += f", {bit_errors:g} of bits wrong" if bit_errors else ""
    line = f"upload over a pty, {what:<35} tepi {statistics.median(mine) / 1024:9.1f} KiB/s"
    if others:
        line += f"   smpclient {statistics.median(others) / 1024:8.1f} KiB/s"
        if statistics.median(others):
            line += f"   ratio {statistics.median(mine) / statistics.median(others):5.2f}"
    if baud and not bit_errors:
        ceiling = baud / 10 * 93 / LINE
        line += f"   of the line's ceiling {statistics.median(mine) / ceiling:.3f}"
    print(line, flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=448, help="KiB of the image")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--baud", type=int, default=1_000_000, help="rate of the paced line")
    parser.add_argument("--stock", type=Path, default=STOCK, help="a Python that has smpclient")
    options = parser.parse_args()
    stock = options.stock if options.stock.exists() else None
    measure(options.size * 1024, options.turns, None, stock)
    few = max(1, options.turns // 2)
    measure(options.size * 1024, few, options.baud, stock)
    measure(options.size * 1024, few, options.baud, stock, 1e-4)


if __name__ == "__main__":
    main()

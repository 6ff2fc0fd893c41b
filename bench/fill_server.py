# SPDX-License-Identifier: Apache-2.0
"""How fast blobs leave a registry over loopback: `tepi registry serve`, Debian's docker-registry
where it is installed, and a node's tier, warm and cold, in turns.

    .venv/bin/python -m bench.fill_server [--size MIB] [--runs N] [--clients N]

A client is a process that receives into one buffer and throws it away; on two processors it shares
them with the server. `cold` is the first client's time of a blob that the tier has yet to fetch
from the origin: fetched, hashed, written and sent on. Everything lies on /dev/shm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.fill import docker_origin, tepi_origin
from edge_server.fill.fills import Fills
from edge_server.fill.origins import Origins
from edge_server.fill.source import Origin
from edge_server.store.store import Store
from edge_server.tier.tier import Tier
from registry.digest import digest_of
from registry.remote.client import Remote

NAME = "bench/server"
_RECEIVE = "import sys; from bench.fill_server import receive; receive(sys.argv[1], sys.argv[2])"


def receive(address: str, path: str) -> None:
    """GET a path and count what comes; prints the bytes and the seconds."""
    host, _, port = address.rpartition(":")
    buffer = bytearray(1 << 20)
    with socket.create_connection((host, int(port))) as server:
        begin = time.perf_counter()
        head = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        server.sendall(head.encode())
        count = 0
        while got := server.recv_into(buffer):
            count += got
        print(count, time.perf_counter() - begin)


def rate(address: str, path: str, size: int, clients: int) -> float:
    """Bytes a second of all clients together."""
    command = [sys.executable, "-c", _RECEIVE, address, path]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
    found = [tuple(map(float, process.communicate()[0].split())) for process in started]
    assert all(count > size for count, _ in found), found
    return size * clients / max(seconds for _, seconds in found)


@contextmanager
def tier(folder: Path, origin: str) -> Iterator[str]:
    """A node's tier over an empty store; HOST:PORT."""
    with Remote(f"http://{origin}") as remote, Store.open(folder / "store") as store:
        origins = Origins([Origin("origin", remote.base, remote)])
        fills = Fills(store, origins)
        served = Tier(store, fills, origins, folder / "tier")
        try:
            yield served.start("127.0.0.1:0").partition("://")[2]
        finally:
            served.stop()
            fills.stop()


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, metavar="MIB")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        measure(folder, asked.size << 20, asked.runs, asked.clients)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, size: int, runs: int, clients: int) -> None:
    """Print the medians."""
    data = os.urandom(size)
    digest = digest_of(data)
    path = f"/v2/{NAME}/blobs/{digest}"
    with ExitStack() as stack:
        servers = {"tepi registry serve": stack.enter_context(tepi_origin(folder / "tepi"))}
        if shutil.which("docker-registry"):
            servers["docker-registry"] = stack.enter_context(docker_origin(folder / "docker"))
        for address in servers.values():
            with Remote(f"http://{address}") as remote:
                remote.push_blob(NAME, digest, data)
        origin = servers["tepi registry serve"]
        ways: dict[str, Callable[[], float]] = {}
        warm = stack.enter_context(tier(folder / "warm", origin))
        rate(warm, path, size, 1)
        for name, address in {**servers, "tier": warm}.items():
            for count in (1, clients):
                label = f"{name}, {count} client{'s' if count > 1 else ''}"
                ways[label] = partial(rate, address, path, size, count)

        def cold() -> float:
            with tier(folder / "cold", origin) as address:
                found = rate(address, path, size, 1)
            shutil.rmtree(folder / "cold")
            return found

        ways["tier, cold"] = cold
        found: dict[str, list[float]] = {name: [] for name in ways}
        for run in range(runs + 1):  # the first is not counted
            for name, way in ways.items():
                speed = way()
                if run:
                    found[name].append(speed)
    for name, speeds in found.items():
        print(f"{name:34} {statistics.median(speeds) / 1e9:6.2f} GB/s")


if __name__ == "__main__":
    main()

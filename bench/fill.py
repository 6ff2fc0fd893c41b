# SPDX-License-Identifier: Apache-2.0
"""How fast a node fetches a package over loopback: against what one core's SHA-256 does, and
against `skopeo copy docker://… oci:…` of the same package, in turns so that all see the same
machine.

    .venv/bin/python -m bench.fill [--folder FOLDER] [--size MIB] [--runs N] [--server SERVER]

The origin is `tepi registry serve`, or docker-registry with --server. Each run hashes the layer in
memory, fills an empty store with manifest, configuration and layer, and has skopeo copy the same
to an empty layout; the first run is not counted. skopeo's time holds that of starting its process,
which the line `skopeo alone` shows.

Without --folder all lies on a tmpfs of its own with huge pages, which needs root, else on /dev/shm.
There the kernel makes pages of 4 KiB, one by one, which takes a third of the fill's time: on two
processors, which the origin shares, it is then about 0.65 of the SHA-256 rate. ext4 has large
folios as huge tmpfs does, and a disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edge_server.fill.fill import Want
from edge_server.fill.fills import Fills
from edge_server.fill.origins import Origins
from edge_server.fill.source import Origin
from edge_server.store.store import Store
from registry import oci
from registry.package.layout import Layout
from registry.remote.client import Remote
from tests.e2e.docker_registry import docker_registry

NAME = "bench/fill"
LAYER = "application/vnd.cncf.model.weight.v1.raw"
PIECE = 1 << 20


@contextmanager
def tepi_origin(folder: Path) -> Iterator[str]:
    """`tepi registry serve` on a free port; HOST:PORT."""
    tepi = str(Path(sys.executable).with_name("tepi"))
    command = [tepi, "registry", "serve", str(folder), "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            yield f"127.0.0.1:{ready['port']}"
        finally:
            process.terminate()


@contextmanager
def docker_origin(folder: Path) -> Iterator[str]:
    """Debian's docker-registry; HOST:PORT."""
    folder.mkdir()
    with docker_registry(folder) as registry:
        yield registry.address


SERVERS = {"tepi": tepi_origin, "docker-registry": docker_origin}


def publish(folder: Path, address: str, size: int) -> oci.Descriptor:
    """A package with one layer of random bytes, by skopeo; its manifest's descriptor."""
    layout = Layout(folder, create=True)
    big = folder.with_name("layer")
    with big.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(PIECE))
    layer = layout.add(big, LAYER, {})
    big.unlink()
    config = layout.add(b"{}", oci.EMPTY, {})
    manifest = oci.Manifest(config, (layer,), "application/vnd.tepi.bench")
    layout.tag("1", layout.add_document(manifest))
    skopeo("copy", "--dest-tls-verify=false", f"oci:{folder}:1", f"docker://{address}/{NAME}:1")
    return layer


def skopeo(*words: str) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    subprocess.run(
        ["skopeo", "--insecure-policy", *words], check=True, stdout=subprocess.DEVNULL, timeout=300
    )
    return time.perf_counter() - start


def hash_alone(data: bytes) -> float:
    """Seconds of SHA-256 over these bytes, piece by piece."""
    view = memoryview(data)
    start = time.perf_counter()
    hasher = hashlib.sha256()
    for at in range(0, len(view), PIECE):
        hasher.update(view[at : at + PIECE])
    return time.perf_counter() - start


def fill(folder: Path, remote: Remote) -> float:
    """Seconds from asking for the manifest until all is verified in an empty store."""
    with Store.open(folder) as store:
        start = time.perf_counter()
        origins = Origins([Origin("bench", remote.registry, remote)])
        fills = Fills(store, origins)
        data, _ = origins.manifest(NAME, "1")
        manifest = oci.parse_manifest(data)
        for one in [fills.start(Want(NAME, b.digest, b.size)) for b in manifest.blobs]:
            one.wait(300)
        seconds = time.perf_counter() - start
        fills.stop()
    return seconds


@contextmanager
def own_tmpfs() -> Iterator[Path]:
    """A folder on a tmpfs with huge pages where this may mount one, else on /dev/shm."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        mount = ["mount", "-t", "tmpfs", "-o", "huge=always", "tmpfs", name]
        mounted = subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode == 0
        if not mounted:
            print("no tmpfs with huge pages: not root")
        try:
            yield Path(name)
        finally:
            if mounted:
                subprocess.run(["umount", name], check=True)


def in_turns(
    folder: Path, address: str, layer: oci.Descriptor, runs: int
) -> dict[str, list[float]]:
    """Seconds of each way, in each run."""
    found: dict[str, list[float]] = {
        way: [] for way in ("sha-256", "fill", "skopeo", "skopeo alone")
    }
    data = (folder / "layout/blobs" / layer.digest.replace(":", "/")).read_bytes()
    source = f"docker://{address}/{NAME}:1"
    with Remote(address) as remote:
        for run in range(-1, runs):
            if run == 0:  # what came before brought memory and programs in
                found = {way: [] for way in found}
            found["sha-256"].append(hash_alone(data))
            found["fill"].append(fill(folder / "store", remote))
            shutil.rmtree(folder / "store")
            copy = f"oci:{folder / 'copy'}:1"
            found["skopeo"].append(skopeo("copy", "--src-tls-verify=false", source, copy))
            shutil.rmtree(folder / "copy")
            found["skopeo alone"].append(skopeo("--version"))
    return found


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--server", choices=SERVERS, default="tepi")
    options = parser.parse_args()
    with ExitStack() as stack:
        room = options.folder or stack.enter_context(own_tmpfs())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=room)))
        with SERVERS[options.server](folder / "origin") as address:
            layer = publish(folder / "layout", address, options.size)
            found = in_turns(folder, address, layer, options.runs)
    medians = {way: statistics.median(times) for way, times in found.items()}
    for way, seconds in medians.items():
        rate = f"{options.size / seconds:8.0f} MiB/s" if way != "skopeo alone" else " " * 14
        runs = " ".join(f"{one:.3f}" for one in found[way])
        print(f"{way:<13} {seconds:7.3f} s {rate}   runs: {runs}")
    print(f"fill against one core's SHA-256: {medians['sha-256'] / medians['fill']:.2f}")
    print(f"fill against skopeo: {medians['skopeo'] / medians['fill']:.2f} times as fast")


if __name__ == "__main__":
    main()

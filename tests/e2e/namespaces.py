# SPDX-License-Identifier: Apache-2.0
"""Network namespaces joined by links that lose and delay; gone when the test ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import lossy_links


@dataclass(frozen=True)
class Link:
    """Between two namespaces; the address of each end is 10.77.<number>.1 and .2."""

    left: str
    right: str
    loss: float
    delay: float  # seconds, in each direction


class Network:
    """Namespaces by short names."""

    def __init__(self, links: Sequence[Link], emulator: subprocess.Popen[str]) -> None:
        self._links = links
        self._emulator = emulator

    @staticmethod
    def full(name: str) -> str:
        """The namespace's name on this machine."""
        return f"tepi{os.getpid()}-{name}"

    def command(self, namespace: str, *words: str | Path) -> list[str]:
        """The words that run a command in a namespace."""
        return ["ip", "netns", "exec", self.full(namespace), *map(str, words)]

    def sent(self) -> list[tuple[int, int]]:
        """Of each link the bytes that its left and its right end have sent, lost ones too."""
        assert self._emulator.stdin is not None and self._emulator.stdout is not None
        self._emulator.stdin.write("?\n")
        self._emulator.stdin.flush()
        found = json.loads(self._emulator.stdout.readline())
        return list(zip(found[::2], found[1::2], strict=True))

    def set_link(self, number: int, state: str) -> None:
        """`down` cuts the cable at its left end, `up` mends it."""
        left = self.full(self._links[number].left)
        _ip("-n", left, "link", "set", f"link{number}", state)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def need_namespaces() -> None:
    """Skip the test where they cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("needs ip: apt-get install iproute2")
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    probe = Network.full("probe")
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make network namespaces")
    _ip("netns", "del", probe)


@contextmanager
def network(*links: Link) -> Iterator[Network]:
    """The namespaces that the links name, joined by them."""
    need_namespaces()
    names = dict.fromkeys(name for link in links for name in (link.left, link.right))
    with ExitStack() as stack:
        for name in names:
            full = Network.full(name)
            _ip("netns", "add", full)
            stack.callback(_ip, "netns", "del", full)
            _ip("-n", full, "link", "set", "lo", "up")
        asked = [
            {
                "ends": [[Network.full(end), f"link{n}"] for end in (link.left, link.right)],
                "loss": link.loss,
                "delay": link.delay,
            }
            for n, link in enumerate(links)
        ]
        emulator = stack.enter_context(
            subprocess.Popen(
                [sys.executable, lossy_links.__file__, json.dumps(asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert emulator.stdin is not None and emulator.stdout is not None
        stack.callback(emulator.stdin.close)
        assert emulator.stdout.readline() == "ready\n"
        for n, link in enumerate(links):
            for last, end in ((1, link.left), (2, link.right)):
                address = f"10.77.{n}.{last}/24"
                _ip("-n", Network.full(end), "address", "add", address, "dev", f"link{n}")
        yield Network(links, emulator)

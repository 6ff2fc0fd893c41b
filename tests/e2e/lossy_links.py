# SPDX-License-Identifier: Apache-2.0
"""Ethernet links between network namespaces that lose and delay frames, as a process of a test.

Each link is two TAP devices with this process between them, so it needs no module of the kernel
beside tun, and its losses come from a seed. The arguments are one JSON list of links
`{"ends": [[namespace, device], [namespace, device]], "loss": share, "delay": seconds}`. It says
`ready` once they are there; each line on standard input is answered by the bytes that each end has
sent so far; the end of standard input ends it, and the devices go with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_FRAME = 65536
_QUEUE = 2000  # frames on their way in one direction; more are lost


@dataclass
class End:
    """One end: what it sends is written at the other end after the delay, or lost."""

    descriptor: int
    loss: float
    delay: float
    sent: int = 0  # bytes, lost ones too
    on_the_way: deque[tuple[float, bytes]] = field(default_factory=deque)


def open_tap(namespace: str, device: str) -> int:
    """A TAP device in a namespace, up."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"tap{os.getpid()}"[:15]
    request = struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
    subprocess.run(["ip", "link", "set", name, "netns", namespace, "name", device], check=True)
    subprocess.run(["ip", "-n", namespace, "link", "set", device, "up"], check=True)
    return descriptor


def pass_frames(ends: list[End], other: dict[int, End], rng: random.Random) -> None:
    """Move frames until standard input ends."""
    by_descriptor = {end.descriptor: end for end in ends}
    while True:
        dues = [end.on_the_way[0][0] for end in ends if end.on_the_way]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        ready, _, _ = select.select([sys.stdin.fileno(), *by_descriptor], [], [], wait)
        now = time.monotonic()
        for descriptor in ready:
            if descriptor == sys.stdin.fileno():
                if not os.read(descriptor, 4096):
                    return
                print(json.dumps([end.sent for end in ends]), flush=True)
            else:
                receive(by_descriptor[descriptor], now, rng)
        for end in ends:
            while end.on_the_way and end.on_the_way[0][0] <= now:
                deliver(other[end.descriptor], end.on_the_way.popleft()[1])


def receive(end: End, now: float, rng: random.Random) -> None:
    """All frames that an end has sent."""
    while True:
        try:
            frame = os.read(end.descriptor, _FRAME)
        except OSError:  # no more, or the device is down
            return
        end.sent += len(frame)
        if rng.random() >= end.loss and len(end.on_the_way) < _QUEUE:
            end.on_the_way.append((now + end.delay, frame))


def deliver(end: End, frame: bytes) -> None:
    """To the other end; lost where that is down."""
    try:
        os.write(end.descriptor, frame)
    except OSError:
        return


def main() -> None:
    """See above."""
    ends: list[End] = []
    other: dict[int, End] = {}
    for link in json.loads(sys.argv[1]):
        pair = [End(open_tap(*where), link["loss"], link["delay"]) for where in link["ends"]]
        ends += pair
        other |= {pair[0].descriptor: pair[1], pair[1].descriptor: pair[0]}
    print("ready", flush=True)
    pass_frames(ends, other, random.Random(7))


if __name__ == "__main__":
    main()

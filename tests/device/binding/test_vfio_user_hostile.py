# SPDX-License-Identifier: Apache-2.0
"""A real card process against clients that say anything; after each it serves a good one."""

import array
import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device.binding import Card
from tests.device.binding.card_process import CardProcess, card_process

VERSION = struct.pack("<HH", 0, 1)
PAGE = 4096

# Numbers at which careless checks go wrong.
EDGES = st.sampled_from(
    [
        *(0, 1, 2, 3, 4, 7, 8, 16, 64, 255, 256, PAGE - 1, PAGE, PAGE + 1, 0x1FFC, 0x2000),
        *(2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - PAGE, 2**64 - 1),
    ]
)
U32 = st.one_of(EDGES, st.integers(0, 2**32 - 1)).map(lambda n: n & 0xFFFFFFFF)
U64 = st.one_of(EDGES, st.integers(0, 2**64 - 1))

PAYLOADS = {
    1: st.builds(
        lambda a, b, json: struct.pack("<HH", a, b) + json,
        *[st.integers(0, 3)] * 2,
        st.sampled_from([b"", b"{}\0", b'{"capabilities":{"max_msg_fds":0}}\0', b"{{{\0"]),
    ),
    2: st.builds(lambda *f: struct.pack("<IIQQQ", *f), U32, st.integers(0, 7), U64, U64, U64),
    3: st.builds(lambda *f: struct.pack("<IIQQ", *f), U32, U32, U64, U64),
    4: st.builds(lambda *f: struct.pack("<IIII", *f), U32, U32, U32, U32),
    5: st.builds(
        lambda *f: struct.pack("<IIIIQQ", *f), U32, U32, st.integers(0, 12), U32, U64, U64
    ),
    6: st.builds(lambda *f: struct.pack("<IIII", *f), U32, U32, U32, U32),
    7: st.builds(lambda *f: struct.pack("<IIII", *f), U32, U32, st.integers(0, 8), U32),
    8: st.builds(
        lambda *f: struct.pack("<IIIII", *f), U32, st.integers(0, 63), st.integers(0, 5), U32, U32
    ),
    9: st.builds(lambda *f: struct.pack("<QII", *f), U64, st.integers(0, 10), U32),
    10: st.builds(
        lambda o, r, d: struct.pack("<QII", o, r, len(d)) + d,
        U64,
        st.integers(0, 10),
        st.binary(max_size=16),
    ),
    13: st.just(b""),
    14: st.binary(max_size=40),
}
FDS = st.lists(st.sampled_from(["sealed", "loose", "eventfd", "null", "socket"]), max_size=4)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """One message, mostly well framed, and the descriptors that go with it."""
    command = draw(st.sampled_from(sorted(PAYLOADS)))
    payload = draw(PAYLOADS[command])
    cut = draw(st.integers(0, 8))
    payload = payload[: max(0, len(payload) - cut)] if cut < 3 else payload
    size = draw(st.one_of(st.just(16 + len(payload)), st.just(16 + len(payload)), U32))
    flags = draw(st.sampled_from([0, 0, 0, 0, 0x10, 1, 0x20, 2**32 - 1]))
    header = struct.pack("<HHIII", draw(st.integers(0, 65535)), command, size, flags, 0)
    return header + payload, draw(FDS)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CardProcess]:
    with card_process(tmp_path_factory.mktemp("hostile") / "card.sock", "--memory=16") as process:
        yield process


def _descriptor(kind: str) -> int:
    if kind == "eventfd":
        return os.eventfd(0)
    if kind == "null":
        return os.open("/dev/null", os.O_RDWR)
    if kind == "socket":
        return socket.socket(socket.AF_UNIX).detach()
    fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, 4 * PAGE)
    if kind == "sealed":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def _send(peer: socket.socket, message: bytes, kinds: list[str]) -> None:
    fds = array.array("i", [_descriptor(kind) for kind in kinds])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
    try:
        peer.sendmsg([message], rights)
    finally:
        for fd, kind in zip(fds, kinds, strict=True):
            if kind == "loose":
                os.ftruncate(fd, 0)
            os.close(fd)


def _drain(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(greets=st.booleans(), said=st.lists(messages(), max_size=8), reads=st.booleans())
def test_any_messages(
    victim: CardProcess, greets: bool, said: list[tuple[bytes, list[str]]], reads: bool
) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(0.02)
        peer.connect(str(victim.socket))
        # The server hangs up on what is no message, and waits for the rest of a long one.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            if greets:
                _send(peer, struct.pack("<HHIII", 1, 1, 16 + len(VERSION), 0, 0) + VERSION, [])
            for message, kinds in said:
                _send(peer, message, kinds)
            if reads:
                _drain(peer)
    assert victim.process.poll() is None
    with Card.open(victim.name) as card:
        card.ping()


def _kinds(served: CardProcess) -> list[str]:
    """What it has open, without the numbers."""
    return sorted(name.split(":")[0] for name in served.descriptors)


def test_nothing_is_left_of_them(victim: CardProcess) -> None:
    """Run last: after all of the above, and a good client, the process holds what it began with."""
    with Card.open(victim.name) as card:
        card.ping()
    fresh_socket = victim.socket.with_name("fresh.sock")
    with card_process(fresh_socket, "--memory=16") as fresh:
        with Card.open(fresh.name) as card:
            card.ping()
        end = time.monotonic() + 10
        while _kinds(victim) != _kinds(fresh) and time.monotonic() < end:
            time.sleep(0.01)
        assert _kinds(victim) == _kinds(fresh)
    assert victim.shared_mappings == 0

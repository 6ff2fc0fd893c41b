# SPDX-License-Identifier: Apache-2.0
"""Ports: ptys and sockets, held by one, named when busy, missed when gone."""

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
import serial.rfc2217

from firmware_bridge.client import Controller
from firmware_bridge.errors import CardVanished, NoPort, PortBusy
from firmware_bridge.port import Port
from tests.firmware_bridge.wires import SmallServer

HOLD = """
import sys, time
from firmware_bridge.port import Port
port = Port(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


class Pair:
    """A raw pty: the far end's descriptor, and the name to open."""

    def __init__(self) -> None:
        self.far, near = pty.openpty()
        tty.setraw(near)
        self.name = os.ttyname(near)
        self.near = near

    def hang_up(self) -> None:
        for descriptor in (self.near, self.far):
            if descriptor >= 0:
                os.close(descriptor)
        self.near = self.far = -1


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.hang_up()


def test_bytes_go_both_ways(pair: Pair) -> None:
    with Port(pair.name) as port:
        assert port.transfer(b"\x00\n\r\x11\x13\x03", 0) == (6, b"")
        assert os.read(pair.far, 100) == b"\x00\n\r\x11\x13\x03"
        os.write(pair.far, b"\x06\x09\x04\x0a")
        assert port.transfer(b"", 5) == (0, b"\x06\x09\x04\x0a")


def test_a_full_line_does_not_keep_from_reading(pair: Pair) -> None:
    data = bytes(1 << 20)
    with Port(pair.name) as port:
        sent = port.transfer(data, 0)[0]
        assert 0 < sent < len(data)
        os.write(pair.far, b"read me")
        assert port.transfer(data, 5)[1] == b"read me"


def test_nothing_within_the_time(pair: Pair) -> None:
    with Port(pair.name) as port:
        assert port.transfer(b"", 0.01) == (0, b"")


def test_a_busy_port_names_its_holder(pair: Pair) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, pair.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(PortBusy, match=f"in use by process {holder.pid} ") as caught:
            Port(pair.name)
        assert (caught.value.holder, caught.value.exit_code) == (holder.pid, 16)
        holder.send_signal(signal.SIGKILL)
    Port(pair.name).close()


def test_a_busy_url_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
        with (
            Port(url),
            pytest.raises(PortBusy, match=f"in use by process {os.getpid()} ") as caught,
        ):
            Port(url)
        assert caught.value.holder == os.getpid()
        Port(url).close()


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoPort, match="no such port"):
        Port(str(tmp_path / "ttyACM9"))
    with pytest.raises(NoPort, match="cannot be opened"):
        Port("nonsense://x")
    (tmp_path / "file").write_text("no device")
    with pytest.raises(NoPort, match="cannot be opened"):
        Port(str(tmp_path / "file"))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    url = f"socket://127.0.0.1:{number}"
    for _ in range(2):  # the lock is given back
        with pytest.raises(NoPort, match="cannot be opened"):
            Port(url)


def test_a_pty_that_hangs_up(pair: Pair) -> None:
    with Port(pair.name) as port:
        pair.hang_up()
        with pytest.raises(CardVanished, match=pair.name) as caught:
            port.transfer(b"", 5)
        assert caught.value.exit_code == 18


def test_a_socket_that_is_closed() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Port(f"socket://127.0.0.1:{server.getsockname()[1]}") as port,
    ):
        server.accept()[0].close()
        with pytest.raises(CardVanished):
            port.transfer(b"", 5)


def test_closing_twice(pair: Pair) -> None:
    port = Port(pair.name)
    port.close()
    port.close()


def serve_rfc2217(listener: socket.socket, server: SmallServer) -> None:
    """One connection of a terminal server, with the small server behind it."""
    connection, _ = listener.accept()
    with connection:
        line = serial.serial_for_url("loop://", timeout=0)

        class Writer:
            def write(self, data: bytes) -> None:
                connection.sendall(data)

        manager: Any = serial.rfc2217.PortManager  # typed for one kind of port only
        terminal = manager(line, Writer())
        while data := connection.recv(4096):
            answer = server(b"".join(terminal.filter(data)))
            connection.sendall(b"".join(terminal.escape(answer)))
        line.close()


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial's own
def test_rfc2217_carries_an_upload() -> None:
    server = SmallServer(buf_size=2048)
    image = os.urandom(20_000)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_rfc2217, args=(listener, server))
        thread.start()
        with Controller.open(f"rfc2217://127.0.0.1:{listener.getsockname()[1]}") as controller:
            assert controller.echo("hello") == "hello"
            controller.upload(image)
        thread.join(5)
    assert server.received == image

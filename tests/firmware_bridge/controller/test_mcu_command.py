# SPDX-License-Identifier: Apache-2.0
"""`tepi card mcu` as a process: its line, its ends, its power cuts."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tepi
from firmware_bridge.controller.command import mcu
from firmware_bridge.smp.framing import Deframer, encode_frames
from firmware_bridge.smp.header import SIZE, Header, Op

SECONDS = 30


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "vendor"
    assert tepi.main(["card", "mcu", "--make-vendor", str(folder)]) == 0
    return folder


@contextmanager
def running(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "tepi", "card", "mcu", "--json", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(SECONDS)


def exchange(descriptor: int, message: bytes, seconds: float = SECONDS) -> bytes | None:
    """The answer; None where none comes in time."""
    os.write(descriptor, encode_frames(message))
    deframer = Deframer()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            data = os.read(descriptor, 4096)
            if not data:
                return None
            for answer in deframer.feed(data):
                return answer
    return None


PARAMETERS = Header(Op.READ, 0, 6).pack()


def open_raw(path: Path) -> int:
    import tty

    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)
    return descriptor


def test_pty_serves_one_client_after_the_other(vendor: Path, tmp_path: Path) -> None:
    link = tmp_path / "card.mcu"
    arguments = ("--flash", tmp_path / "flash", "--vendor", vendor, "--link", link)
    with running(*arguments, "--serial", "TC1-7") as (process, ready):
        assert ready["port"] == str(link)
        assert (ready["serial"], ready["board"], ready["version"]) == ("TC1-7", "tepi-c1", "1.0.0")
        assert ready["pid"] == process.pid
        for _ in range(3):
            descriptor = open_raw(link)
            answer = exchange(descriptor, PARAMETERS)
            assert answer is not None
            assert b"buf_size" in answer
            os.close(descriptor)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
        assert not link.is_symlink()
    with running(*arguments, "--serial", "OTHER") as (_, ready):
        assert ready["serial"] == "TC1-7"


def test_socket_serves_one_client_after_the_other(vendor: Path, tmp_path: Path) -> None:
    arguments = ("--flash", tmp_path / "flash", "--vendor", vendor, "--listen", "127.0.0.1:0")
    with running(*arguments) as (process, ready):
        host, port = ready["port"].removeprefix("socket://").split(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as client:
                assert exchange(client.fileno(), PARAMETERS) is not None
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_paced_line_is_as_slow_as_its_baud_rate(vendor: Path, tmp_path: Path) -> None:
    arguments = ("--flash", tmp_path / "flash", "--vendor", vendor, "--listen", "127.0.0.1:0")
    text = b"e" * 1500
    payload = b"\xa1\x61d\x79" + len(text).to_bytes(2, "big") + text
    message = Header(Op.WRITE, 0, 0, length=len(payload)).pack() + payload
    with running(*arguments, "--baud", "115200") as (_, ready):
        host, port = ready["port"].removeprefix("socket://").split(":")
        with socket.create_connection((host, int(port))) as client:
            begun = time.monotonic()
            answer = exchange(client.fileno(), message)
            spent = time.monotonic() - begun
    assert answer is not None
    assert text in answer[SIZE:]
    assert spent > 2 * len(encode_frames(message)) * 10 / 115200 * 0.95


def test_power_cut_kills_the_process_and_the_flash_boots(vendor: Path, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"cut_at": 3, "cut_done": 100}))
    arguments = ("--flash", tmp_path / "flash", "--vendor", vendor, "--listen", "127.0.0.1:0")
    image = (b"\x3d\xb8\xf3\x96" + bytes(60)).ljust(1600, b"i")
    payload = b"\xa3\x63off\x00\x63len\x1a\x00\x00\x80\x00\x64data\x59" + (1600).to_bytes(2, "big")
    payload += image
    message = Header(Op.WRITE, 1, 1, length=len(payload)).pack() + payload
    with running(*arguments, "--faults", faults) as (process, ready):
        host, port = ready["port"].removeprefix("socket://").split(":")
        with socket.create_connection((host, int(port))) as client:
            at = 0
            os.write(client.fileno(), encode_frames(message))
            while process.poll() is None and at < 40:
                at += 1600
                more = b"\xa2\x63off\x19" + at.to_bytes(2, "big") + b"\x64data\x59"
                more += (1600).to_bytes(2, "big") + image
                head = Header(Op.WRITE, 1, 1, length=len(more)).pack()
                exchange(client.fileno(), head + more, 0.5)
        assert process.wait(SECONDS) == -signal.SIGKILL
    with running(*arguments) as (_, ready):
        assert ready["version"] == "1.0.0"


def test_card_vanishes_and_comes_back(vendor: Path, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"vanish_after": 1, "vanish_s": 0.3}))
    link = tmp_path / "card.mcu"
    arguments = ("--flash", tmp_path / "flash", "--vendor", vendor, "--link", link)
    with running(*arguments, "--faults", faults):
        descriptor = open_raw(link)
        before = link.readlink()
        os.write(descriptor, encode_frames(PARAMETERS))
        end = time.monotonic() + SECONDS
        while link.is_symlink() and link.readlink() == before and time.monotonic() < end:
            select.select([], [], [], 0.01)
        os.close(descriptor)
        while not link.exists() and time.monotonic() < end:
            select.select([], [], [], 0.01)
        descriptor = open_raw(link)
        assert exchange(descriptor, PARAMETERS) is not None
        os.close(descriptor)


def test_socket_that_vanished_is_there_again_at_its_port(vendor: Path, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"vanish_after": 1, "vanish_s": 0.2}))
    arguments = ("--flash", tmp_path / "flash", "--vendor", vendor, "--listen", "127.0.0.1:0")
    with running(*arguments, "--faults", faults) as (_, ready):
        host, port = ready["port"].removeprefix("socket://").split(":")
        with socket.create_connection((host, int(port))) as client:
            os.write(client.fileno(), encode_frames(PARAMETERS))
            assert client.recv(99) == b""
        end = time.monotonic() + SECONDS
        answer = None
        while answer is None and time.monotonic() < end:
            try:
                with socket.create_connection((host, int(port))) as client:
                    answer = exchange(client.fileno(), PARAMETERS)
            except ConnectionError:
                select.select([], [], [], 0.02)
        assert answer is not None


def test_vendors_keys_are_not_overwritten(vendor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tepi.main(["card", "mcu", "--make-vendor", str(vendor)]) == 1
    assert "holds a vendor's keys already" in capsys.readouterr().err
    assert (vendor / "image.pem").stat().st_mode & 0o77 == 0
    assert (vendor / "card-ca.pem").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--flash and --vendor are needed"),
        (["--flash", "f", "--vendor", "v"], "either --link or --listen"),
        (["--flash", "f", "--vendor", "v", "--listen", "nowhere"], "HOST:PORT"),
        (["--flash", "f", "--vendor", "v", "--link", "l", "--load", "x", "--card-control", "y"],
         "exclude each other"),
    ],
)  # fmt: skip
def test_wrong_usage(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(mcu, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_missing_vendor_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--flash", str(tmp_path / "f"), "--vendor", str(tmp_path), "--link", "l"]
    assert tepi.main(["card", "mcu", *arguments]) == 1
    assert "--make-vendor" in capsys.readouterr().err


def test_link_that_cannot_be_made(
    vendor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "taken"
    link.write_text("mine")
    arguments = ["--flash", str(tmp_path / "f"), "--vendor", str(vendor), "--link", str(link)]
    assert tepi.main(["card", "mcu", *arguments]) == 1
    assert "cannot make the link" in capsys.readouterr().err
    assert link.read_text() == "mine"

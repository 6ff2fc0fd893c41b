# SPDX-License-Identifier: Apache-2.0
"""Records what goes over the wire when smpmgr, and our client, talk to a software controller.

    .venv/bin/python -m tests.records.record [--stock FOLDER]

Writes smp_sessions.json. FOLDER is a virtual environment with smpmgr, as .ci/stock makes it.
"""

import argparse
import hashlib
import json
import os
import pty
import select
import subprocess
import tempfile
import threading
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firmware_bridge.client import Controller
from firmware_bridge.port import Port
from firmware_bridge.smp.attest import Attestation
from firmware_bridge.smp.errors import SmpError
from tests.firmware_bridge.controller.bench_board import Board, blank, firmware

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
IMAGE = firmware("1.1.0", 2, pages=1)
SMPMGR = [
    ["os", "echo", "hello"],
    ["image", "state-read"],
    ["image", "upload", "{image}", "--slot", "0"],
    ["image", "state-write", "{hash}"],
    ["image", "erase", "1"],
    ["statistics", "list"],
    ["statistics", "get", "temp"],
    ["file", "read-size", "/dump/index"],
    ["file", "get-supported-hash-types"],
    ["enum", "get-supported-groups"],
    ["enum", "get-group-details", "0"],
    ["os", "reset"],
]


class Tapped:
    """A board behind a pty, with everything that passes."""

    def __init__(self, board: Board) -> None:
        self.far, self.near = pty.openpty()
        tty.setraw(self.near)
        self.name = os.ttyname(self.near)
        self.passed: list[tuple[str, bytes]] = []
        self._board = board
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self.far, self._stop], [], [])
            if self._stop in ready:
                return
            data = os.read(self.far, 1 << 16)
            answer = self._board.controller.receive(data, self._board.now)
            self.passed += [("to_card", data), ("to_host", answer)]
            os.write(self.far, answer)

    def take(self) -> dict[str, str]:
        """What passed since the last time, as hex for each direction."""
        passed, self.passed = self.passed, []
        return {
            way: b"".join(data for where, data in passed if where == way).hex()
            for way in ("to_card", "to_host")
        }

    def close(self) -> None:
        os.close(self._stopped)
        self._thread.join()
        for descriptor in (self.far, self.near, self._stop):
            os.close(descriptor)


def readable(found: object) -> object:
    """A result as JSON: bytes as hex, records as their maps."""
    if isinstance(found, bytes):
        return found.hex()
    if isinstance(found, list | tuple):
        return [readable(item) for item in found]
    if hasattr(found, "to_map"):
        return readable(found.to_map())
    if isinstance(found, dict):
        return {key: readable(item) for key, item in found.items()}
    return found


def refused(call: Callable[[], object]) -> list[int | None]:
    """Group and number of a refusal."""
    try:
        call()
    except SmpError as error:
        return [error.group, error.rc]
    raise AssertionError("it was not refused")


def steps(card: Controller, image: bytes) -> dict[str, Callable[[], object]]:
    """What our client does in a session, each with a result that does not vary."""
    marked = hashlib.sha256(b"no image").digest()
    return {
        "echo": lambda: card.echo("hello"),
        "parameters": card.parameters,
        "images": card.images,
        "bootloader": card.bootloader_info,
        "mode": lambda: card.bootloader_info("mode"),
        "upload": lambda: card.upload(image).match,
        "upload again": lambda: card.upload(image).resumed_at,
        "test": lambda: card.test(card.images()[1].hash or b""),
        "erase": lambda: card.erase(1),
        "unknown hash": lambda: refused(lambda: card.test(marked)),
        "no image": lambda: refused(lambda: card.upload(b"no image, and 64 bytes long" * 3)),
        "statistics": card.stat_groups,
        "temperatures": lambda: card.stats("temp"),
        "serial": lambda: card.setting_get("id/serial"),
        "read-only": lambda: refused(lambda: card.setting_set("id/serial", b"x")),
        "set": lambda: card.setting_set("limit/power_w", (60).to_bytes(4, "little")),
        "get": lambda: card.setting_get("limit/power_w"),
        "save": card.settings_save,
        "delete": lambda: card.setting_delete("limit/power_w"),
        "dumps": lambda: card.file_read("/dump/index"),
        "no file": lambda: refused(lambda: card.file_read("/dump/none")),
        "groups": card.groups,
        "faults": card.fault_log,
        "attest": lambda: isinstance(card.attest(bytes(16), bytes(32)), Attestation),
        "reset": card.reset,
    }


def record_ours(tapped: Tapped) -> list[dict[str, Any]]:
    """Our client, numbers from 0."""
    found = []
    with Port(tapped.name) as port:
        card = Controller(port, sequence=0)
        for name, step in steps(card, IMAGE).items():
            result = readable(step())
            found.append({"step": name, **tapped.take(), "result": result})
    return found


def record_smpmgr(tapped: Tapped, stock: Path, folder: Path) -> list[dict[str, Any]]:
    """smpmgr, one process for each command."""
    (folder / "image").write_bytes(IMAGE)
    found = []
    marked = ""
    for words in SMPMGR:
        filled = [w.format(image=folder / "image", hash=marked) for w in words]
        command: list[str | Path] = [stock / "bin" / "smpmgr", "--port", tapped.name, *filled]
        subprocess.run(command, check=True, capture_output=True)
        found.append({"step": " ".join(words), **tapped.take()})
        if words[1] == "upload":
            with Port(tapped.name) as port:
                marked = (Controller(port).images()[1].hash or b"").hex()
            tapped.take()
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stock", type=Path, default=ROOT / "build" / "stock")
    stock = parser.parse_args().stock
    version = subprocess.run(
        [stock / "bin" / "smpmgr", "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    sessions: dict[str, Any] = {"made_with": {"smpmgr": version}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for who, record in (
            ("ours", record_ours),
            ("smpmgr", lambda tapped: record_smpmgr(tapped, stock, folder)),
        ):
            with blank(folder / f"{who}.flash") as flash:
                tapped = Tapped(Board(flash))
                try:
                    sessions[who] = record(tapped)
                finally:
                    tapped.close()
    (HERE / "smp_sessions.json").write_text(json.dumps(sessions, indent=1) + "\n")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""A server that watches its card's controller, a real process on a pty: heat lets the card rest."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from edge_server.client import CARD_CONTROL, Client
from tests.e2e.server_process import TEPI, serving
from tests.e2e.test_flash import SERIAL, board
from wire import tepi_card_pb2 as pb

_WAIT = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    """Ask again and again: each time it is work for the other side, not a pause."""
    end = time.monotonic() + _WAIT
    while not condition():
        assert time.monotonic() < end, f"not within {_WAIT:g} s: {what}"


def test_heat_lets_the_card_rest_and_requests_go_on(
    tmp_path: Path, digits_repository: Path
) -> None:
    load = tmp_path / "load"
    load.write_text("0")
    with (
        board(tmp_path, load) as card,
        serving(digits_repository, f"--controller={card.port}", "--card-control") as server,
        Client(server.grpc, 30.0) as client,
    ):

        def status() -> pb.CardStatus:
            return client.call(CARD_CONTROL, "Status", pb.CardStatusRequest(), pb.CardStatus)

        def limit(*words: str) -> None:
            history = f"--history={tmp_path / 'history'}"
            done = card.tepi("limits", f"--port={card.port}", history, *words)
            assert done.returncode == 0, done.stderr

        def answered_by() -> str:
            command = [str(TEPI), "infer", "digits", "--random", "--address", server.grpc]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout

        until(lambda: status().controller.serial == SERIAL, "the controller's readings")
        assert "on card" in answered_by()
        limit("--temperature", "50", "--power", "15")
        assert status().state == pb.CARD_STATE_READY
        load.write_text("1")
        until(lambda: status().state == pb.CARD_STATE_RESTING, "the rest")
        assert "its controller re" in status().reason
        assert "onnxruntime" in answered_by()
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
        assert 'tepi_controller_limit{port="' in metrics
        assert 'sensor="temp.die_c"} 50.0' in metrics
        load.write_text("0")
        limit("--default")
        until(lambda: status().state == pb.CARD_STATE_READY, "the card's return")
        assert "on card" in answered_by()
        top = subprocess.run(
            [str(TEPI), "card", "top", "--count", "1", "--json", "--address", server.grpc],
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = json.loads(top.stdout)["controller"]
        assert said["serial"] == SERIAL and "temp.die_c" in said["readings"]
        assert "POWER_LIMITED" in {fault["fault"] for fault in said["faults"]}

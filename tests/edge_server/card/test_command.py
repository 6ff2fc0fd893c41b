# SPDX-License-Identifier: Apache-2.0
"""`tepi card list` and `reset --port` on a machine without a server."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_server.card.command import list_cards, reset
from firmware_bridge.discovery import Found, find_cards
from firmware_bridge.update import command
from tests.firmware_bridge.update.pty_card import card_on_pty

NOBODY = "--address=unix:/nonexistent/tepi.sock"


def test_cards_are_listed_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usb = Found("/dev/ttyACM7", "usb", serial="S7", usb="2fe3:0004", description="Tepi Card")
    monkeypatch.setattr(command, "list_ports", lambda: [usb, *find_cards(tmp_path, list)])
    with card_on_pty(tmp_path, "TC1-A") as card:
        found = CliRunner().invoke(list_cards, [NOBODY, "--json"])
        probed = CliRunner().invoke(list_cards, [NOBODY, "--probe"])
        given = CliRunner().invoke(list_cards, [NOBODY, f"--port={card.port}", "--json"])
    first, second = json.loads(found.stdout)
    assert (first["port"], first["serial"], first["usb"]) == ("/dev/ttyACM7", "S7", "2fe3:0004")
    assert second["port"] == card.port and second["kind"] == "link"
    assert "TC1-A" in probed.stdout and "1.0.0" in probed.stdout and "tepi-c1" in probed.stdout
    assert "/dev/ttyACM7" in probed.stdout and "no server answers" in probed.stderr
    assert json.loads(given.stdout)[1] == {
        "port": card.port,
        "kind": "given",
        "serial": "TC1-A",
        "board": "tepi-c1",
        "firmware": "1.0.0",
    }


def test_neither_server_nor_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "list_ports", list)
    found = CliRunner().invoke(list_cards, [NOBODY])
    assert found.exit_code == 1
    assert "Error" in found.stderr


def test_reset_of_the_controller_alone(tmp_path: Path) -> None:
    with card_on_pty(tmp_path, "TC1-A") as card:
        words = [f"--port={card.port}", f"--history={tmp_path}", "--json"]
        found = CliRunner().invoke(reset, words)
        assert json.loads(found.stdout) == {"port": card.port, "firmware": "1.0.0"}
        assert card.controller.boots == 2

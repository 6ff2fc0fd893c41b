# SPDX-License-Identifier: Apache-2.0
"""The controller follows the load of a software card, through that card's control socket."""

from __future__ import annotations

import threading
from pathlib import Path

from device.binding import CardServer
from device.control import registers_at, served
from firmware_bridge.controller.load import BusyCard, ask, follow


def test_registers_of_a_served_card(tmp_path: Path) -> None:
    path, control = tmp_path / "card.sock", tmp_path / "control"
    with (
        CardServer(str(path), threads=2, memory=16 << 20) as card,
        served(control, card, registers_at(f"vfio-user:{path}")),
    ):
        answer = ask(control)
        assert answer["ok"]
        assert answer["busy_ns"] == [0, 0]
        assert answer["temperature_mc"] > 20_000
        assert answer["power_mw"] > 0
        busy = BusyCard()
        busy.read(answer, 1.0)
        busy.read(ask(control), 2.0)
        assert busy.load == 0
        card.detach()
        assert "does not answer" in ask(control)["error"]
        card.attach()
        assert ask(control)["ok"]


def test_card_that_does_not_tell_its_registers(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with (
        CardServer(str(tmp_path / "card.sock"), threads=1, memory=16 << 20) as card,
        served(control, card),
    ):
        assert "not told" in ask(control)["error"]


def test_controller_without_its_card_sees_an_idle_one(tmp_path: Path) -> None:
    before = threading.active_count()
    assert ask(tmp_path / "nobody") is None
    with follow(tmp_path / "nobody", None) as load:
        assert load() == 0
    assert threading.active_count() == before

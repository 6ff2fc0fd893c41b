# SPDX-License-Identifier: Apache-2.0
"""The control socket of a card in another process: orders, and what is no order."""

import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from device.binding.planned import PlannedFault
from device.control import Unreachable, ask, served


class Card:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.plans: list[list[PlannedFault]] = []
        self.there = threading.Event()
        self.there.set()
        self.removals = 0

    def plan_faults(self, plan: list[PlannedFault]) -> None:
        self.plans.append(plan)

    def detach(self) -> None:
        self.removals += 1
        self.there.clear()

    def attach(self) -> None:
        self.there.set()


@pytest.fixture
def card() -> Card:
    return Card()


@pytest.fixture
def control(tmp_path: Path, card: Card) -> Iterator[Path]:
    path = tmp_path / "control"
    with served(path, card):
        yield path
    assert not path.exists()


def test_a_plan_arrives(control: Path, card: Card) -> None:
    ask(control, {"plan": [{"kind": "SLOW", "factor": 3, "count": 2}]})
    ask(control, {"plan": []})
    assert card.plans == [[PlannedFault("SLOW", factor=3, count=2)], []]


def test_removal_ends_by_itself(control: Path, card: Card) -> None:
    ask(control, {"remove_s": 0.01})
    assert card.there.wait(10) and card.removals == 1


def test_removal_ends_with_the_process(tmp_path: Path, card: Card) -> None:
    with served(tmp_path / "c", card):
        ask(tmp_path / "c", {"remove_s": 3000})
        assert not card.there.is_set()
    assert card.there.is_set()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "one field"),
        ({"plan": [], "remove_s": 1}, "one field"),
        ({"nothing": 1}, "unknown request 'nothing'"),
        ({"plan": 3}, "a list of objects"),
        ({"plan": [{"kind": "FIRE"}]}, "unknown kind of fault 'FIRE'"),
        ({"remove_s": -1}, "remove_s must be"),
        ({"remove_s": "soon"}, "remove_s must be"),
    ],
)
def test_what_is_no_order(
    control: Path, card: Card, request_: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        ask(control, request_)
    assert card.plans == [] and card.removals == 0


@pytest.mark.parametrize("line", [b"\n", b"{", b"[]\n", b"\xff\n", b"9" * 100_000 + b"\n"])
def test_noise_is_answered_or_dropped_and_the_socket_lives(
    control: Path, card: Card, line: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(control))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        for answer in connection.makefile():
            assert "error" in json.loads(answer)
    ask(control, {"plan": []})
    assert card.plans == [[]]


def test_only_its_owner_may_order(control: Path) -> None:
    assert stat.S_IMODE(control.stat().st_mode) == 0o600


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="start one with `tepi card serve --control"):
        ask(tmp_path / "no", {"plan": []})

# SPDX-License-Identifier: Apache-2.0
"""Faults to order: what the file may say, and what each does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_bridge.controller.controller import Wanted
from firmware_bridge.controller.flash import Flash, PowerCut
from firmware_bridge.controller.injected import BadFaults, BadLine, Injected, PowerSupply
from firmware_bridge.smp.framing import encode_frames
from firmware_bridge.smp.header import Header, Op
from tests.firmware_bridge.controller.bench_board import Board, blank

ECHO = encode_frames(Header(Op.READ, 0, 6).pack())


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Flash]:
    with blank(tmp_path / "flash") as made:
        yield made


def test_file_of_faults(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text(json.dumps({"bit_errors": 1e-4, "wedge_after": 3, "fan_stuck": True}))
    assert Injected.read(path) == Injected(bit_errors=1e-4, wedge_after=3, fan_stuck=True)
    path.write_text(json.dumps({"drop_lines": 0}))
    assert Injected.read(path) == Injected()


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"nonsense": 1}', '{"seed": "x"}', '{"bit_errors": -1}', '{"fan_stuck": 1}',
     '{"cut_at": 1.5}', '{"cut_at": true}'],
)  # fmt: skip
def test_file_that_says_nonsense(text: str, tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text(text)
    with pytest.raises(BadFaults) as caught:
        Injected.read(path)
    assert caught.value.remedy


def test_bit_errors_come_as_often_as_ordered() -> None:
    line = BadLine(Injected(bit_errors=1e-3), "x")
    data = bytes(1000)
    flipped = sum(bin(int.from_bytes(line.flipped(data), "little")).count("1") for _ in range(500))
    assert 3600 < flipped < 4400
    again = BadLine(Injected(bit_errors=1e-3), "x")
    other = BadLine(Injected(bit_errors=1e-3), "y")
    assert BadLine(Injected(bit_errors=1e-3), "x").flipped(data * 9) == again.flipped(data * 9)
    assert other.flipped(data * 9) != again.flipped(data * 9)


def test_lines_are_lost_and_late() -> None:
    line = BadLine(Injected(drop_lines=0.5, delay_lines=0.5, delay_s=2.0), "x")
    carried = [piece for _ in range(200) for piece in line.carry(b"whole\nhal")]
    assert 60 < len(carried) < 140
    late = [delay for delay, _ in carried if delay]
    assert set(late) == {2.0}
    assert len(carried) * 0.3 < len(late) < len(carried) * 0.7


def test_wedged_controller_is_silent_until_it_is_started_again(flash: Flash) -> None:
    board = Board(flash, Injected(wedge_after=2))
    answers = [bool(board.controller.receive(ECHO, 0.0)) for _ in range(5)]
    assert answers == [True, True, False, False, False]
    assert Board(flash).controller.receive(ECHO, 0.0)


def test_reset_in_the_middle_of_an_upload_forgets_it(flash: Flash) -> None:
    board = Board(flash, Injected(reset_after=2))
    board.controller.receive(ECHO, 0.0)
    assert board.controller.receive(ECHO, 0.0) == b""
    assert board.controller.boots == 2
    assert board.controller.receive(ECHO, 0.0)


def test_assertion_writes_a_dump(flash: Flash) -> None:
    board = Board(flash, Injected(assert_after=1))
    assert board.controller.receive(ECHO, 0.0) == b""
    assert board.ask(8, 1, {"name": "/dump/last.bin"})["len"] > 4096


def test_vanishing_is_ordered_once(flash: Flash) -> None:
    board = Board(flash, Injected(vanish_after=1))
    assert board.controller.receive(ECHO, 0.0) == b""
    assert board.controller.wanted is Wanted.VANISH


def test_power_supply_cuts_at_the_operation_named(flash: Flash) -> None:
    flash.before = PowerSupply(Injected(cut_at=3, cut_done=8))
    scratch = flash.layout.scratch.start
    flash.erase(scratch)
    flash.program(scratch, b"12345678")
    with pytest.raises(PowerCut):
        flash.program(scratch + 8, b"12345678" * 4)
    assert flash.read(scratch + 8, 8) == b"12345678"
    flash.program(scratch + 64, b"12345678")

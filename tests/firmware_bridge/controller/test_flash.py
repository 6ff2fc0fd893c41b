# SPDX-License-Identifier: Apache-2.0
"""Flash as a microcontroller has it, and records that outlive power cuts on it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from firmware_bridge.controller.flash import (
    PAGE,
    BadFlash,
    Cut,
    Flash,
    FlashMisused,
    Layout,
    Operation,
    PowerCut,
)
from firmware_bridge.controller.identity import Identity, manufacture
from firmware_bridge.controller.records import Records
from tests.firmware_bridge.controller.bench_board import NOW, SERIAL, SMALL, VENDOR, Board, blank


def test_erase_makes_ones_and_program_makes_zeros(tmp_path: Path) -> None:
    with erased(tmp_path / "flash") as flash:
        flash.program(8, b"\x0f" * 8)
        flash.program(8, b"\x0e" * 8)
        assert flash.read(0, 24) == b"\xff" * 8 + b"\x0e" * 8 + b"\xff" * 8
        with pytest.raises(FlashMisused, match="ones over zeros"):
            flash.program(8, b"\x0f" * 8)
        for at, data in (
            (1, b"12345678"),
            (0, b"123"),
            (-8, b"12345678"),
            (SMALL.size, b"12345678"),
        ):
            with pytest.raises(FlashMisused):
                flash.program(at, data)
        with pytest.raises(FlashMisused):
            flash.erase(8)
        flash.erase(0)
        assert flash.read(0, PAGE) == b"\xff" * PAGE


def test_content_and_size_outlive_the_process(tmp_path: Path) -> None:
    with erased(tmp_path / "flash") as flash:
        flash.program(PAGE, b"12345678")
    with Flash(tmp_path / "flash") as flash:
        assert flash.layout == SMALL
        assert flash.read(PAGE, 8) == b"12345678"


def test_second_controller_on_a_flash_is_refused(tmp_path: Path) -> None:
    with Flash(tmp_path / "flash", SMALL), pytest.raises(BadFlash, match="another controller"):
        Flash(tmp_path / "flash")


def test_file_that_is_no_flash_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_text("dear card")
    with pytest.raises(BadFlash, match="no flash"):
        Flash(path)
    assert path.read_text() == "dear card"


def test_making_of_a_card_that_is_interrupted_is_done_again(tmp_path: Path) -> None:
    """Wherever the process is killed, the next one makes the card and boots it."""
    with blank(tmp_path / "counted") as flash:
        total = flash.operations
    assert total > SMALL.size // PAGE
    for at in range(0, total, 3):
        path = tmp_path / f"flash-{at}"
        flash = Flash(path, SMALL)
        left = [at]

        def before(_: Operation, left: list[int] = left) -> Cut | None:
            left[0] -= 1
            return Cut(40, left[0]) if left[0] < 0 else None

        flash.before = before
        with flash, pytest.raises(PowerCut):
            manufacture(flash, VENDOR, SERIAL, lambda: NOW)
        with Flash(path) as flash:
            if Identity.read(flash) is None:
                manufacture(flash, VENDOR, SERIAL, lambda: NOW)
            assert str(Board(flash).images()[0]["version"]) == "1.0.0"
        path.unlink()


def test_areas_do_not_overlap() -> None:
    layout = Layout()
    areas = [
        *layout.slots, layout.scratch, layout.status, layout.identity, layout.counter,
        layout.settings, layout.log, layout.dump,
    ]  # fmt: skip
    at = 0
    for area in areas:
        assert area.start == at
        at += area.size
    assert at == layout.size
    marks = layout.status.size - 24
    assert marks // 8 >= 3 * (layout.slot // PAGE - 1)


def test_cut_program_is_done_up_to_a_torn_word(tmp_path: Path) -> None:
    with erased(tmp_path / "flash") as flash:
        flash.before = lambda _: Cut(16, 3)
        with pytest.raises(PowerCut):
            flash.program(0, b"\x00" * 64)
        assert flash.read(0, 16) == b"\x00" * 16
        assert flash.read(24, 40) == b"\xff" * 40
        flash.before = None
        flash.program(0, b"\x00" * 64)  # the torn word can be made whole


def test_cut_erase_leaves_no_bit_that_was_in_neither(tmp_path: Path) -> None:
    with erased(tmp_path / "flash") as flash:
        flash.program(0, b"\x55" * PAGE)
        flash.before = lambda _: Cut(0, 3)
        with pytest.raises(PowerCut):
            flash.erase(0)
        left = flash.read(0, PAGE)
        assert left not in (b"\x55" * PAGE, b"\xff" * PAGE)
        assert all(byte & 0x55 == 0x55 for byte in left)


def erased(path: Path) -> Flash:
    flash = Flash(path, SMALL)
    flash.erase_used(0, SMALL.size)
    return flash


def last_four(records: list[bytes]) -> list[bytes]:
    return records[-4:]


def test_records_move_between_banks(tmp_path: Path) -> None:
    with erased(tmp_path / "flash") as flash:
        records = Records(flash, SMALL.counter, last_four)
        written = [bytes([n % 251]) * (n % 90) for n in range(600)]
        for record in written:
            records.add(record)
        assert records.generation > 3
        again = Records(flash, SMALL.counter, last_four)
        assert again.all == records.all
        assert again.all[-5:] == written[-5:]


def test_power_cut_at_every_operation_of_records(tmp_path: Path) -> None:
    """What was written before the cut is there; the record under way is there or not."""
    noise = Random(5)
    written = [noise.randbytes(noise.randrange(1, 70)) for _ in range(160)]
    for at in range(0, 170, 3):
        for done in (0, 8, 24, PAGE):
            path = tmp_path / f"flash-{at}-{done}"
            with erased(path) as flash:
                left = [at]

                def before(_: Operation, left: list[int] = left, done: int = done) -> Cut | None:
                    left[0] -= 1
                    return Cut(done, left[0]) if left[0] < 0 else None

                added: list[bytes] = []
                flash.before = before
                try:
                    records = Records(flash, SMALL.counter, last_four)
                    for record in written:
                        records.add(record)
                        added.append(record)
                except PowerCut:
                    pass
                flash.before = None
                found = Records(flash, SMALL.counter, last_four)
                kept = found.all[-3:]
                if found.all and added and found.all[-1] != added[-1]:
                    assert found.all[-1] == written[len(added)]
                    kept = found.all[-4:-1]
                assert kept == added[-len(kept) :] if kept else len(added) <= 1
                found.add(b"after")
                assert Records(flash, SMALL.counter, last_four).all[-1] == b"after"
            path.unlink()

# SPDX-License-Identifier: Apache-2.0
"""The history of cards on disks that fill up and machines that lose their power."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from firmware_bridge.history import SPARE_BYTES, History, HistoryFull, HistoryUnwritable


class TinyDisk:
    """os.write on a disk with so many bytes left; what a partial write takes stays taken."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, handle: int, data: bytes) -> int:
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = min(len(data), self.left)
        self.left -= count
        return os.write(handle, data[:count])


def add(
    history: History, step: str = "upload", outcome: str = "uploaded", card: str = "A1"
) -> None:
    history.add(card, "/dev/ttyACM0", "r1", "flash", step, outcome, version="1.1.0")


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    ticks = iter([10.0, 11.5])
    history = History(tmp_path / "cards", clock=lambda: next(ticks))
    add(history)
    add(history, "confirm", "confirmed", card="B2")
    found = history.read()
    assert [(r.at, r.card, r.step) for r in found] == [
        (10.0, "A1", "upload"),
        (11.5, "B2", "confirm"),
    ]
    assert [r.card for r in history.read("B2")] == ["B2"]
    assert len(history.read("/dev/ttyACM0")) == 2


def test_no_history_yet(tmp_path: Path) -> None:
    assert History(tmp_path / "never").read() == []


def test_full_disk_is_found_before_a_card_is_touched(tmp_path: Path) -> None:
    history = History(tmp_path, write=TinyDisk(SPARE_BYTES - 1).write)
    with pytest.raises(HistoryFull, match=str(tmp_path)) as caught:
        history.reserve()
    assert caught.value.exit_code == 19
    assert "--history" in caught.value.remedy
    assert not (tmp_path / "history.spare").exists()


def test_full_device(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").symlink_to("/dev/full")
    with pytest.raises(HistoryFull):
        add(History(tmp_path))


def test_disk_that_fills_up_during_an_update_leaves_room_for_its_history(tmp_path: Path) -> None:
    disk = TinyDisk(SPARE_BYTES + 10)  # room for the spare block, and for no line
    history = History(tmp_path, write=disk.write)
    history.reserve()
    spare = tmp_path / "history.spare"

    def write(handle: int, data: bytes) -> int:
        if not spare.exists():
            disk.left = SPARE_BYTES
        return disk.write(handle, data)

    History(tmp_path, write=write).add("A1", "p", "r", "flash", "confirm", "confirmed")
    assert [r.outcome for r in history.read()] == ["confirmed"]
    assert (tmp_path / "history.jsonl").read_bytes().count(b"\n") == 1


def test_line_torn_by_a_power_cut_is_passed_over_and_not_joined_to_the_next(tmp_path: Path) -> None:
    history = History(tmp_path)
    add(history)
    with history.path.open("ab") as file:
        file.write(b'{"at": 12.0, "card": "A1", "po')
    add(history, "confirm", "confirmed")
    assert [r.step for r in history.read()] == ["upload", "confirm"]


@pytest.mark.parametrize("line", [b"[]", b"7", b"{}", b'"x"', b"\xff\xfe", b'{"at": 1}'])
def test_lines_that_are_no_records(tmp_path: Path, line: bytes) -> None:
    history = History(tmp_path)
    history.path.write_bytes(line + b"\n")
    add(history)
    assert [r.step for r in history.read()] == ["upload"]


def test_fields_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    history = History(tmp_path)
    line = {"at": 1.0, "card": "A1", "action": "flash", "colour": "red"}
    history.path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert history.read()[0].card == "A1"


def test_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HistoryUnwritable, match="cannot write"):
        History(tmp_path / "file").reserve()


def test_run_killed_while_the_card_was_drained_is_remembered(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.left_drained("A1") == ""
    history.add("A1", "p", "r", "flash", "drain", "draining", more={"server": "unix:/s"})
    assert history.left_drained("A1") == "unix:/s"
    assert history.left_drained("B2") == ""
    add(history, "take back", "taken")
    assert history.left_drained("A1") == ""


def test_several_commands_write_whole_lines(tmp_path: Path) -> None:
    def write_some() -> None:
        mine = History(tmp_path)
        for _ in range(20):
            add(mine)

    threads = [threading.Thread(target=write_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(History(tmp_path).read()) == 80

# SPDX-License-Identifier: Apache-2.0
"""Group 1 as Zephyr's server behaves: numbers of errors, flags, what a reset changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from firmware_bridge.controller.flash import PAGE, Flash, Layout
from firmware_bridge.image import parse_image
from firmware_bridge.smp.header import V1, Op
from tests.firmware_bridge.controller.bench_board import SMALL, VENDOR, Board, blank, firmware

NEW = firmware("2.0.0", 5)
NEW_HASH = parse_image(NEW).hash


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Flash]:
    with blank(tmp_path / "flash") as made:
        yield made


@pytest.fixture
def board(flash: Flash) -> Board:
    return Board(flash)


def error(board: Board, command: int, payload: dict[str, object]) -> int:
    answer = board.ask(1, command, payload, op=Op.WRITE)
    assert set(answer) == {"err"}
    assert answer["err"]["group"] == 1
    number: int = answer["err"]["rc"]
    return number


def upload_of(image: bytes, **change: Any) -> dict[str, object]:
    first = {"off": 0, "len": len(image), "data": image[:512], "sha": sha256(image).digest()}
    return {key: value for key, value in {**first, **change}.items() if value is not None}


def flags(board: Board) -> list[tuple[str, str]]:
    """Version, and the initials of the flags that are set."""
    names = ("active", "confirmed", "pending", "permanent")
    return [
        (image["version"], "".join(name[:2] for name in names if image[name]))
        for image in board.images()
    ]


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"off": None}, 20),
        ({"data": NEW[:31]}, 22),
        ({"data": None}, 22),
        ({"len": None}, 21),
        ({"data": b"\0" * 512}, 23),
        ({"sha": bytes(33)}, 24),
        ({"len": SMALL.slot - PAGE + 1}, 30),
        ({"upgrade": True, "data": firmware("1.0.0", 1)[:512]}, 27),
        ({"upgrade": True, "data": firmware("0.9.9", 1)[:512]}, 27),
    ],
)
def test_uploads_that_are_refused(board: Board, change: dict[str, Any], number: int) -> None:
    assert error(board, 1, upload_of(NEW, **change)) == number


def test_newer_image_with_upgrade_passes(board: Board) -> None:
    assert board.write(1, 1, upload_of(NEW, upgrade=True)) == {"off": 512}


def test_more_data_than_announced(board: Board) -> None:
    board.write(1, 1, upload_of(NEW, len=600))
    assert error(board, 1, {"off": 512, "data": bytes(100)}) == 31


def test_wrong_offset_is_answered_with_the_right_one(board: Board) -> None:
    board.write(1, 1, upload_of(NEW))
    for off in (100, 513, 99999):
        assert board.write(1, 1, {"off": off, "data": b"x" * 10}) == {"off": 512}


def test_chunk_without_an_upload(board: Board) -> None:
    assert board.write(1, 1, {"off": 512, "data": b"x"}) == {"off": 0}


def test_same_sha_resumes_and_another_begins_anew(board: Board) -> None:
    board.write(1, 1, upload_of(NEW))
    board.write(1, 1, {"off": 512, "data": NEW[512:1500]})
    assert board.write(1, 1, upload_of(NEW)) == {"off": 1500}
    other = firmware("3.0.0", 5)
    assert board.write(1, 1, upload_of(other)) == {"off": 512}
    assert board.upload(other) == {"off": len(other), "match": True}


def test_wrong_sha_is_told_at_the_end(board: Board) -> None:
    board.write(1, 1, upload_of(NEW, sha=bytes(32)))
    answer: dict[str, Any] = {"off": 512}
    while answer["off"] < len(NEW):
        at = answer["off"]
        answer = board.write(1, 1, {"off": at, "data": NEW[at : at + 1900]})
    assert answer == {"off": len(NEW), "match": False}


def test_slot_that_holds_the_file_already(board: Board) -> None:
    board.upload(NEW)
    operations = board.controller.flash.operations
    assert board.write(1, 1, upload_of(NEW)) == {"off": len(NEW), "match": True}
    assert board.controller.flash.operations == operations


def test_test_reset_reset_reverts(board: Board) -> None:
    board.upload(NEW)
    assert flags(board) == [("1.0.0", "acco"), ("2.0.0", "")]
    state = board.write(1, 0, {"hash": NEW_HASH})
    assert [image["pending"] for image in state["images"]] == [False, True]
    board.reset()
    assert flags(board) == [("2.0.0", "ac"), ("1.0.0", "co")]
    board.reset()
    assert flags(board) == [("1.0.0", "acco"), ("2.0.0", "")]
    assert [entry["code"] for entry in board.controller.log.entries] == [2]


def test_confirmed_image_stays_and_its_predecessor_goes(board: Board) -> None:
    board.upload(NEW)
    board.write(1, 0, {"hash": NEW_HASH, "confirm": False})
    board.reset()
    board.write(1, 0, {"confirm": True})
    assert flags(board) == [("2.0.0", "acco"), ("1.0.0", "")]
    board.reset()
    assert flags(board) == [("2.0.0", "acco")]
    board.reset()
    assert flags(board) == [("2.0.0", "acco")]


def test_confirmed_before_it_ran(board: Board) -> None:
    board.upload(NEW)
    board.write(1, 0, {"hash": NEW_HASH, "confirm": True})
    assert flags(board) == [("1.0.0", "acco"), ("2.0.0", "pepe")]
    board.reset()
    assert flags(board)[0] == ("2.0.0", "acco")


def test_states_that_cannot_be_set(board: Board) -> None:
    active = board.active()
    assert error(board, 0, {}) == 24
    assert error(board, 0, {"hash": b"short", "confirm": True}) == 24
    assert error(board, 0, {"hash": bytes(32)}) == 8
    assert error(board, 0, {"hash": active}) == 33
    board.upload(NEW)
    board.write(1, 0, {"hash": NEW_HASH})
    board.write(1, 0, {"hash": NEW_HASH})  # again: nothing to do
    assert error(board, 0, {"confirm": True}) == 28
    board.reset()
    assert error(board, 0, {"hash": active}) == 28  # on trial, nothing else is tried


def test_what_may_be_erased(board: Board) -> None:
    assert error(board, 5, {"slot": 0}) == 9
    assert error(board, 5, {"slot": 2}) == 14
    assert board.write(1, 5, {}) == {}
    board.upload(NEW)
    board.write(1, 0, {"hash": NEW_HASH})
    board.write(1, 5, {"slot": 1})  # a pending one may go, and the swap with it
    board.reset()
    assert flags(board) == [("1.0.0", "acco")]
    board.upload(NEW)
    board.write(1, 0, {"hash": NEW_HASH})
    board.reset()
    assert error(board, 5, {"slot": 1}) == 9  # the fallback
    assert error(board, 1, upload_of(firmware("3.0.0", 5))) == 9


def test_version_one_gets_the_shared_numbers(board: Board) -> None:
    cases: list[tuple[int, dict[str, object], int]] = [
        (0, {"hash": bytes(32)}, 1),
        (5, {"slot": 0}, 6),
        (1, upload_of(NEW, data=NEW[:9]), 3),
    ]
    for command, payload, number in cases:
        answer = board.ask(1, command, payload, op=Op.WRITE, version=V1)
        assert answer == {"rc": number}


def rejected(board: Board, data: bytes) -> str:
    """It uploads and tests without an error; the reset runs the old one and empties the slot."""
    board.upload(data)
    board.write(1, 0, {"hash": parse_image(data).hash})
    board.reset()
    assert flags(board) == [("1.0.0", "acco")]
    entry = board.controller.log.entries[-1]
    assert entry["code"] == 1
    text: str = entry["info"]
    return text


def test_bootloader_rejects_what_must_not_run(board: Board) -> None:
    corrupt = bytearray(NEW)
    corrupt[0x400] ^= 1
    assert "SHA-256" in rejected(board, bytes(corrupt))
    unsigned = bytearray(NEW)
    unsigned[-1] ^= 1
    assert "signature" in rejected(board, bytes(unsigned))
    assert "made for the board 'x'" in rejected(board, firmware("2.0.0", 5, board="x"))
    assert "0, and the card asks for 1" in rejected(board, firmware("2.0.0", 0))


def test_rollback_after_a_confirmed_update(board: Board) -> None:
    """The counter rose with 2.0.0: an image that is validly signed and older is rejected."""
    board.upload(NEW)
    board.write(1, 0, {"hash": NEW_HASH})
    board.reset()
    board.write(1, 0, {"confirm": True})
    board.reset()
    old = firmware("1.9.0", 4)
    board.upload(old)
    board.write(1, 0, {"hash": parse_image(old).hash})
    board.reset()
    assert flags(board) == [("2.0.0", "acco")]
    assert "asks for 5" in board.controller.log.entries[-1]["info"]


def test_counter_does_not_rise_on_trial(board: Board) -> None:
    board.upload(NEW)
    board.write(1, 0, {"hash": NEW_HASH})
    board.reset()
    assert board.ask(3, 0, {"name": "id/counter"})["val"] == (1).to_bytes(4, "little")
    board.reset()
    assert flags(board)[0] == ("1.0.0", "acco")


def test_rotten_running_image_is_replaced_by_the_other_slot(flash: Flash) -> None:
    board = Board(flash)
    board.upload(NEW)
    flash.program(0x300, bytes(8))  # bits that fell to zero
    board = Board(flash)
    assert flags(board)[0] == ("2.0.0", "acco")


def test_recovery_where_no_slot_can_run(flash: Flash) -> None:
    """Only images, echo and reset answer; an upload mends the card."""
    flash.program(0x300, bytes(8))
    board = Board(flash)
    assert board.controller.image is None
    assert not any(image["active"] for image in board.images())
    assert board.ask(2, 1) == {"rc": 8}
    assert board.ask(0, 0, {"d": "x"}, op=Op.WRITE) == {"r": "x"}
    board.upload(NEW)
    board.reset()
    assert flags(board) == [("2.0.0", "acco")]


def test_image_signed_by_another_vendor_never_runs(flash: Flash) -> None:
    from firmware_bridge.controller.identity import factory_image
    from firmware_bridge.controller.vendor import Vendor

    stranger = Vendor.new(lambda: 0.0)
    assert stranger.image_key != VENDOR.image_key
    assert "not trusted" in rejected(Board(flash), factory_image(stranger, "9.0.0", 99))


def test_upload_is_faster_than_any_line(tmp_path: Path) -> None:
    """A client that is to reach 2 MiB/s on two cores needs a controller that does twice that."""
    image = firmware("2.0.0", 5, pages=200)
    with blank(tmp_path / "large", Layout()) as flash:
        board = Board(flash)
        begun = time.perf_counter()
        assert board.upload(image, chunk=1900)["match"]
        rate = len(image) / (time.perf_counter() - begun) / 2**20
    assert rate > 4, f"{rate:.1f} MiB/s"

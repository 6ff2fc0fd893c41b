# SPDX-License-Identifier: Apache-2.0
"""Power goes at every flash operation of an update, whole, half done or torn: what boots after it
is always valid, signed and not below the counter, and the same update finishes when it is run
again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from firmware_bridge.controller.flash import PAGE, Cut, Flash, Operation, PowerCut
from firmware_bridge.image import check_image, parse_image
from tests.firmware_bridge.controller.bench_board import SMALL, VENDOR, Board, blank, firmware

NEW = firmware("2.0.0", 7, 4.2)
NEW_HASH = parse_image(NEW).hash
ROUNDS = 4


class Supply:
    """Cuts the power once, in the operation with this number; `done` bytes of it are done."""

    def __init__(self, at: int, seed: int) -> None:
        self.left = at
        self._noise = Random(seed)

    def __call__(self, operation: Operation) -> Cut | None:
        self.left -= 1
        if self.left >= 0:
            return None
        done = self._noise.choice((0, operation.size, self._noise.randrange(operation.size)))
        return Cut(done, self._noise.getrandbits(32))


def update(board: Board) -> None:
    """What a flasher does; it looks at the slots first, so that it may be run again."""
    active = board.active()
    if active != NEW_HASH:
        board.upload(NEW)
        pending = [image for image in board.images() if image["hash"] == NEW_HASH]
        if not pending[0]["pending"]:
            board.write(1, 0, {"hash": NEW_HASH, "confirm": False})
        board.reset()
    assert board.active() == NEW_HASH
    board.write(1, 0, {"confirm": True})
    board.reset()
    assert board.active() == NEW_HASH


def give_up(board: Board) -> None:
    """An update that its owner takes back: it reverts at the second reset."""
    if board.active() != NEW_HASH:
        board.upload(NEW)
        board.write(1, 0, {"hash": NEW_HASH, "confirm": False})
        board.reset()
    board.reset()
    assert board.active() != NEW_HASH


Flow = Callable[[Board], None]


def operations(path: Path, flow: Flow) -> int:
    with blank(path) as flash:
        before = flash.operations
        flow(Board(flash))
        return flash.operations - before


def lowest_counter(board: Board) -> int:
    """Nothing below the confirmed image may ever boot again."""
    return 7 if board.images()[0]["hash"] == NEW_HASH and board.images()[0]["confirmed"] else 1


def check_boots(flash: Flash) -> Board:
    """A valid, signed image for this board runs, and it is one of the two."""
    board = Board(flash)
    image = board.controller.image
    assert image is not None
    check_image(
        image,
        keys=[VENDOR.image_key.public_key()],
        board=board.controller.identity.board,
        counter=lowest_counter(board),
        slot_size=SMALL.slot - PAGE,
    )
    return board


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("factory") / "flash"
    blank(path).close()
    return path


def cut_and_mend(path: Path, flow: Flow, at: int, seed: int, again: int | None) -> None:
    """Cut at one operation, and once more while the bootloader mends it."""
    with Flash(path) as flash:
        flash.before = Supply(at, seed)
        with pytest.raises(PowerCut):
            flow(Board(flash))
    if again is not None:
        with Flash(path) as flash:
            flash.before = Supply(again, seed + 1)
            try:
                Board(flash)
            except PowerCut:
                pass
    with Flash(path) as flash:
        board = check_boots(flash)
        flow(board)
        check_boots(flash)


@pytest.mark.parametrize("flow", [update, give_up])
def test_power_cut_at_every_operation(flow: Flow, factory: Path, tmp_path: Path) -> None:
    total = operations(tmp_path / "counted", flow)
    assert total > 60
    cuts = 0
    for at in range(total):
        for seed in range(ROUNDS):
            path = tmp_path / "flash"
            shutil.copyfile(factory, path)
            cut_and_mend(path, flow, at, at * ROUNDS + seed, at % 7 if seed % 2 else None)
            cuts += 1
    assert cuts >= 300

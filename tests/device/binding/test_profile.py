# SPDX-License-Identifier: Apache-2.0
"""Profiles of programs: a record for each instruction, over batches, through resets."""

import numpy as np
import pytest

from device.binding import Card
from device.errors import CardGone
from tests.device.binding.images import copy_program

ITEM = 4096


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_one_record_for_each_instruction(card: Card, batch: int) -> None:
    program = card.load_program(copy_program(ITEM, instructions=5))
    source = np.random.default_rng(1).integers(0, 256, (batch, ITEM), np.uint8)
    target = np.zeros_like(source)
    records = program.profile([source], batch, [target], runs=3)
    np.testing.assert_array_equal(target, source)
    assert [record.instruction for record in records] == list(range(5))
    for record in records:
        assert record.code == "map"
        assert record.kernel.startswith("u8-copy-")
        assert (record.macs, record.bytes_read, record.bytes_written) == (0, ITEM, ITEM)
        assert 0 < record.ns < 1e9


def test_times_are_of_one_item_and_add_up(card: Card) -> None:
    program = card.load_program(copy_program(1 << 20, instructions=4))
    source, target = np.zeros((8, 1 << 20), np.uint8), np.empty((8, 1 << 20), np.uint8)
    profiled = sum(record.ns for record in program.profile([source], 8, [target], runs=5))
    plain = min(program.run([source], 8, [target]).compute_ns / 8 for _ in range(5))
    assert plain / 20 < profiled < plain * 20


def test_misuse_and_loss_are_told_as_for_a_run(card: Card) -> None:
    program = card.load_program(copy_program(ITEM))
    source = np.zeros(ITEM, np.uint8)
    with pytest.raises(ValueError, match="runs must be at least 1"):
        program.profile([source], 1, [source.copy()], runs=0)
    with pytest.raises(ValueError, match="takes 4096 bytes"):
        program.profile([source[1:]], 1, [source.copy()])
    card.detach()
    with pytest.raises(CardGone):
        program.profile([source], 1, [source.copy()])

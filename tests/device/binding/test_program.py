# SPDX-License-Identifier: Apache-2.0
"""Programs as objects: runs, misuse, generations, threads, closing while others run."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from device.binding import Card, Program
from device.errors import CardGone, CardTimeout
from tests.device.binding.images import copy_program

ITEM = 96


@pytest.fixture
def program(card: Card) -> Program:
    return card.load_program(copy_program(ITEM))


def items(batch: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (batch, ITEM), np.uint8)


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
def test_outputs_are_written_in_place(program: Program, batch: int) -> None:
    assert program.input_bytes == program.output_bytes == (ITEM,)
    source = items(batch)
    target = np.zeros_like(source)
    timings = program.run([source], batch, [target])
    np.testing.assert_array_equal(target, source)
    assert 0 < timings.compute_ns <= timings.host_ns


def test_inputs_may_be_read_only(program: Program) -> None:
    source = np.frombuffer(items(1).tobytes(), np.uint8)
    target = np.zeros_like(source)
    program.run([source], 1, [target])
    np.testing.assert_array_equal(target, source)


def test_any_dtype_and_shape_of_the_right_size(program: Program) -> None:
    source = np.arange(ITEM // 4, dtype=np.float32).reshape(2, -1)
    target = np.zeros(ITEM // 4, np.float32)
    program.run([source], 1, [target])
    np.testing.assert_array_equal(target, source.ravel())


def _misuse() -> list[Any]:
    fine = items(1)
    return [
        pytest.param([fine], 0, [fine.copy()], "batch must be 1 to", id="no batch"),
        pytest.param([fine], -1, [fine.copy()], "batch must be 1 to", id="negative batch"),
        pytest.param([fine], 2**32, [fine.copy()], "batch must be 1 to", id="huge batch"),
        pytest.param([], 1, [fine.copy()], "got 0 and 1 arrays", id="no input"),
        pytest.param([fine, fine], 1, [], "got 2 and 0 arrays", id="input for output"),
        pytest.param([fine[:, 1:]], 1, [fine.copy()], "contiguous|takes 96 bytes", id="slice"),
        pytest.param([items(2)], 1, [fine.copy()], "input 0 .* takes 96 bytes, got 192", id="size"),
        pytest.param([fine], 1, [items(3)], "output 0 .* takes 96 bytes, got 288", id="out size"),
        pytest.param([items(2)[:, ::2]], 1, [fine.copy()], "contiguous", id="strided"),
        pytest.param([fine], 1, [np.frombuffer(bytes(ITEM), np.uint8)], "writable", id="const"),
    ]


@pytest.mark.parametrize(("inputs", "batch", "outputs", "message"), _misuse())
def test_misuse_is_a_clear_error(
    program: Program, inputs: Any, batch: int, outputs: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        program.run(inputs, batch, outputs)
    source, target = items(1), np.zeros((1, ITEM), np.uint8)
    program.run([source], 1, [target])
    np.testing.assert_array_equal(target, source)


def test_deadline_ends_a_run(program: Program) -> None:
    source = np.zeros((200_000, ITEM), np.uint8)
    with pytest.raises(CardTimeout, match="DEADLINE"):
        program.run([source], len(source), [np.zeros_like(source)], deadline_s=0.001)
    assert program.card.alive
    program.run([items(1)], 1, [items(1)], deadline_s=60)


def test_batch_beyond_dma_memory_or_32_bits(program: Program) -> None:
    big = np.lib.stride_tricks.as_strided(items(1), (1, 1), (0, 0))
    assert big.nbytes == 1
    huge = np.zeros(ITEM * 12_000_000, np.uint8)
    with pytest.raises(Exception, match="out of DMA memory"):
        program.run([huge], 12_000_000, [huge])


def test_program_outlives_a_reset_by_reloading(card: Card, program: Program) -> None:
    source, target = items(1), np.zeros((1, ITEM), np.uint8)
    card.reset()
    assert program.generation != card.generation
    with pytest.raises(CardGone, match="load the program again") as caught:
        program.run([source], 1, [target])
    assert caught.value.fault == "STALE_GENERATION"
    program.reload()
    assert program.generation == card.generation
    program.run([source], 1, [target])
    np.testing.assert_array_equal(target, source)


def test_removal_and_return(card: Card, program: Program) -> None:
    source, target = items(1), np.zeros((1, ITEM), np.uint8)
    card.detach()
    with pytest.raises(CardGone):
        program.run([source], 1, [target])
    with pytest.raises(CardGone):
        program.reload()
    card.attach()
    with pytest.raises(CardGone, match="load the program again"):
        program.run([source], 1, [target])
    program.reload()
    program.run([source], 1, [target])


def test_closed_program_says_so(card: Card, program: Program) -> None:
    free = card.info["memory_free"]
    program.close()
    program.close()
    assert program.closed
    assert card.info["memory_free"] > free  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"the program is closed; load it again"):
        program.run([items(1)], 1, [items(1)])


def test_program_closes_after_its_card(program: Program) -> None:
    program.card.close()
    with pytest.raises(CardGone):
        program.run([items(1)], 1, [items(1)])
    program.close()


def test_threads_share_a_program(program: Program) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        for round_ in range(200):
            batch = 1 + round_ % 4
            source = items(batch, seed * 1000 + round_)
            target = np.zeros_like(source)
            program.run([source], batch, [target])
            if not np.array_equal(source, target):
                wrong.append((seed, round_))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("end", ["program", "card", "removal"])
def test_ending_under_threads_that_run(card: Card, end: str) -> None:
    program = card.load_program(copy_program(ITEM))
    begun = threading.Barrier(4)
    unexpected: list[BaseException] = []

    def work() -> None:
        source, target = items(1), np.zeros((1, ITEM), np.uint8)
        begun.wait()
        try:
            while True:
                program.run([source], 1, [target])
        except CardGone:
            pass
        except ValueError as error:
            if "closed" not in str(error):
                unexpected.append(error)
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    {"program": program.close, "card": card.close, "removal": card.detach}[end]()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert unexpected == []


def test_removal_interrupts_a_long_run(card: Card) -> None:
    program = card.load_program(copy_program(ITEM))
    source = np.ones((400_000, ITEM), np.uint8)
    target = np.zeros_like(source)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                program.run([source], len(source), [target])
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not target.any():
        pass
    card.detach()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(caught[0], CardGone)

# SPDX-License-Identifier: Apache-2.0
"""Asynchronous runs: the card's completion wakes the loop; cancelling, removal, several loops."""

import asyncio
import select
import threading

import numpy as np
import pytest

from device.binding import Card, Program, Timings
from device.errors import CardGone, CardTimeout
from tests.device.binding.images import copy_program

ITEM = 96
LONG = 200_000  # items: tens of milliseconds, so never done inside the doorbell
ENDLESS = 20_000  # items of the slow program: many seconds


@pytest.fixture
def program(card: Card) -> Program:
    return card.load_program(copy_program(ITEM))


@pytest.fixture
def slow(card: Card) -> Program:
    return card.load_program(copy_program(ITEM, instructions=20_000))


def items(batch: int, value: int = 1) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    return np.full((batch, ITEM), value, np.uint8)


async def test_short_run_is_done_at_once(program: Program) -> None:
    source, target = items(1), items(1, 0)
    timings = await program.run_async([source], 1, [target])
    np.testing.assert_array_equal(source, target)
    assert isinstance(timings, Timings) and timings.compute_ns > 0


async def test_loop_turns_while_the_card_computes(program: Program) -> None:
    source, target = items(LONG), items(LONG, 0)
    turns = 0
    task = asyncio.create_task(program.run_async([source], LONG, [target]))
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    await task
    assert turns > 10
    np.testing.assert_array_equal(source, target)


async def test_many_runs_at_once_more_than_the_ring_holds(program: Program) -> None:
    batch = 2000
    sources = [items(batch, value % 251) for value in range(300)]
    targets = [items(batch, 255) for _ in sources]
    await asyncio.gather(
        *(
            program.run_async([source], batch, [target])
            for source, target in zip(sources, targets, strict=True)
        )
    )
    for source, target in zip(sources, targets, strict=True):
        np.testing.assert_array_equal(source, target)


async def test_cancelled_run_is_aborted(program: Program, slow: Program) -> None:
    source, target = items(ENDLESS), items(ENDLESS, 0)
    task = asyncio.create_task(slow.run_async([source], ENDLESS, [target]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    after = items(1, 0)
    await program.run_async([items(1)], 1, [after])
    assert after.all()
    assert not target.any(), "the outputs of a cancelled run stay as they were"


async def test_deadline(slow: Program) -> None:
    source = items(ENDLESS)
    with pytest.raises(CardTimeout, match="DEADLINE"):
        await slow.run_async([source], ENDLESS, [items(ENDLESS)], deadline_s=0.001)


async def test_removal_in_flight(card: Card, program: Program, slow: Program) -> None:
    source = items(ENDLESS)
    tasks = [
        asyncio.create_task(slow.run_async([source], ENDLESS, [items(ENDLESS)])) for _ in range(3)
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(card.detach)
    for task in tasks:
        with pytest.raises(CardGone):
            await task
    with pytest.raises(CardGone):
        await program.run_async([items(1)], 1, [items(1)])
    card.attach()
    program.reload()
    await program.run_async([items(1)], 1, [items(1)])


async def test_hung_card_is_found_out_and_reset(
    card: Card, program: Program, slow: Program
) -> None:
    task = asyncio.create_task(slow.run_async([items(ENDLESS)], ENDLESS, [items(ENDLESS)]))
    await asyncio.sleep(0)
    card.inject("HANG")
    with pytest.raises(Exception, match="HANG"):
        await task
    assert card.alive
    program.reload()
    await program.run_async([items(1)], 1, [items(1)])


async def test_close_ends_what_is_pending(card: Card, slow: Program) -> None:
    task = asyncio.create_task(slow.run_async([items(ENDLESS)], ENDLESS, [items(ENDLESS)]))
    await asyncio.sleep(0)
    card.close()
    with pytest.raises(CardGone):
        await task


def test_several_loops_share_a_card(program: Program) -> None:
    failures: list[BaseException] = []

    async def work() -> None:
        for batch in (1, 3000, 1, 20_000):
            source, target = items(batch), items(batch, 0)
            await program.run_async([source], batch, [target])
            np.testing.assert_array_equal(source, target)

    def thread() -> None:
        try:
            for _ in range(5):
                asyncio.run(work())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []


async def test_completion_fd_is_readable_when_a_run_is_done(card: Card, program: Program) -> None:
    task = asyncio.create_task(program.run_async([items(LONG)], LONG, [items(LONG)]))
    await asyncio.sleep(0)
    # Not awaited: the loop, which watches the same descriptor, must not take the event.
    readable, _, _ = select.select([card.completion_fd], [], [], 30)
    assert readable == [card.completion_fd]
    await task

# SPDX-License-Identifier: Apache-2.0
"""The line before a model."""

import asyncio

import pytest

from edge_server.gate import Gate
from edge_server.status import RequestError


async def test_places_are_handed_on_in_order_of_arrival() -> None:
    gate = Gate(1, 10)
    await gate.enter(None)
    order: list[int] = []

    async def visitor(number: int) -> None:
        await gate.enter(None)
        order.append(number)
        gate.leave()

    tasks = [asyncio.create_task(visitor(n)) for n in range(5)]
    await asyncio.sleep(0)
    assert gate.waiting == 5 and not gate.idle
    gate.leave()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4] and gate.idle


async def test_those_who_leave_the_line_do_not_hold_it_up() -> None:
    gate = Gate(1, 10)
    await gate.enter(None)
    first, second = (asyncio.create_task(gate.enter(None)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert gate.waiting == 1
    gate.leave()
    await second
    gate.leave()
    assert gate.idle


async def test_a_turn_that_comes_with_a_cancellation_is_passed_on() -> None:
    gate = Gate(1, 10)
    await gate.enter(None)
    first, second = (asyncio.create_task(gate.enter(None)) for _ in range(2))
    await asyncio.sleep(0)
    gate.leave()  # first's turn, before it can run
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await second
    gate.leave()
    assert gate.idle and gate.waiting == 0


async def test_a_full_line_and_a_time_that_is_up() -> None:
    gate = Gate(1, 1)
    await gate.enter(None)
    waiting = asyncio.create_task(gate.enter(0.001))
    await asyncio.sleep(0)
    with pytest.raises(RequestError, match="Exceeds maximum queue size"):
        await gate.enter(None)
    with pytest.raises(RequestError, match="Request timeout expired"):
        await waiting
    gate.leave()
    assert gate.idle

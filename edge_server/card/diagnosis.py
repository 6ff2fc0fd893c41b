# SPDX-License-Identifier: Apache-2.0
"""Is the card in order? Looks at it, asks it what it must know, and resets it, as far as wanted."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from device.errors import CardError
from edge_server.card.link import CardLink
from edge_server.card.states import CardState
from edge_server.engines.card import CardLike, NotCompilable
from edge_server.served import ServedVersion, Slot

PINGS: Final = 101
BEAT_SECONDS: Final = 0.1
SLOW_US: Final = 1000.0
"""A round trip slower than this, in the median, is a finding."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str
    remedy: str = ""


async def diagnose(link: CardLink, served: Sequence[ServedVersion], level: int) -> list[Check]:
    """All checks up to `level`; see the service. Requests go on meanwhile, but for level 3."""
    found = [_state(link)]
    card = link.handle
    if card is None:
        return found
    looks: list[tuple[str, Callable[[CardLike], Awaitable[Check]]]] = [
        ("registers", _registers),
        ("heartbeat", _heartbeat),
        ("fault log", _fault_log),
        ("round trip", _round_trip),
    ]
    for name, look in looks:
        try:
            found.append(await look(card))
        except CardError as error:
            found.append(Check(name, False, str(error), error.remedy))
    if level >= 2:
        found += [await _answers(each) for each in served]
    if level >= 3:
        found.append(await _reset(link))
    return found


def _state(link: CardLink) -> Check:
    ready = link.state is CardState.READY
    why = "" if ready else f": {link.absent.detail}"
    return Check("state", ready, f"{link.state}{why}", "" if ready else "see docs/card-states.md")


async def _registers(card: CardLike) -> Check:
    info = await asyncio.to_thread(lambda: card.info)
    memory, free = (int(info.get(name, 0)) >> 20 for name in ("memory", "memory_free"))
    detail = f"{info.get('isa')}, {info.get('workers')} workers, {free} of {memory} MiB free"
    return Check("registers", True, detail)


async def _heartbeat(card: CardLike) -> Check:
    before = await asyncio.to_thread(lambda: card.heartbeat)
    await asyncio.sleep(BEAT_SECONDS)
    grown = await asyncio.to_thread(lambda: card.heartbeat) - before
    detail = f"grew by {grown} in {BEAT_SECONDS * 1000:.0f} ms"
    return Check("heartbeat", grown > 0, detail, "" if grown else "tepi card reset")


async def _fault_log(card: CardLike) -> Check:
    from device.binding.faults import FAULTS

    entries = await asyncio.to_thread(card.faults)
    severe = [e for e in entries if e.code in FAULTS and FAULTS[e.code].severity == "FATAL"]
    names = ", ".join(sorted({entry.fault for entry in severe}))
    detail = f"{len(entries)} entries, {len(severe)} of them fatal{': ' if names else ''}{names}"
    remedy = FAULTS[severe[-1].code].remedy if severe else ""
    return Check("fault log", not severe, detail, remedy)


async def _round_trip(card: CardLike) -> Check:
    def ping() -> float:
        taken = []
        for _ in range(PINGS):
            start = time.perf_counter_ns()
            card.ping()
            taken.append(time.perf_counter_ns() - start)
        return statistics.median(taken) / 1e3

    us = await asyncio.to_thread(ping)
    passed = us <= SLOW_US
    remedy = "" if passed else "see what else uses the host's processors"
    return Check("round trip", passed, f"{us:.1f} us, median of {PINGS} empty commands", remedy)


async def _answers(served: ServedVersion) -> Check:
    name = f"answers of {served.name}/{served.version}"
    slot: Slot | None = served.route.slot if served.on_card else None
    if slot is None:
        return Check(name, True, f"not on the card: {served.route.detail}")
    slot.enter()
    try:
        wrong = await asyncio.to_thread(partial(served.probes.check, slot.engine))
    except (CardError, NotCompilable) as error:
        return Check(name, False, str(error), getattr(error, "remedy", ""))
    finally:
        slot.leave()
    return Check(name, not wrong, wrong or "as onnxruntime's", "tepi card reset" if wrong else "")


async def _reset(link: CardLink) -> Check:
    start = time.perf_counter()
    try:
        await link.reset()
    except CardError as error:
        return Check("reset", False, str(error), error.remedy)
    seconds = time.perf_counter() - start
    return Check("reset", True, f"reset, loaded and through probation in {seconds:.2f} s")

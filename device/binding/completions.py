# SPDX-License-Identifier: Apache-2.0
"""Runs for event loops: the card's completion fills a future.

A run that the card did inside the doorbell write is collected at once and never touches the loop.
Otherwise the loop watches the card's eventfd for as long as runs are out, and looks now and then
whether one is overdue: a card that has gone sends no completions.
"""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from device.binding._card import ffi, lib
from device.binding.faults import outcome

if TYPE_CHECKING:
    from device.binding._card import CData
    from device.binding.program import Array, Frame, Program, Timings

_NS = 1_000_000_000
_cast = ffi.cast
_COLLECT_MOST = 64
_LOOK_S = 0.05
_DEFAULT_S = 120.0
_GRACE_S = 1.0


class _Pending:
    """A run that the card has not ended. Holds the arrays that C reads and writes."""

    __slots__ = ("aborted", "discard", "expires", "future", "keep", "loop", "program", "run")

    def __init__(
        self,
        program: Program,
        run: CData,
        keep: object,
        loop: asyncio.AbstractEventLoop,
        expires: float,
    ) -> None:
        self.program = program
        self.run = run
        self.keep = keep
        self.loop = loop
        self.future: asyncio.Future[Timings] = loop.create_future()
        self.expires = expires
        self.aborted = False
        self.discard = False

    def settle(self, timings: Timings, error: Exception | None) -> None:
        """On the future's own loop."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(timings)
        else:
            self.future.set_exception(error)


class Completions:
    """The asynchronous side of one card. Runs may come from several event loops."""

    def __init__(self, card: CData, clock: Callable[[], float] = time.monotonic) -> None:
        self._card: CData | None = card
        self._clock = clock
        self._pending: dict[int, _Pending] = {}
        # A run must be in _pending before any thread can collect it.
        self._lock = threading.Lock()
        self._ended = ffi.new("struct tepi_ended[]", _COLLECT_MOST)
        self._frames: list[Frame] = []
        self._watching: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}

    async def run(
        self,
        program: Program,
        inputs: Sequence[Array],
        batch: int,
        outputs: Sequence[Array],
        deadline_s: float | None,
    ) -> Timings:
        """See Program.run_async."""
        loop = asyncio.get_running_loop()
        pending = self._start(program, inputs, batch, outputs, deadline_s, loop)
        while pending is None:  # the ring is full: a completion makes room
            await asyncio.sleep(0)
            self.collect()
            pending = self._start(program, inputs, batch, outputs, deadline_s, loop)
        self.collect()
        if not pending.future.done():
            self._watch(loop)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._abort(pending)
            raise

    def _start(
        self,
        program: Program,
        inputs: Sequence[Array],
        batch: int,
        outputs: Sequence[Array],
        deadline_s: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> _Pending | None:
        handle = program.handle()
        frame = program.frame()
        views = program.point(frame.ports, inputs, batch, outputs)
        deadline = 0 if deadline_s is None else max(1, int(deadline_s * _NS))
        limit = _DEFAULT_S if deadline_s is None else deadline_s + _GRACE_S
        with self._lock:
            result = lib.tepi_held_start(
                handle, frame.ports, batch, deadline, frame.run, frame.failure
            )
            if result == 0:
                run = frame.run[0]
                pending = _Pending(program, run, (handle, views), loop, self._clock() + limit)
                self._pending[int(_cast("uintptr_t", run))] = pending
        program.frames.append(frame)
        if result == -errno.EAGAIN:
            return None
        if result:
            raise outcome("running a program", result, frame.failure)
        return pending

    def _abort(self, pending: _Pending) -> None:
        with self._lock:
            pending.discard = True
            if int(_cast("uintptr_t", pending.run)) in self._pending and not pending.aborted:
                pending.aborted = True
                lib.tepi_held_abort(pending.run)

    def collect(self) -> int:
        """Settle every run that the card has ended; returns how many. From any thread."""
        from device.binding.program import Frame

        card = self._card
        if card is None or not self._pending:
            return 0
        total = 0
        with self._lock:
            while True:
                count = lib.tepi_slot_collect(card, self._ended, _COLLECT_MOST)
                for i in range(count):
                    frame = self._frames.pop() if self._frames else Frame(0)
                    self._end(self._ended[i], frame)
                    self._frames.append(frame)
                total += count
                if count < _COLLECT_MOST:
                    return total

    def _end(self, ended: CData, frame: Frame) -> None:
        pending = self._pending.pop(int(_cast("uintptr_t", ended.run)))
        result = lib.tepi_held_end(
            ffi.addressof(ended), pending.discard, frame.timings, frame.failure
        )
        error = outcome("running a program", result, frame.failure) if result else None
        timings = frame.read_timings()
        if pending.loop is _running_loop():
            pending.settle(timings, error)
        elif not pending.loop.is_closed():
            pending.loop.call_soon_threadsafe(pending.settle, timings, error)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        card = self._card
        if loop not in self._watching and card is not None:
            loop.add_reader(lib.tepi_slot_eventfd(card), self._wake, loop)
            self._watching[loop] = loop.call_later(_LOOK_S, self._look, loop)

    def _unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        timer = self._watching.pop(loop, None)
        if timer is not None and self._card is not None:
            timer.cancel()
            loop.remove_reader(lib.tepi_slot_eventfd(self._card))

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self.collect()
        if not any(pending.loop is loop for pending in list(self._pending.values())):
            self._unwatch(loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Every now and then, while runs are out."""
        if loop not in self._watching:
            return
        self.collect()
        self.expire()
        if any(pending.loop is loop for pending in list(self._pending.values())):
            self._watching[loop] = loop.call_later(_LOOK_S, self._look, loop)
        else:
            self._unwatch(loop)

    def expire(self) -> None:
        """Abort runs that are overdue; declare the card hung where it did not obey."""
        now = self._clock()
        for pending in list(self._pending.values()):
            if now < pending.expires:
                continue
            pending.expires = now + _GRACE_S
            if not pending.aborted:
                with self._lock:
                    pending.aborted = True
                    lib.tepi_held_abort(pending.run)
            else:
                lib.tepi_held_expire(pending.program.handle(), pending.run)
                self.collect()
                return

    def shut(self) -> None:
        """The card is closed: everything pending has ended with GONE."""
        self.collect()
        for loop in list(self._watching):
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._unwatch, loop)


def _running_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

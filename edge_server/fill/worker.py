# SPDX-License-Identifier: Apache-2.0
"""Gets one blob into the store, in a thread of its own: chooses the way, takes turns over the
sources, goes on where it was, and believes nothing before the digest is right."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_server.fill.blocks import CheckedBlocks, copy_block
from edge_server.fill.choose import DeltaWant, Kind, Way, choose
from edge_server.fill.errors import FillFailed, RangeIgnored, Stopped
from edge_server.fill.fill import Fill, Want
from edge_server.fill.origins import Origins
from edge_server.fill.peers import Peers
from edge_server.fill.plan import Away, BlockPlan, Here
from edge_server.fill.receive import EDGE, Drip, Limits, Receiver, Span, ask
from edge_server.fill.source import Answer, Interruptible, Place
from edge_server.fill.turns import Patience, Turns
from edge_server.fill.window import ALWAYS, Windows
from edge_server.store.errors import BlobPresent, StoreError
from edge_server.store.partial import Partial
from edge_server.store.store import Store
from registry.delta.apply import apply_delta
from registry.errors import RegistryError, WrongDigest
from registry.remote.errors import BadAnswer, RemoteError

CHEAP = 1 << 20  # bytes that are rather skipped than asked for elsewhere
_LOOK = 60.0  # seconds after which a closed window is looked at again: the clock may jump


Nested = Callable[[Want, threading.Event], Path]


@dataclass(frozen=True, slots=True)
class House:
    """What all fills of a node share."""

    store: Store
    origins: Origins
    peers: Peers = field(default_factory=Peers)
    limits: Limits = field(default_factory=Limits)
    windows: Windows = ALWAYS
    patience: Patience = field(default_factory=Patience)
    rng: random.Random = field(default_factory=random.Random)


class Worker:
    """Of one fill. `nested` fills another blob before this one goes on."""

    def __init__(self, fill: Fill, house: House, nested: Nested) -> None:
        self._fill = fill
        self._want = fill.want
        self._house = house
        self._nested = nested
        self._turns = Turns(
            fill.digest,
            house.origins,
            house.peers,
            house.patience,
            house.limits.time,
            house.rng,
            fill.stop,
        )
        self._place: Place | None = None  # who gives bytes now
        self._opened: tuple[Place, Answer] | None = None  # asked to learn the size, not yet read
        self._unverified: set[Place] = set()  # gave bytes that only the whole's digest can check
        self._deltas = list(self._want.deltas)
        self._plan: BlockPlan | None = None
        self._receiver = Receiver(house.limits, fill.stop, self._pausing, self._received)

    def run(self, leave: Callable[[], None]) -> None:
        """Fill, and tell the Fill how it ended; just before that, `leave`."""
        fill = self._fill
        try:
            path = self._get()
        except RegistryError as error:
            leave()
            fill.failed(error)
        except BaseException as error:
            leave()
            fill.failed(FillFailed(fill.digest, f"a defect ended the fill: {error!r}", {}))
            raise
        else:
            leave()
            fill.finished(path)
        finally:
            if self._opened is not None:
                self._opened[1].close()

    def _get(self) -> Path:
        store, fill = self._house.store, self._fill
        if fill.after is not None:
            fill.after.ended.wait()
            fill.after = None
        self._plan = self._plan_blocks()
        while True:
            path = store.path(fill.digest)
            if path is not None:
                fill.size = path.stat().st_size
                return path
            size = self._learn_size()
            try:
                partial = store.partial(fill.digest, size)
            except BlobPresent:
                continue
            with partial:
                fill.arriving(partial, size)
                path = self._by_the_best_way(partial)
                if path is not None:
                    return path
                fill.arriving(None, self._want.size)  # what was learnt may have been a lie

    def _by_the_best_way(self, partial: Partial) -> Path | None:
        """Where the blob is now; None: something was found out that makes another way the
        best."""
        way = self._ways(partial)[0]
        try:
            if way.delta is not None:
                if not self._by_delta(way.delta, partial):
                    return None
            else:
                self._transfer(partial, self._plan if way.kind is Kind.BLOCKS else None)
            return partial.commit()
        except WrongDigest:
            self._wrong(way, partial.resumed)
            return None

    def _wrong(self, way: Way, resumed: int) -> None:
        """All bytes are there, and are not the blob's. Each time something is given up: a delta, a
        peer, an origin's good name, the `resumed` bytes of an earlier run, the index; so this
        ends."""
        liars, self._unverified = self._unverified, set()
        if way.delta is not None:
            self._deltas.remove(way.delta)
        elif liars:
            self._turns.lied(liars)
        elif not resumed:
            self._plan = None  # whose blocks all prove themselves, and make another blob

    # Ways

    def _ways(self, partial: Partial) -> list[Way]:
        store = self._house.store
        missing = self._plan.missing(partial.offset) if self._plan else None
        deltas = [
            (delta, 0 if store.path(delta.digest) else delta.size)
            for delta in self._deltas
            if store.path(delta.base)
        ]
        untrusted = len(self._house.peers) > 0
        return choose(partial.size - partial.offset, missing, deltas, untrusted=untrusted)

    def _plan_blocks(self) -> BlockPlan | None:
        index, store = self._want.index, self._house.store
        if index is None or index.digest != self._want.digest:
            return None
        holders = [holder for holder in self._want.holders if store.path(holder.digest)]
        if store.quarantined(index.digest):
            holders.append(index)  # most of a damaged blob is good
        return BlockPlan(index, holders)

    def _by_delta(self, delta: DeltaWant, partial: Partial) -> bool:
        """Whether the delta gave bytes enough; else it is given up, with what it wrote."""
        before = partial.offset
        done = 0

        def write(part: bytes | memoryview) -> None:
            nonlocal done
            if self._fill.stop.is_set():
                raise _stopped(self._fill.digest)
            new = memoryview(part)[max(0, partial.offset - done) :]
            done += len(part)
            partial.write(new)
            self._fill.told("delta", len(new))

        try:
            want = Want(self._want.name, delta.digest, delta.size, self._fill.urgent)
            found = self._nested(want, self._fill.stop)
            base = self._house.store.path(delta.base)
            if base is not None:
                apply_delta(found, base, write)
        except (Stopped, StoreError):
            raise
        except (RegistryError, OSError) as error:
            self._fill.notes.append(f"delta {delta.digest} was no use: {error}")
        if partial.offset == partial.size:
            return True
        self._deltas.remove(delta)
        if partial.offset > before:
            partial.discard()
        return False

    def _transfer(self, partial: Partial, plan: BlockPlan | None) -> None:
        """Bring the partial to its size. Raises FillFailed, Stopped and what the store raises."""
        self._turns.rested()
        while partial.offset < partial.size:
            if self._pausing():
                partial.sync()
                self._wait_for_window()
            step = plan.at(partial.offset) if plan is not None else None
            if isinstance(step, Here):
                self._copy(step, partial, plan)
                continue
            place = self._turns.next()
            if place in self._turns.rangeless:
                step = plan = None  # it sends the whole anyway
            self._try(place, partial, step)

    def _copy(self, here: Here, partial: Partial, plan: BlockPlan | None) -> None:
        store = self._house.store
        holder = store.path(here.holder) or store.quarantined(here.holder)
        before = partial.offset
        if holder is not None and copy_block(here, holder, partial):
            self._fill.told("local", partial.offset - before)
        elif plan is not None:
            plan.drop(here.holder, here.block)

    def _try(self, place: Place, partial: Partial, step: Away | None) -> None:
        """One request to one source."""
        before = partial.offset
        self._place = place
        try:
            complete = self._receive(place, partial, step)
        except RemoteError as error:
            self._turns.moved(partial.offset - before)
            self._turns.failed(place, error)
        else:
            self._turns.moved(partial.offset - before)
            if complete:
                self._turns.succeeded(place)
        finally:
            if step is None and partial.offset > before:
                self._unverified.add(place)

    def _receive(self, place: Place, partial: Partial, step: Away | None) -> bool:
        """Whether all that was asked for came; else a window closed."""
        sink: Straight | CheckedBlocks
        if step is None:
            sink, end = Straight(partial), partial.size
        else:
            sink, end = CheckedBlocks(partial, step.blocks), step.end
        span = Span(self._want.name, self._fill.digest, sink.offset, end, partial.size)
        answer, before = self._ask(place, span, partial)
        with self._interruptible(answer):
            limits = self._house.limits
            drip = Drip(limits.least_rate, limits.over)
            if before:
                self._skip(place, answer, before, partial, drip)
            return self._receiver.take(answer, end, sink, drip)

    @contextmanager
    def _interruptible(self, answer: Answer) -> Iterator[None]:
        """Closes the answer at the end, and ends it early when the fill is to stop."""
        fill = self._fill
        try:
            if isinstance(answer, Interruptible):
                fill.interrupts(answer.interrupt)
            if fill.stop.is_set():
                raise _stopped(fill.digest)
            yield
        except RemoteError:
            if fill.stop.is_set():
                raise _stopped(fill.digest) from None
            raise
        finally:
            fill.interrupts(None)
            answer.close()

    def _ask(self, place: Place, span: Span, partial: Partial) -> tuple[Answer, int]:
        opened, self._opened = self._opened, None
        if opened is not None:
            if opened[0] is place and span.first == 0:
                return opened[1], 0
            opened[1].close()
        answer, before = ask(place.remote, span, partial.etags.get(place.name, ""))
        if answer.etag:
            partial.set_etag(place.name, answer.etag)
        return answer, before

    def _skip(self, place: Place, answer: Answer, count: int, partial: Partial, drip: Drip) -> None:
        """The source ignores ranges. Another may not; else read what is here already once more,
        and compare it."""
        turns = self._turns
        if count > CHEAP and place not in turns.rangeless and turns.others(place):
            raise RangeIgnored("it sends the whole blob where a range is asked for")
        turns.rangeless.add(place)
        self._receiver.skip(answer, count, partial.pread, drip)

    # What a fill waits for

    def _learn_size(self) -> int:
        """The blob's size in bytes; where it is not known, from the first source that says."""
        while self._fill.size is None:
            self._wait_for_window()
            place = self._turns.next(peers=False)  # room is made for what is said here
            span = Span(self._want.name, self._fill.digest, 0, None, None)
            try:
                answer, _ = ask(place.remote, span)
                if answer.total is None:
                    answer.close()
                    raise BadAnswer("it does not say how large the blob is")
            except RemoteError as error:
                self._turns.failed(place, error)
                continue
            self._opened = (place, answer)
            return answer.total
        return self._fill.size

    def _pausing(self) -> bool:
        house = self._house
        return not self._fill.urgent and not house.windows.is_open(house.limits.time.wall())

    def _wait_for_window(self) -> None:
        time, fill = self._house.limits.time, self._fill
        while self._pausing() and not fill.stop.is_set():
            fill.waiting = "window"
            time.wait(fill.wake, min(_LOOK, self._house.windows.opens_in(time.wall())))
        fill.waiting = ""
        self._turns.rested()
        if fill.stop.is_set():
            raise _stopped(fill.digest)

    def _received(self, count: int) -> None:
        if self._place is not None:
            self._turns.received(self._place, count)
            self._fill.told(self._place.label, count)


class Straight:
    """The store's partial as a sink of its own, its edges at even offsets."""

    def __init__(self, partial: Partial) -> None:
        self.buffer = partial.buffer
        self.advance = partial.advance
        self._partial = partial

    @property
    def offset(self) -> int:
        """Where in the blob the next byte goes."""
        return self._partial.offset

    def to_edge(self) -> int:
        """Bytes up to where a pause is well placed."""
        return -self._partial.offset % EDGE


def _stopped(digest: str) -> Stopped:
    return Stopped(f"{digest}: the fill was stopped", "start it again: it goes on where it was")

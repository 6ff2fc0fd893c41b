# SPDX-License-Identifier: Apache-2.0
"""A program on the card: load, run, reload after a reset, close."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Sequence
from struct import Struct
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from device.binding import abi
from device.binding._card import ffi, lib
from device.binding.faults import outcome

if TYPE_CHECKING:
    from device.binding._card import CData
    from device.binding.card import Card

Array = npt.NDArray[Any]

_NS = 1_000_000_000
_BATCH_MAX = 2**32 - 1
_BYTES = ffi.typeof("char[]")
_from_buffer = ffi.from_buffer
_run = lib.tepi_held_run
_unpack_timings = Struct("=5Q").unpack
assert ffi.sizeof("struct tepi_timings") == 40


class Timings(NamedTuple):
    """Where the time of a run went, nanoseconds; all but the last are the card's own account.

    `queue_ns`: doorbell to start. `copy_in_ns`, `compute_ns`, `copy_out_ns`: on the card.
    `host_ns`: the whole run as the host saw it, with its copies to and from DMA memory.
    """

    queue_ns: int
    copy_in_ns: int
    compute_ns: int
    copy_out_ns: int
    host_ns: int


class Record(NamedTuple):
    """One instruction of a profiled program: struct tepi_profile_record with medians of its times.

    `instruction` is its place in the program, `code` its name in abi.CODES, `node` the number of
    the model's node it came from (abi.NONE: none). `macs`, bytes and `ns` are of one item.
    """

    instruction: int
    code: str
    node: int
    kernel: str
    macs: int
    bytes_read: int
    bytes_written: int
    ns: float


class Frame:
    """The C structures of one call, kept for the next one."""

    __slots__ = ("_timing_words", "failure", "ports", "run", "timings")

    def __init__(self, ports: int) -> None:
        self.ports = ffi.new("void *[]", max(ports, 1))
        self.timings = ffi.new("struct tepi_timings *")
        self._timing_words = ffi.buffer(self.timings)
        self.failure = ffi.new("struct tepi_failure *")
        self.run = ffi.new("struct tepi_run **")

    def read_timings(self) -> Timings:
        """The timings that C left here."""
        return Timings._make(_unpack_timings(self._timing_words))


class Program:
    """A loaded program; made by Card.load_program. Safe to run from several threads at once.

    `input_bytes` and `output_bytes` are the sizes of each port for one item. After the card was
    reset or replaced every run raises CardGone until `reload`.
    """

    def __init__(self, card: Card, handle: CData, image: bytes | mmap.mmap) -> None:
        self.card = card
        self._image = image
        self._handle: CData | None = ffi.gc(handle, lib.tepi_held_release)
        self._lock = threading.Lock()
        inputs = lib.tepi_held_inputs(handle)
        count = inputs + lib.tepi_held_outputs(handle)
        sizes = tuple(lib.tepi_held_port_bytes(handle, port) for port in range(count))
        self.input_bytes: tuple[int, ...] = sizes[:inputs]
        self.output_bytes: tuple[int, ...] = sizes[inputs:]
        self._item_bytes = list(sizes)
        self.frames: list[Frame] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unload the program and free its buffers, once runs in progress are done. Never raises."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            lib.tepi_held_unload(handle)

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._handle is None

    @property
    def generation(self) -> int:
        """The card.generation that the program was loaded in; runs need it to be the current."""
        return lib.tepi_held_epoch(self.handle())

    def reload(self) -> None:
        """Load the program again after a reset; nothing to do where it is still loaded.

        Raises CardGone where the card is not there, CardFull where it has no room.
        """
        failure = ffi.new("struct tepi_failure *")
        image = self._image
        file = isinstance(image, mmap.mmap)
        source = _from_buffer(image)
        result = lib.tepi_held_reload(self.handle(), source, len(image), file, failure)
        if result:
            raise outcome("loading the program again", result, failure)

    def run(
        self,
        inputs: Sequence[Array],
        batch: int,
        outputs: Sequence[Array],
        deadline_s: float | None = None,
    ) -> Timings:
        """Run `batch` items and wait. Arrays are C-contiguous and hold `batch` items each, one
        after the other, in the order of the ports; `outputs` are written in place.

        Raises CardTimeout past `deadline_s` seconds from now, CardGone, CardFull or CardFault;
        ValueError where the arrays do not fit the program.
        """
        handle = self._handle or self.handle()
        frame = self.frame()
        # The views keep the arrays' memory in place until C is done with it.
        views = self.point(frame.ports, inputs, batch, outputs)
        deadline = 0 if deadline_s is None else max(1, int(deadline_s * _NS))
        result = _run(handle, frame.ports, batch, deadline, frame.timings, frame.failure)
        del views
        if result:
            raise outcome("running a program", result, frame.failure)
        timings = frame.read_timings()
        self.frames.append(frame)
        return timings

    def profile(
        self, inputs: Sequence[Array], batch: int, outputs: Sequence[Array], runs: int = 1
    ) -> list[Record]:
        """As run, `runs` times over, with the card timing each instruction; medians of the runs.

        Timing itself adds some 50 ns to each instruction. Raises as run.
        """
        if runs < 1:
            raise ValueError(f"runs must be at least 1, got {runs}")
        handle = self.handle()
        count = int(np.frombuffer(self._image, abi.HEADER, 1)["instructions"][0])
        records = ffi.new("struct tepi_profile_record[]", count)
        frame = self.frame()
        views = self.point(frame.ports, inputs, batch, outputs)
        taken = np.zeros((runs, count), np.uint64)
        for run in range(runs):
            result = lib.tepi_held_profile(
                handle, frame.ports, batch, records, count, frame.timings, frame.failure
            )
            if result:
                raise outcome("profiling a program", result, frame.failure)
            taken[run] = [records[i].elapsed_ns for i in range(count)]
        del views
        self.frames.append(frame)
        medians = np.median(taken, axis=0) / batch
        return [_record(records[i], float(ns)) for i, ns in enumerate(medians)]

    async def run_async(
        self,
        inputs: Sequence[Array],
        batch: int,
        outputs: Sequence[Array],
        deadline_s: float | None = None,
    ) -> Timings:
        """As run, without blocking the event loop: the card's completion wakes it.

        Cancelling aborts the run on the card; `outputs` are then not written any more.
        """
        return await self.card.completions.run(self, inputs, batch, outputs, deadline_s)

    def handle(self) -> CData:
        """The C object, for the binding's own use. Raises ValueError after close()."""
        handle = self._handle
        if handle is None:
            raise ValueError("the program is closed; load it again with Card.load_program")
        return handle

    def frame(self) -> Frame:
        """A frame of this program's size; the caller puts it back into `frames`."""
        try:
            return self.frames.pop()
        except IndexError:
            return Frame(len(self._item_bytes))

    def point(
        self, ports: CData, inputs: Sequence[Array], batch: int, outputs: Sequence[Array]
    ) -> list[CData]:
        """Writes the arrays' addresses into `ports`; the views returned keep them valid."""
        try:
            views = [*map(_from_buffer, inputs)]
            for output in outputs:
                views.append(_from_buffer(_BYTES, output, True))
        except (BufferError, TypeError, ValueError) as error:
            raise ValueError(
                f"an input or output of the program: {error}; "
                "pass C-contiguous arrays, writable for outputs"
            ) from None
        wanted = self._item_bytes
        if batch != 1:
            if not 0 < batch <= _BATCH_MAX:
                raise ValueError(f"batch must be 1 to {_BATCH_MAX}, got {batch}")
            wanted = [size * batch for size in wanted]
        if [*map(len, views)] != wanted or len(inputs) != len(self.input_bytes):
            raise self._misfit(inputs, outputs, wanted)
        ports[0 : len(wanted)] = views
        return views

    def _misfit(
        self, inputs: Sequence[Array], outputs: Sequence[Array], wanted: list[int]
    ) -> ValueError:
        if len(inputs) != len(self.input_bytes) or len(outputs) != len(self.output_bytes):
            return ValueError(
                f"the program has {len(self.input_bytes)} inputs and {len(self.output_bytes)} "
                f"outputs, got {len(inputs)} and {len(outputs)} arrays"
            )
        names = [f"input {i}" for i in range(len(inputs))]
        names += [f"output {i}" for i in range(len(outputs))]
        name, array, size = next(
            row
            for row in zip(names, (*inputs, *outputs), wanted, strict=True)
            if row[1].nbytes != row[2]
        )
        return ValueError(
            f"{name} of the program takes {size} bytes, got {array.nbytes} "
            f"({array.dtype} {list(array.shape)})"
        )


_CODES = {number: name for name, number in abi.CODES.items()}


def _record(row: CData, ns: float) -> Record:
    kernel = ffi.string(row.kernel)
    assert isinstance(kernel, bytes)
    return Record(
        row.instruction,
        _CODES[row.code],
        row.node,
        kernel.decode(),
        row.macs,
        row.bytes_read,
        row.bytes_written,
        ns,
    )

# SPDX-License-Identifier: Apache-2.0
"""A program on the card: load, run, reload after a reset, close."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy.typing as npt

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


class Frame:
    """The C structures of one call, kept for the next one."""

    __slots__ = ("failure", "ports", "run", "timings")

    def __init__(self, ports: int) -> None:
        self.ports = ffi.new("void *[]", max(ports, 1))
        self.timings = ffi.new("struct tepi_timings *")
        self.failure = ffi.new("struct tepi_failure *")
        self.run = ffi.new("struct tepi_run **")

    def read_timings(self) -> Timings:
        """The timings that C left here."""
        t = self.timings
        return Timings(t.queue_ns, t.copy_in_ns, t.compute_ns, t.copy_out_ns, t.host_ns)


class Program:
    """A loaded program; made by Card.load_program. Safe to run from several threads at once.

    `input_bytes` and `output_bytes` are the sizes of each port for one item. After the card was
    reset or replaced every run raises CardGone until `reload`.
    """

    def __init__(self, card: Card, handle: CData, image: bytes) -> None:
        self.card = card
        self._image = image
        self._handle: CData | None = ffi.gc(handle, lib.tepi_held_release)
        self._lock = threading.Lock()
        inputs = lib.tepi_held_inputs(handle)
        count = inputs + lib.tepi_held_outputs(handle)
        sizes = tuple(lib.tepi_held_port_bytes(handle, port) for port in range(count))
        self.input_bytes: tuple[int, ...] = sizes[:inputs]
        self.output_bytes: tuple[int, ...] = sizes[inputs:]
        self._frames: list[Frame] = []

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
        result = lib.tepi_held_reload(self.handle(), _from_buffer(image), len(image), failure)
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
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = Frame(len(self.input_bytes) + len(self.output_bytes))
        # The views keep the arrays' memory in place until C is done with it.
        views = self.point(frame.ports, inputs, batch, outputs)
        deadline = 0 if deadline_s is None else max(1, int(deadline_s * _NS))
        result = _run(handle, frame.ports, batch, deadline, frame.timings, frame.failure)
        del views
        if result:
            raise outcome("running a program", result, frame.failure)
        timings = frame.read_timings()
        self._frames.append(frame)
        return timings

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

    def point(
        self, ports: CData, inputs: Sequence[Array], batch: int, outputs: Sequence[Array]
    ) -> list[CData]:
        """Writes the arrays' addresses into `ports`; the views returned keep them valid."""
        if not 0 < batch <= _BATCH_MAX:
            raise ValueError(f"batch must be 1 to {_BATCH_MAX}, got {batch}")
        if len(inputs) != len(self.input_bytes) or len(outputs) != len(self.output_bytes):
            raise ValueError(
                f"the program has {len(self.input_bytes)} inputs and {len(self.output_bytes)} "
                f"outputs, got {len(inputs)} and {len(outputs)} arrays"
            )
        views = []
        at = 0
        try:
            for array, size in zip(inputs, self.input_bytes, strict=True):
                if array.nbytes != size * batch:
                    raise self._misfit("input", at, array, size * batch)
                view = _from_buffer(array)
                ports[at] = view
                views.append(view)
                at += 1
            for array, size in zip(outputs, self.output_bytes, strict=True):
                if array.nbytes != size * batch:
                    raise self._misfit("output", at - len(inputs), array, size * batch)
                view = _from_buffer(_BYTES, array, True)
                ports[at] = view
                views.append(view)
                at += 1
        except (BufferError, TypeError) as error:
            raise ValueError(
                f"array {at} of the program's inputs and outputs: {error}; "
                "pass C-contiguous arrays, writable for outputs"
            ) from None
        return views

    @staticmethod
    def _misfit(kind: str, index: int, array: Array, wanted: int) -> ValueError:
        return ValueError(
            f"{kind} {index} of the program takes {wanted} bytes, got {array.nbytes} "
            f"({array.dtype} {list(array.shape)})"
        )

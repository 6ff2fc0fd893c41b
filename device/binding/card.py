# SPDX-License-Identifier: Apache-2.0
"""The card: open, load programs, look at its state and faults, take it away and back."""

from __future__ import annotations

import errno
import mmap
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self

from device.binding._card import ffi, lib
from device.binding.abi import Isa
from device.binding.buses import KINDS, WORKERS_MAX, open_inproc, open_vfio_user
from device.binding.completions import Completions
from device.binding.faults import CODES, FAULTS, card_error, outcome
from device.binding.planned import PlannedFault, planned_array
from device.binding.program import Program
from device.binding.vfio import open_vfio

if TYPE_CHECKING:
    from device.binding._card import CData

DEFAULT_MEMORY: Final = 512 << 20
"""Bytes of card memory of a software card."""

_INFO = (
    *("memory", "memory_free", "workers", "queues", "generation", "abi_min", "abi_max"),
    *("opcodes", "heartbeat", "clock_ns", "fault_count", "temperature_mc", "power_mw"),
    *("executed", "ecc_corrected"),
)

IsaName = Literal["auto", "scalar", "avx2", "avx512vnni", "amxint8"]


def give_back_memory() -> None:
    """Hand what this process freed, and its allocator kept, to the operating system."""
    lib.tepi_give_back()


class FaultEntry(NamedTuple):
    """One line of the card's fault log. `time_ns` is on the card's clock."""

    sequence: int
    time_ns: int
    code: int
    fault: str
    info: int
    generation: int
    queue: int
    command_id: int


class Card:
    """One card, shared by any number of sessions and threads. Opened with Card.open."""

    def __init__(self, handle: CData, in_process: bool = False) -> None:
        self.in_process = in_process
        self._handle: CData | None = ffi.gc(handle, lib.tepi_slot_release)
        self._lock = threading.Lock()
        self.completions = Completions(handle)

    @classmethod
    def open(
        cls,
        kind: str = "inproc",
        *,
        threads: int = 1,
        memory: int = DEFAULT_MEMORY,
        isa: IsaName | str = "auto",
    ) -> Self:
        """Open a card. `kind` "inproc": a software card in this process with `threads` compute
        workers and `memory` bytes, on exactly the instruction set `isa` ("auto": the best here).
        "vfio-user:PATH": the card that `tepi card serve --socket PATH` runs in a process of its
        own, whose threads, memory and instruction set were chosen there.

        "vfio:ADDRESS": the PCIe card at that address, bound to vfio-pci; `threads`, `memory` and
        `isa` are its own.

        Raises ValueError for an argument that is not possible here, CardGone where the card does
        not answer, CardTimeout where whoever listens at PATH says nothing.
        """
        bus, _, where = kind.partition(":")
        if bus == "vfio-user" and where:
            return cls(open_vfio_user(where, isa))
        if bus == "vfio" and where:
            return cls(open_vfio(where))
        if kind != "inproc":
            raise ValueError(f"unknown kind of card {kind!r}; the kinds are: {', '.join(KINDS)}")
        return cls(open_inproc(threads, memory, isa), in_process=True)

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
        """Let go of the card: runs in progress raise CardGone, programs may be closed later."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            lib.tepi_slot_shut(handle)
            self.completions.shut()

    def _open_handle(self) -> CData:
        handle = self._handle
        if handle is None:
            raise ValueError("the card is closed; open it again with Card.open")
        return handle

    def load_program(self, image: bytes | mmap.mmap) -> Program:
        """Load a compiled program (device/abi/program.h). A shared mapping of a file is read where
        it is, and takes no memory of the process once it is loaded.

        Raises ProgramRejected where the card's checks refuse it, CardFull, CardGone.
        """
        card = self._open_handle()
        handle = ffi.new("struct tepi_held_program **")
        failure = ffi.new("struct tepi_failure *")
        file = isinstance(image, mmap.mmap)
        source = ffi.from_buffer(image)
        result = lib.tepi_held_open(card, source, len(image), file, handle, failure)
        if result:
            raise outcome(self._loading(len(image), failure.fault, failure.info), result, failure)
        return Program(self, handle[0], image)

    def _loading(self, size: int, fault: int, missing_kib: int) -> str:
        """What was being done; where memory is short, how short."""
        info = self.info if fault == CODES["NO_MEMORY"] and self.alive else None
        if info is None:
            return "loading a program"
        return (
            f"loading a program of {_mib(size)}: it needs {_mib(missing_kib << 10)} more than the "
            f"{_mib(int(info['memory_free']))} that are free of the card's "
            f"{_mib(int(info['memory']))}"
        )

    @property
    def alive(self) -> bool:
        """True while the card answers on its bus and takes commands."""
        handle = self._handle
        return handle is not None and lib.tepi_slot_alive(handle)

    @property
    def generation(self) -> int:
        """Counts how often the card was brought up; programs of an earlier one must reload."""
        return lib.tepi_slot_epoch(self._open_handle())

    @property
    def info(self) -> dict[str, int | str]:
        """What the card says of itself: isa, memory, memory_free (bytes), workers, queues,
        generation, abi_min, abi_max, opcodes (bit mask), heartbeat, clock_ns, fault_count,
        temperature_mc (millidegrees Celsius), power_mw, executed (EXECUTEs of all hosts),
        ecc_corrected (bits of card memory, since power on).

        Raises CardGone where it does not answer.
        """
        info = ffi.new("struct tepi_controller_info *")
        if lib.tepi_slot_info(self._open_handle(), info):
            raise self._gone("reading the card's registers")
        values: dict[str, int | str] = {name: getattr(info, name) for name in _INFO}
        known = {isa.value: isa.name.lower() for isa in Isa}
        values["isa"] = known.get(info.isa, f"isa{info.isa}")
        return values

    @property
    def heartbeat(self) -> int:
        """Grows while the card's firmware runs. Raises CardGone where it does not answer."""
        return int(self.info["heartbeat"])

    @property
    def busy_ns(self) -> list[int]:
        """How long each compute worker has computed; empty where the card does not answer."""
        busy = ffi.new("uint64_t[]", WORKERS_MAX)
        return [busy[i] for i in range(lib.tepi_slot_busy(self._open_handle(), busy, WORKERS_MAX))]

    def faults(self) -> list[FaultEntry]:
        """The card's fault log, oldest first; empty where the card does not answer."""
        log = ffi.new("struct tepi_fault_entry[]", lib.TEPI_FAULT_LOG_ENTRIES)
        count = lib.tepi_slot_faults(self._open_handle(), log, lib.TEPI_FAULT_LOG_ENTRIES)
        return [_fault_entry(log[i]) for i in range(count)]

    @property
    def completion_fd(self) -> int:
        """An eventfd that is readable when an asynchronous run may be done."""
        return lib.tepi_slot_eventfd(self._open_handle())

    def ping(self) -> None:
        """One empty command to the card and back. Raises CardGone, CardTimeout or CardFault."""
        failure = ffi.new("struct tepi_failure *")
        result = lib.tepi_slot_nop(self._open_handle(), failure)
        if result:
            raise outcome("an empty command", result, failure)

    def reset(self) -> None:
        """Reset the card; every program must be reloaded. Raises CardGone or CardTimeout."""
        failure = ffi.new("struct tepi_failure *")
        result = lib.tepi_slot_reset(self._open_handle(), failure)
        if result:
            raise outcome("resetting the card", result, failure)

    def detach(self) -> None:
        """Take the card off its bus, as by surprise removal. Runs raise CardGone. A card in another
        process is left; it serves others as before.
        """
        lib.tepi_slot_detach(self._open_handle())

    def attach(self) -> None:
        """Bring the card back: put it on its bus if it is off, reset it unless it is alive.

        Raises CardGone or CardTimeout where it does not come back.
        """
        failure = ffi.new("struct tepi_failure *")
        result = lib.tepi_slot_attach(self._open_handle(), failure)
        if result:
            raise outcome("attaching the card", result, failure)

    def inject(self, fault: str, info: int = 0) -> None:
        """Let a fatal fault happen on a software card of this process: HANG, MEMORY_ECC or
        FIRMWARE_ASSERT.
        """
        fatal = {f.name: f.code for f in FAULTS.values() if f.severity == "FATAL"}
        if fault not in fatal:
            raise ValueError(f"cannot inject {fault!r}; one of {', '.join(fatal)}")
        if lib.tepi_slot_inject(self._open_handle(), fatal[fault], info):
            raise ValueError("faults are injected into a software card of this process alone")

    def plan_faults(self, plan: Sequence[PlannedFault]) -> None:
        """Let the software card suffer these from now on, in place of the plan before; an empty
        plan ends it. Raises ValueError for a plan that makes no sense.
        """
        result = lib.tepi_slot_plan_faults(self._open_handle(), planned_array(plan), len(plan))
        if result == -errno.EOPNOTSUPP:
            raise ValueError("faults are injected into a software card of this process alone")
        if result:
            raise ValueError("the card refuses this plan of faults")

    def _gone(self, what: str) -> Exception:
        gone = next(f for f in FAULTS.values() if f.name == "GONE")
        return card_error(what, gone.code)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.2f} MiB"


def _fault_entry(entry: CData) -> FaultEntry:
    fault = FAULTS.get(entry.code)
    return FaultEntry(
        entry.sequence,
        entry.time_ns,
        entry.code,
        fault.name if fault else f"FAULT_{entry.code}",
        entry.info,
        entry.generation,
        entry.queue,
        entry.command_id,
    )

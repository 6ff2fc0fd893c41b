# SPDX-License-Identifier: Apache-2.0
"""Joins float work on the same rows into few programs of the vector unit, so that what passes from
one operator to the next stays in registers."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from device.binding import abi
from device.compiler.graph import Shape
from device.compiler.plan import Array
from device.compiler.quant import Quantization, Unplaced
from device.compiler.units import Unit, Vector
from device.compiler.vector import OUTER_MAX, outer_axes

Source = tuple[str, Quantization | None]


@dataclass
class Program:
    """One VECTOR: its operations (code, out, args, value) with registers given out, what it loads
    and what it stores."""

    sources: list[Source] = field(default_factory=list)
    targets: list[Unit] = field(default_factory=list)
    code: list[tuple[str, int, tuple[int, ...], float]] = field(default_factory=list)


@dataclass
class Group:
    """Units for one VECTOR, in running order."""

    units: list[Unit]
    program: Program

    @property
    def domain(self) -> Shape:
        """What they run over."""
        return _joint(_domains(self.units))


def scheduled(
    segment: Sequence[Unit],
    outputs: Collection[str],
    constants: Mapping[str, Array],
    shapes: Mapping[str, Shape],
) -> list[Unit | Group]:
    """Units and Groups in an order in which each finds what it reads; groups as large as one
    instruction holds. `shapes` of every tensor that the units name. Raises Unplaced."""
    return _Schedule(segment, outputs, constants, shapes).run()


class _Schedule:
    def __init__(
        self,
        segment: Sequence[Unit],
        outputs: Collection[str],
        constants: Mapping[str, Array],
        shapes: Mapping[str, Shape],
    ) -> None:
        self._pending = list(segment)
        self._shapes = shapes
        self._outputs = outputs
        self._constants = constants
        self._waiting = {unit.output for unit in segment}  # names that are still to be made
        self._readers: dict[str, set[Unit]] = {}
        for unit in segment:
            for name in unit.inputs:
                self._readers.setdefault(name, set()).add(unit)

    def run(self) -> list[Unit | Group]:
        found: list[Unit | Group] = []
        while self._pending:
            ready = (unit for unit in self._pending if self._ready(unit))
            plain = next((unit for unit in ready if not isinstance(unit.work, Vector)), None)
            if plain is not None:
                found.append(plain)
                self._done([plain])
                continue
            seed = next(unit for unit in self._pending if self._ready(unit))
            group = self._grown(seed)
            found.append(group)
            self._done(group.units)
        return found

    def _ready(self, unit: Unit, made: Collection[str] = ()) -> bool:
        return all(name not in self._waiting or name in made for name in unit.inputs)

    def _done(self, units: Sequence[Unit]) -> None:
        for unit in units:
            self._pending.remove(unit)
            self._waiting.discard(unit.output)

    def _grown(self, seed: Unit) -> Group:
        group = [seed]
        fitting = self._program(group)
        if fitting is None:
            raise Unplaced("it has more elements than one instruction may work on")
        grew = True
        while grew:
            grew = False
            made = {unit.output for unit in group}
            touched = made | {name for unit in group for name in unit.inputs}
            for unit in self._pending:
                if unit in group or not isinstance(unit.work, Vector):
                    continue
                if not touched & set(unit.inputs) - self._constants.keys():
                    continue
                if not self._ready(unit, made) or not self._alike([*group, unit]):
                    continue
                wider = self._program([*group, unit])
                if wider is not None:
                    group.append(unit)
                    fitting, grew = wider, True
                    break
        return Group(group, fitting)

    def _program(self, units: Sequence[Unit]) -> Program | None:
        """None where the units do not fit one instruction together."""
        line = _Line(units, self._outputs, self._readers, self._constants)
        return line.allocated() if line.fits else None

    def _alike(self, units: Sequence[Unit]) -> bool:
        """Whether they run over the same rows, or over one value for each of them."""
        domains = _domains(units)
        rows = {domain[-1] for domain in domains} - {1}
        if len({_outer(domain) for domain in domains}) != 1 or len(rows) > 1:
            return False
        names = {name for unit in units for name in (*unit.inputs, unit.output)}
        shapes = [self._shapes[name] for name in sorted(names)]
        return outer_axes(_joint(domains), shapes) <= OUTER_MAX


def _domains(units: Sequence[Unit]) -> list[Shape]:
    return [unit.work.domain for unit in units if isinstance(unit.work, Vector)]


def _joint(domains: Sequence[Shape]) -> Shape:
    """Of domains that differ by leading axes of 1, and by rows of one value."""
    return (*max(domains, key=len)[:-1], max(domain[-1] for domain in domains))


def _outer(domain: Shape) -> Shape:
    sizes = domain[:-1]
    while sizes and sizes[0] == 1:
        sizes = sizes[1:]
    return sizes


@dataclass(frozen=True)
class _Op:
    code: str
    args: tuple[int, ...]
    value: float = 0.0
    number: int = 0  # of the source or target


class _Line:
    """The units' operations one after the other, equal ones once."""

    def __init__(
        self,
        units: Sequence[Unit],
        outputs: Collection[str],
        readers: Mapping[str, Collection[Unit]],
        constants: Mapping[str, Array],
    ) -> None:
        self._ops: list[_Op] = []
        self._known: dict[_Op, int] = {}
        self._results: dict[str, int] = {}
        self._constants = constants
        self._found = Program()
        self.fits = True
        members = set(units)
        for unit in units:
            if not self._unit(unit):
                self.fits = False
                return
            if unit.output in outputs or not members.issuperset(readers.get(unit.output, ())):
                self._store(unit)
        self.fits = (
            len(self._found.sources) <= abi.VECTOR_SOURCES
            and 0 < len(self._found.targets) <= abi.VECTOR_TARGETS
            and len(self._ops) <= abi.VECTOR_STEPS_MAX
            and len(self._ops) * max(map(math.prod, _domains(units))) <= abi.STEPS_MAX
        )

    def _unit(self, unit: Unit) -> bool:
        work = unit.work
        assert isinstance(work, Vector)
        values: list[int] = []
        for name, quantization in zip(unit.inputs, work.sources, strict=True):
            made = self._results.get(name)
            if made is None:
                values.append(self._load(name, quantization))
            elif quantization is None:
                values.append(made)
            else:
                return False  # bytes that this very program stores
        for step in work.steps:
            args = tuple(values[arg] for arg in step.args)
            values.append(self._op(_Op(step.code, args, step.value)))
        self._results[unit.output] = values[work.result]
        return True

    def _op(self, op: _Op) -> int:
        found = self._known.get(op)
        if found is None:
            self._ops.append(op)
            found = self._known[op] = len(self._ops) - 1
        return found

    def _load(self, name: str, quantization: Quantization | None) -> int:
        constant = self._constants.get(name)
        if constant is not None and constant.size == 1 and quantization is None:
            number = float(constant.reshape(-1)[0])
            if number == number:
                return self._op(_Op("value", (), number))
        source = (name, quantization)
        if source not in self._found.sources:
            self._found.sources.append(source)
        return self._op(_Op("load", (), number=self._found.sources.index(source)))

    def _store(self, unit: Unit) -> None:
        value = self._results[unit.output]
        self._ops.append(_Op("store", (value,), number=len(self._found.targets)))
        self._found.targets.append(unit)

    def allocated(self) -> Program | None:
        """Registers by last use. An operation's result never takes the place of an operand."""
        last: dict[int, int] = {}
        for at, op in enumerate(self._ops):
            for arg in op.args:
                last[arg] = at
        free = list(range(abi.VECTOR_REGISTERS))[::-1]
        held: dict[int, int] = {}
        for at, op in enumerate(self._ops):
            args = tuple(held[arg] for arg in op.args)
            out = op.number
            if op.code != "store":
                if at not in last:
                    continue
                if not free:
                    return None
                out = held[at] = free.pop()
            self._found.code.append(
                (op.code, out, (op.number,) if op.code == "load" else args, op.value)
            )
            for arg in set(op.args):
                if last[arg] == at:
                    free.append(held.pop(arg))
        return self._found

# SPDX-License-Identifier: Apache-2.0
"""A compiled model as a file, so that a model is compiled where it is published and not on every
machine that serves it. What runs from the file is byte for byte what compiling would give.

The file names the version of the card's ABI and the ONNX file that it was compiled from; a Session
uses it for just that file on a card of that ABI, and compiles anew otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import numpy as np

from device.binding.abi import ABI_VERSION
from device.compiler.plan import (
    Array,
    CardSegment,
    CompiledModel,
    HostSegment,
    Placement,
    Port,
    TensorInfo,
    Where,
)
from device.errors import ModelError
from device.sections import BadSections, Bytes, Sections, write_sections

KIND = b"TEPIPROG"
PROGRAM_FILE = "model.tepi"
"""How it is called beside the model.onnx that it was compiled from."""
FORMAT = 1
_COUNT_LIMIT = 100_000  # of anything: segments, ports, nodes
_BYTES_LIMIT = 1 << 40
_CHUNK = 1 << 20
_TYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_RAW = "biufc"  # kinds of numpy types whose bytes are their values
_PORT_TYPES = ("float32", "uint8", "int8")
_Item = TypeVar("_Item")


class BadProgramFile(ModelError):
    """A file of a compiled model that is damaged, or was made by somebody hostile."""


class OtherProgram(ModelError):
    """A file of a compiled model that is for another card or another model."""


class NotStorable(ModelError):
    """There is no program to put into a file; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """The ONNX file that a program was compiled from."""

    sha256: str  # 64 hexadecimal digits
    size: int  # bytes

    @classmethod
    def of(cls, model: Path | bytes) -> Source:
        """Of a file or of the bytes of one. Raises OSError."""
        if isinstance(model, bytes):
            return cls(hashlib.sha256(model).hexdigest(), len(model))
        hasher, size = hashlib.sha256(), 0
        buffer = memoryview(bytearray(_CHUNK))
        with model.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
                size += count
        return cls(hasher.hexdigest(), size)


def write_compiled(path: Path, compiled: CompiledModel, source: Source, tool: str = "") -> None:
    """Write the file, whole or not at all. `tool` names who compiled it.

    Raises NotStorable where the model has no program before it is fed, and OSError.
    """
    if compiled.needs_shapes:
        raise NotStorable(
            f"{compiled.name} leaves sizes open that only a request settles, so it is compiled "
            "when it is first run; fix its input shapes to compile it beforehand"
        )
    sections: list[Bytes] = []

    def put(data: Bytes) -> int:
        sections.append(data)
        return len(sections) - 1

    header = {
        "format": FORMAT,
        "abi": ABI_VERSION,
        "tool": tool,
        "source": {"sha256": source.sha256, "size": source.size},
        "inputs": [_info_row(info) for info in compiled.inputs],
        "outputs": [_info_row(info) for info in compiled.outputs],
        "segments": [_segment_row(segment, put) for segment in compiled.segments],
        "placement": [[p.node, p.op, p.where, p.reason] for p in compiled.placement],
        "shapes": {name: list(shape) for name, shape in compiled.shapes.items()},
        "batchable": compiled.batchable,
        "any_shape": compiled.any_shape,
        "constants": [_constant_row(*row, put) for row in sorted(compiled.constants.items())],
    }
    write_sections(path, KIND, header, sections)


def open_compiled(path: Path, source: Source | None = None, name: str = "") -> CompiledModel:
    """The model of a file, with its large programs mapped and not copied.

    Raises OtherProgram where it is for a card of another ABI or not for `source`, BadProgramFile
    where it is damaged, and OSError. `name` is what errors will call the model.
    """
    try:
        with Sections(path, KIND) as file:
            found = _Parser(file)
            found.check(source)
            return found.model(name or path.name)
    except BadSections as error:
        raise BadProgramFile(f"{error}; fetch or pack it again") from None


def _info_row(info: TensorInfo) -> list[Any]:
    return [info.name, info.dtype.name, info.type, list(info.shape)]


def _port_row(port: Port) -> list[Any]:
    return [port.name, port.dtype.name, list(port.shape)]


def _segment_row(segment: CardSegment | HostSegment, put: Callable[[Bytes], int]) -> dict[str, Any]:
    if isinstance(segment, HostSegment):
        return {
            "onnx": put(segment.model),
            "inputs": list(segment.inputs),
            "outputs": list(segment.outputs),
        }
    return {
        "program": put(segment.program),
        "inputs": [_port_row(port) for port in segment.inputs],
        "outputs": [_port_row(port) for port in segment.outputs],
        "batchable": segment.batchable,
    }


def _constant_row(name: str, value: Array, put: Callable[[Bytes], int]) -> list[Any]:
    if value.dtype.kind not in _RAW:
        raise NotStorable(f"the constant output {name!r} holds {value.dtype}, not numbers")
    little = value.astype(value.dtype.newbyteorder("<"))
    return [name, value.dtype.name, list(value.shape), put(little.tobytes())]


class _Parser:
    """Checks everything of a header before anything is made of it."""

    def __init__(self, file: Sections) -> None:
        self._file = file
        self._header = file.header
        self._used: set[int] = set()

    def check(self, source: Source | None) -> None:
        """Raises OtherProgram."""
        header = self._header
        if header.get("format") != FORMAT:
            raise OtherProgram(f"a program file of format {header.get('format')!r}, not {FORMAT}")
        if header.get("abi") != ABI_VERSION:
            raise OtherProgram(
                f"compiled for a card of ABI {header.get('abi')!r}, not {ABI_VERSION}"
            )
        told = {} if source is None else {"sha256": source.sha256, "size": source.size}
        if source is not None and header.get("source") != told:
            raise OtherProgram("compiled from another model file than the one beside it")

    def model(self, name: str) -> CompiledModel:
        header = self._header
        inputs = self._each("inputs", header.get("inputs"), self._info)
        outputs = self._each("outputs", header.get("outputs"), self._info)
        shapes = self._shapes(header.get("shapes"))
        constants = dict(self._each("constants", header.get("constants"), self._constant))
        segments = self._each("segments", header.get("segments"), self._segment)
        self._check_flow(inputs, outputs, segments, constants)
        placement = self._each("placement", header.get("placement"), self._placed)
        if len(self._used) != len(self._file):
            raise self._bad("sections that nothing uses")
        any_shape = self._flag(header, "any_shape")
        if not any_shape and shapes.keys() != {info.name for info in inputs}:
            raise self._bad("shapes of other tensors than the inputs")
        return CompiledModel(
            name,
            inputs,
            outputs,
            segments,
            placement,
            shapes,
            self._flag(header, "batchable"),
            any_shape,
            constants=constants,
        )

    def _check_flow(
        self,
        inputs: Iterable[TensorInfo],
        outputs: Iterable[TensorInfo],
        segments: Iterable[CardSegment | HostSegment],
        constants: Mapping[str, Array],
    ) -> None:
        """Each segment finds what it takes, and every output is made."""
        there = {info.name for info in inputs} | constants.keys()
        for segment in segments:
            if isinstance(segment, CardSegment):
                takes = {port.name for port in segment.inputs}
                gives = {port.name for port in segment.outputs}
            else:
                takes, gives = set(segment.inputs), set(segment.outputs)
            if not takes <= there:
                raise self._bad(f"nothing gives {sorted(takes - there)[0][:80]!r}")
            there |= gives
        missing = [info.name for info in outputs if info.name not in there]
        if missing:
            raise self._bad(f"nothing gives the output {missing[0][:80]!r}")

    def _info(self, row: list[Any]) -> TensorInfo:
        name, dtype, kind, shape = row
        if not self._texts(name, dtype, kind) or not isinstance(shape, list) or len(shape) > 64:
            raise self._bad("an input or output")
        for size in shape:
            fits = size is None or isinstance(size, str) or _is_size(size)
            if not fits:
                raise self._bad(f"a size of {name[:80]!r}")
        return TensorInfo(name, self._dtype(dtype, _RAW + "OV"), kind, shape)

    def _port(self, row: list[Any]) -> Port:
        name, dtype, shape = row
        if not self._texts(name) or dtype not in _PORT_TYPES:
            raise self._bad("a port of a program")
        port = Port(name, np.dtype(dtype), self._shape(shape))
        if not port.shape:
            raise self._bad(f"the port {name[:80]!r} has no dimensions")
        return port

    def _segment(self, row: Any) -> CardSegment | HostSegment:
        if not isinstance(row, dict):
            raise self._bad("a segment")
        if "onnx" in row:
            model = self._file.read(self._section(row["onnx"]))
            return HostSegment(model, self._names(row, "inputs"), self._names(row, "outputs"))
        program = self._file.map(self._section(row.get("program")))
        return CardSegment(
            program,
            self._each("ports", row.get("inputs"), self._port),
            self._each("ports", row.get("outputs"), self._port),
            self._flag(row, "batchable"),
        )

    def _constant(self, row: list[Any]) -> tuple[str, Array]:
        name, dtype, shape, section = row
        if not self._texts(name, dtype):
            raise self._bad("a constant")
        kind = self._dtype(dtype, _RAW)
        sizes = self._shape(shape, zero=True)
        data = self._file.read(self._section(section))
        if len(data) != int(np.prod(sizes, dtype=object)) * kind.itemsize:
            raise self._bad(f"the constant {name[:80]!r} has {len(data)} bytes")
        found = np.frombuffer(data, kind.newbyteorder("<")).reshape(sizes)
        return name, found.astype(kind)

    def _placed(self, row: list[Any]) -> Placement:
        node, op, where, reason = row
        if not self._texts(node, op, reason) or where not in get_args(Where):
            raise self._bad("a row of the placement")
        return Placement(node, op, cast(Where, where), reason)

    def _shapes(self, found: Any) -> dict[str, tuple[int, ...]]:
        if not isinstance(found, dict) or len(found) > _COUNT_LIMIT:
            raise self._bad("its input shapes")
        return {name: self._shape(shape, zero=True) for name, shape in found.items()}

    def _shape(self, found: Any, zero: bool = False) -> tuple[int, ...]:
        if not isinstance(found, list) or len(found) > 64 or not all(map(_is_size, found)):
            raise self._bad("a shape")
        if 0 in found and not zero:
            raise self._bad("a shape without elements")
        if int(np.prod(found, dtype=object)) > _BYTES_LIMIT:
            raise self._bad("a shape without bounds")
        return tuple(found)

    def _section(self, index: Any) -> int:
        known = type(index) is int and 0 <= index < len(self._file)
        if not known or index in self._used:
            raise self._bad("a section that is not there or is used twice")
        self._used.add(index)
        return int(index)

    def _each(self, what: str, rows: Any, make: Callable[[Any], _Item]) -> tuple[_Item, ...]:
        if not isinstance(rows, list) or len(rows) > _COUNT_LIMIT:
            raise self._bad(f"its {what}")
        try:
            return tuple(make(row) for row in rows)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, BadProgramFile | BadSections):
                raise
            raise self._bad(f"its {what}: {error}") from None

    def _dtype(self, name: str, kinds: str) -> np.dtype[Any]:
        try:
            found = np.dtype(name if _TYPE_NAME.fullmatch(name) else "nothing")
        except TypeError:
            raise self._bad(f"a type {name[:40]!r}") from None
        if found.kind not in kinds or found.name != name:
            raise self._bad(f"a type {name[:40]!r}")
        return found

    def _names(self, row: dict[str, Any], key: str) -> tuple[str, ...]:
        found = row.get(key)
        if not isinstance(found, list) or len(found) > _COUNT_LIMIT or not self._texts(*found):
            raise self._bad(f"the {key} of a segment")
        return tuple(found)

    def _flag(self, row: dict[str, Any], key: str) -> bool:
        value = row.get(key)
        if not isinstance(value, bool):
            raise self._bad(f"its flag {key}")
        return value

    @staticmethod
    def _texts(*values: Any) -> bool:
        return all(isinstance(value, str) for value in values)

    def _bad(self, what: str) -> BadProgramFile:
        return BadProgramFile(f"the compiled program is malformed: {what}")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _BYTES_LIMIT

# SPDX-License-Identifier: Apache-2.0
"""Instructions over images to the bytes of a card program (device/abi/program.h)."""

import mmap
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from device.binding import abi
from device.compiler.images import Buffer, Image
from device.compiler.memory import aligned, lives, plan
from device.compiler.plan import Array, ProgramBytes
from device.compiler.quant import Unplaced

NO_TENSOR = 0xFFFF  # of an instruction's a and b
IN_FILE = 1 << 20  # bytes; smaller programs stay in memory


@dataclass(frozen=True)
class Constant:
    """Bytes for the constant section; a parameter that names one gets its offset."""

    data: Array


@dataclass
class Instruction:
    """`code` as in abi.CODES; `parameters` by the names of its C structure."""

    code: str
    out: Image
    a: Image | None = None
    b: Image | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    node: int = 0
    macs: int = 0
    sources: tuple[Image, ...] = ()  # of VECTOR
    more: tuple[Image, ...] = ()  # further results of VECTOR

    @property
    def images(self) -> Iterator[Image]:
        named = (self.a, self.b, self.out, *self.sources, *self.more)
        return (image for image in named if image is not None)


class _Constants:
    """The constant section; equal bytes are kept once."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[int, bytes], int] = {}
        self.parts: list[Array] = []
        self.bytes = 0

    def place(self, data: Array) -> int:
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        key = (flat.size, flat.tobytes() if flat.size <= 4096 else b"")
        if flat.size <= 4096 and key in self._offsets:
            return self._offsets[key]
        offset = self.bytes
        self._offsets[key] = offset
        self.parts.append(flat)
        self.bytes = aligned(offset + flat.size)
        return offset


def emit(
    instructions: Sequence[Instruction], inputs: Sequence[Buffer], outputs: Sequence[Buffer]
) -> ProgramBytes:
    """A program image. Raises Unplaced where it would pass a limit of the format."""
    arena = _plan_arena(instructions)
    constants = _Constants()
    images: dict[Image, int] = {}
    for instruction in instructions:
        for image in instruction.images:
            images.setdefault(image, len(images))
    table = np.zeros(len(images), abi.TENSOR)
    for image, index in images.items():
        if image.buffer.data is not None:
            image.buffer.offset = constants.place(image.buffer.data)
        table[index] = _tensor(image)
    code = np.zeros(len(instructions), abi.INSTRUCTION)
    for index, instruction in enumerate(instructions):
        code[index] = _instruction(instruction, images, constants)
    _check_limits(len(images), len(code), len(inputs) + len(outputs), arena, constants.bytes)
    header = np.zeros((), abi.HEADER)
    header["magic"], header["abi"] = abi.MAGIC, abi.ABI_VERSION
    header["header_bytes"] = abi.HEADER.itemsize
    header["tensors"], header["instructions"] = len(table), len(code)
    header["tensors_offset"] = at = aligned(abi.HEADER.itemsize)
    header["instructions_offset"] = at = aligned(at + table.nbytes)
    header["constants_offset"] = at = aligned(at + code.nbytes)
    header["constants_bytes"] = constants.bytes
    header["total_bytes"] = at + constants.bytes
    header["arena_bytes"] = arena
    header["macs"] = sum(instruction.macs for instruction in instructions)
    header["inputs"], header["outputs"] = len(inputs), len(outputs)
    return _image(header, table, code, constants.parts)


def _plan_arena(instructions: Sequence[Instruction]) -> int:
    """Sets the offsets of the arena's buffers; its size."""
    uses: dict[int, list[int]] = {}
    buffers: dict[int, Buffer] = {}
    for index, instruction in enumerate(instructions):
        for image in instruction.images:
            if image.buffer.place == "arena":
                uses.setdefault(id(image.buffer), []).append(index)
                buffers[id(image.buffer)] = image.buffer
    found = lives(uses, {key: buffer.bytes for key, buffer in buffers.items()})
    offsets, total = plan(list(found.values()))
    for key, offset in zip(found, offsets, strict=True):
        buffers[key].offset = offset
    return total


def _tensor(image: Image) -> tuple[Any, ...]:
    if max(image.n, image.h, image.w, image.c) > abi.DIM_MAX:
        raise Unplaced(f"a tensor of it has a dimension over {abi.DIM_MAX}")
    if image.stride_n >= 1 << 32 or max(image.halo) > abi.HALO_MAX:
        raise Unplaced("a tensor of it is larger than the card addresses")
    return (
        abi.TYPES[image.type],
        abi.PLACES[image.buffer.place],
        image.buffer.port,
        *(image.n, image.h, image.w, image.c),
        *(image.stride_n, image.stride_h, image.stride_w),
        *image.halo,
        image.buffer.offset + image.offset,
        image.scale,
        image.zero_point,
    )


def _instruction(
    instruction: Instruction, images: Mapping[Image, int], constants: _Constants
) -> Any:
    record = np.zeros((), abi.INSTRUCTION)
    record["code"] = abi.CODES[instruction.code]
    record["a"] = NO_TENSOR if instruction.a is None else images[instruction.a]
    record["b"] = NO_TENSOR if instruction.b is None else images[instruction.b]
    record["out"] = images[instruction.out]
    record["node"] = instruction.node
    structure = abi.PARAMS[instruction.code]
    parameters = np.zeros((), structure)
    _fill(parameters, _defaults(structure) | dict(instruction.parameters), constants)
    for name in {"sources", "more"} & set(structure.names or ()):
        found = [images[image] for image in getattr(instruction, name)]
        parameters[name] = NO_TENSOR
        parameters[name][: len(found)] = found
    record["bytes"][: structure.itemsize] = np.frombuffer(parameters.tobytes(), np.uint8)
    return record[()]


def _defaults(structure: np.dtype[Any]) -> dict[str, Any]:
    """Of what ends an instruction: no clamp, no table."""
    return {"hi": 255, "table": abi.NONE} if "hi" in (structure.names or ()) else {}


def _fill(record: Any, values: Mapping[str, Any], constants: _Constants) -> None:
    """Fields of a structure; those of one inside it come as a mapping."""
    for name, value in values.items():
        kind = record.dtype[name]
        if isinstance(value, Constant):
            record[name] = constants.place(value.data)
        elif isinstance(value, Mapping):
            _fill(record[name], _defaults(kind) | dict(value), constants)
        elif kind.subdtype:
            record[name][: len(value)] = value
        else:
            record[name] = value


def _check_limits(tensors: int, code: int, ports: int, arena: int, constants: int) -> None:
    for amount, limit, what in (
        (tensors, abi.TENSORS_MAX, "tensors"),
        (code, abi.INSTRUCTIONS_MAX, "instructions"),
        (ports, abi.PORTS_MAX, "inputs or outputs"),
        (arena, abi.ARENA_MAX, "bytes of activations"),
        (constants, abi.NONE, "bytes of constants"),
    ):
        if amount > limit:
            raise Unplaced(f"the program would have {amount} {what}, the card takes {limit}")


def _image(header: Array, table: Array, code: Array, constants: Sequence[Array]) -> ProgramBytes:
    """All sections, each padded to the alignment, and the header's check sum over them."""
    parts: list[bytes | memoryview] = []
    checksum = 0
    for part in (header, table, code, *constants):
        body = part.reshape(-1).view(np.uint8).data
        padding = bytes(aligned(len(body)) - len(body))
        checksum = zlib.crc32(padding, zlib.crc32(body, checksum))
        parts += [body, padding]
    header["crc32"] = checksum  # which its part, a view, then holds as well
    total = int(header["total_bytes"])
    return b"".join(parts) if total < IN_FILE else _in_file(parts, total)


def _in_file(parts: Sequence[bytes | memoryview], total: int) -> ProgramBytes:
    """A mapping of a file without a name: a program is read when it is loaded, and again after a
    reset of the card, and need not take the process's memory in between."""
    try:
        with tempfile.TemporaryFile(prefix="tepi-") as file:
            file.writelines(parts)
            file.flush()
            return mmap.mmap(file.fileno(), total, mmap.MAP_SHARED, mmap.PROT_READ)
    except OSError:  # no folder to write to, or no room there
        return b"".join(parts)

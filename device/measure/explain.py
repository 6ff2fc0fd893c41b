# SPDX-License-Identifier: Apache-2.0
"""A model instruction by instruction: what each does, on which kernel, and how long it takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device.binding import Card, Record, abi
from device.compiler import CardSegment, CompiledModel, HostSegment, Placement, compile_model
from device.measure import roofline
from device.measure.feeds import Array, Shapes, concrete_shapes, random_feeds
from device.measure.roofline import Roofline
from device.session import load_model, open_onnxruntime


@dataclass(frozen=True)
class Line:
    """One instruction. Shapes are NHWC; `parameters` its window, for example "3x3/2 g32"; `macs`,
    `bytes` (read and written) and times are of one item; `share` is of the whole measured time."""

    instruction: int
    code: str
    node: str
    op: str
    input: list[int]
    output: list[int]
    parameters: str
    kernel: str
    macs: int
    bytes: int
    predicted_us: float
    measured_us: float
    share: float


@dataclass(frozen=True)
class CardPart:
    """A program on the card. `arena_bytes` hold activations, `constant_bytes` weights and tables
    in the program, `card_bytes` what loading it took of card memory, the workers' scratch too."""

    lines: list[Line]
    arena_bytes: int
    constant_bytes: int
    card_bytes: int


@dataclass(frozen=True)
class HostPart:
    """Nodes that run on onnxruntime between programs."""

    nodes: list[str]
    measured_us: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """The parts in running order; `off_card` are the nodes on onnxruntime with their reasons."""

    model: str
    isa: str
    threads: int
    runs: int
    shapes: dict[str, list[int]]
    peak_gmacs: float
    peak_gbytes: float
    parts: list[CardPart | HostPart]
    off_card: list[Placement]
    macs: int
    bytes: int
    predicted_us: float
    measured_us: float


def explain(
    path: Path, card: Card, given: Shapes | None = None, threads: int = 1, runs: int = 30
) -> Explanation:
    """Run every segment of the model on `card` with random feeds of one item.

    Raises ModelError, InputError (a shape that is missing or wrong), CardError.
    """
    proto = load_model(path, path.name)
    compiled = compile_model(proto, given or {}, name=path.name)
    shapes = dict(compiled.shapes)
    if compiled.needs_shapes or not shapes:
        shapes = concrete_shapes(compiled.inputs, given or {}, path.name)
    if compiled.needs_shapes:
        compiled = compile_model(proto, shapes, name=path.name)
    values: dict[str, Array] = {
        **compiled.constants,
        **random_feeds(compiled.inputs, shapes),
    }
    peaks = roofline.measure(card)
    parts = [
        _card_part(segment, card, values, runs)
        if isinstance(segment, CardSegment)
        else _host_part(segment, path.name, values, threads, runs)
        for segment in compiled.segments
    ]
    return _explanation(compiled, shapes, card, peaks, parts, threads, runs)


@dataclass(frozen=True)
class _Profile:
    segment: CardSegment
    records: list[Record]
    card_bytes: int


@dataclass(frozen=True)
class _HostTime:
    nodes: list[str]
    us: float


def _card_part(segment: CardSegment, card: Card, values: dict[str, Array], runs: int) -> _Profile:
    for port in segment.outputs:
        values[port.name] = np.empty(port.shape, port.dtype)
    before = int(card.info["memory_free"])
    with card.load_program(segment.program) as program:
        taken = before - int(card.info["memory_free"])
        sources = [np.ascontiguousarray(values[port.name]) for port in segment.inputs]
        targets = [values[port.name] for port in segment.outputs]
        program.run(sources, 1, targets)
        return _Profile(segment, program.profile(sources, 1, targets, runs), taken)


def _host_part(
    segment: HostSegment, name: str, values: dict[str, Array], threads: int, runs: int
) -> _HostTime:
    session = open_onnxruntime(segment.model, name, threads)
    feeds = {name: values[name] for name in segment.inputs}
    taken = []
    for _ in range(runs + 1):
        started = time.perf_counter_ns()
        results = session.run(list(segment.outputs), feeds)
        taken.append(time.perf_counter_ns() - started)
    values.update(zip(segment.outputs, results, strict=True))
    nodes = load_model(segment.model, name).graph.node
    names = [node.name or f"{node.op_type}_{node.output[0]}" for node in nodes]
    return _HostTime(names, float(np.median(taken[1:])) / 1e3)


def _explanation(
    compiled: CompiledModel,
    shapes: Shapes,
    card: Card,
    peaks: Roofline,
    parts: Sequence[_Profile | _HostTime],
    threads: int,
    runs: int,
) -> Explanation:
    measured = sum(
        part.us if isinstance(part, _HostTime) else sum(row.ns for row in part.records) / 1e3
        for part in parts
    )
    told: list[CardPart | HostPart] = [
        HostPart(part.nodes, part.us, part.us / measured)
        if isinstance(part, _HostTime)
        else _told(part, compiled, peaks, measured)
        for part in parts
    ]
    lines = [line for part in told if isinstance(part, CardPart) for line in part.lines]
    return Explanation(
        model=compiled.name,
        isa=str(card.info["isa"]),
        threads=threads,
        runs=runs,
        shapes={name: list(shape) for name, shape in shapes.items()},
        peak_gmacs=peaks.macs_per_ns,
        peak_gbytes=peaks.bytes_per_ns,
        parts=told,
        off_card=[row for row in compiled.placement if row.where != "card"],
        macs=sum(line.macs for line in lines),
        bytes=sum(line.bytes for line in lines),
        predicted_us=sum(line.predicted_us for line in lines),
        measured_us=measured,
    )


def _told(part: _Profile, compiled: CompiledModel, peaks: Roofline, measured_us: float) -> CardPart:
    image = part.segment.program
    header = np.frombuffer(image, abi.HEADER, 1)[0]
    tensors = np.frombuffer(image, abi.TENSOR, header["tensors"], int(header["tensors_offset"]))
    code = np.frombuffer(
        image, abi.INSTRUCTION, header["instructions"], int(header["instructions_offset"])
    )
    lines = []
    for record, instruction in zip(part.records, code, strict=True):
        node, op = _origin(record, instruction, tensors, part.segment, compiled)
        moved = record.bytes_read + record.bytes_written
        lines.append(
            Line(
                instruction=record.instruction,
                code=record.code,
                node=node,
                op=op,
                input=_shape(tensors, instruction["a"]),
                output=_shape(tensors, instruction["out"]),
                parameters=_parameters(record.code, instruction),
                kernel=record.kernel,
                macs=record.macs,
                bytes=moved,
                predicted_us=peaks.ns(record.macs, moved) / 1e3,
                measured_us=record.ns / 1e3,
                share=record.ns / 1e3 / measured_us,
            )
        )
    return CardPart(
        lines, int(header["arena_bytes"]), int(header["constants_bytes"]), part.card_bytes
    )


def _origin(
    record: Record, instruction: Any, tensors: Any, segment: CardSegment, compiled: CompiledModel
) -> tuple[str, str]:
    """The name and operator of the model's node, or the port that an instruction serves."""
    if record.node < len(compiled.placement):
        row = compiled.placement[record.node]
        return row.node, row.op
    for index, place, ports in (
        (instruction["a"], "input", segment.inputs),
        (instruction["out"], "output", segment.outputs),
    ):
        if index < len(tensors) and tensors[index]["place"] == abi.PLACES[place]:
            return ports[tensors[index]["port"]].name, place
    return "", ""


def _shape(tensors: Any, index: int) -> list[int]:
    return [int(tensors[index][axis]) for axis in "nhwc"] if index < len(tensors) else []


def _parameters(code: str, instruction: Any) -> str:
    layout = abi.PARAMS[code]
    if not layout.names or "kernel_h" not in layout.names:
        return ""
    params = np.frombuffer(instruction["bytes"].tobytes(), layout, 1)[0]
    text = f"{params['kernel_h']}x{params['kernel_w']}"
    if params["stride_h"] != 1 or params["stride_w"] != 1:
        text += f"/{params['stride_h']}"
    if "groups" in layout.names and params["groups"] != 1:
        text += f" g{params['groups']}"
    return text

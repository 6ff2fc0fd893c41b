# SPDX-License-Identifier: Apache-2.0
"""Runs a compiled model on the interpreter and onnxruntime, and the model whole on onnxruntime."""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

import numpy as np
import onnx

from device.binding import Card, abi
from device.binding.card import IsaName
from device.compiler import CardSegment, CompiledModel, compile_model
from device.host import open_session

from .arithmetic import Array
from .interpreter import Program

__all__ = [
    "card_of",
    "codes",
    "compile_model",
    "difference",
    "off_card",
    "reference",
    "run",
    "session",
]


def session(model: bytes, level: Any = None) -> Any:
    return open_session(model, level=level)


def reference(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs by onnxruntime alone, its products exact on any machine."""
    runner = session(model.SerializeToString())
    names = [value.name for value in runner.get_outputs()]
    return dict(zip(names, runner.run(names, dict(feeds)), strict=True))


def card_of(isa: str) -> Card | None:
    """The software card on exactly this instruction set; None where the machine lacks it."""
    try:
        return Card.open(isa=isa)
    except ValueError as error:
        assert "lacks the instruction set" in str(error)
        return None


@cache
def cards() -> tuple[Card, ...]:
    """The software card on every instruction set that this machine has."""
    opened = [card_of(isa) for isa in get_args(IsaName) if isa != "auto"]
    return tuple(card for card in opened if card)


def check_card(
    segment: CardSegment,
    values: Mapping[str, Array],
    expected: Mapping[str, Array],
    approximate: bool,
) -> None:
    """The card gives the interpreter's bytes, all items in one run; where the program has functions
    that numpy has not (`approximate`), nearly so, and every instruction set the same."""
    feeds = [np.ascontiguousarray(values[port.name]) for port in segment.inputs]
    first = segment.inputs[0]
    items = feeds[0].shape[0] // first.shape[0] if segment.batchable else 1
    firsts: dict[str, Array] = {}
    for card in cards():
        found = [np.empty_like(expected[port.name]) for port in segment.outputs]
        with card.load_program(segment.program) as program:
            program.run(feeds, items, found)
        for port, value in zip(segment.outputs, found, strict=True):
            isa = str(card.info["isa"])
            if approximate:
                check_near(value, expected[port.name], isa)
                value = firsts.setdefault(port.name, value)
                np.testing.assert_array_equal(found[segment.outputs.index(port)], value, isa)
            else:
                np.testing.assert_array_equal(value, expected[port.name], isa)


def check_near(value: Array, expected: Array, isa: str) -> None:
    """One step of bytes; float32 that several functions went into."""
    if value.dtype.kind == "f":
        spread = float(np.abs(expected[np.isfinite(expected)]).max(initial=1e-6))
        np.testing.assert_allclose(value, expected, 1e-4, 1e-5 * spread, err_msg=isa)
    else:
        assert np.abs(value.astype(np.int32) - expected.astype(np.int32)).max(initial=0) <= 1, isa


def run_card(segment: CardSegment, values: Mapping[str, Array]) -> dict[str, Array]:
    """A card segment item by item on the interpreter, and on the cards."""
    program = Program(segment.program)
    first = segment.inputs[0]
    items = values[first.name].shape[0] // first.shape[0] if segment.batchable else 1
    parts: list[list[Array]] = []
    for item in range(items):
        feeds = []
        for port in segment.inputs:
            value = values[port.name]
            assert value.dtype == port.dtype
            if segment.batchable:
                value = value[item * port.shape[0] : (item + 1) * port.shape[0]]
            assert value.shape == port.shape
            feeds.append(value)
        outputs = program.run(feeds, [port.bytes for port in segment.outputs])
        parts.append(
            [
                flat.view(port.dtype).reshape(port.shape)
                for flat, port in zip(outputs, segment.outputs, strict=True)
            ]
        )
    names = [port.name for port in segment.outputs]
    joined = [
        np.concatenate(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=True)
    ]
    found = dict(zip(names, joined, strict=True))
    check_card(segment, values, found, program.approximate)
    return found


def run(compiled: CompiledModel, feeds: Mapping[str, Array]) -> dict[str, Array]:
    values = {**compiled.constants, **feeds}
    for segment in compiled.segments:
        if isinstance(segment, CardSegment):
            values.update(run_card(segment, values))
        else:
            given = {name: values[name] for name in segment.inputs}
            found = session(segment.model).run(list(segment.outputs), given)
            values.update(zip(segment.outputs, found, strict=True))
    return {info.name: values[info.name] for info in compiled.outputs}


def off_card(compiled: CompiledModel) -> list[tuple[str, str, str]]:
    return [(row.node, row.op, row.reason) for row in compiled.placement if row.where != "card"]


def steps(model: onnx.ModelProto, output: str) -> float:
    """The quantization step of a graph output behind a DequantizeLinear; 1 for a quantized one."""
    values = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if output in node.output and node.op_type == "DequantizeLinear":
            return float(np.max(onnx.numpy_helper.to_array(values[node.input[1]])))
    return 1.0


def difference(
    model: onnx.ModelProto, feeds: Mapping[str, Array], compiled: CompiledModel | None = None
) -> tuple[float, int]:
    """Largest difference over all outputs in quantization steps, and how many values differ."""
    compiled = compiled or compile_model(model)
    expected, found = reference(model, feeds), run(compiled, feeds)
    worst, count = 0.0, 0
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype, name
        apart = np.abs(found[name].astype(np.float64) - value.astype(np.float64))
        apart = np.rint(apart / steps(model, name))
        worst, count = max(worst, float(apart.max(initial=0))), count + int((apart > 0).sum())
    return worst, count


def codes(model: onnx.ModelProto) -> list[str]:
    """Names of the instructions of the only card segment."""
    (segment,) = compile_model(model).segments
    assert isinstance(segment, CardSegment)
    header = np.frombuffer(segment.program, abi.HEADER, 1)[0]
    found = np.frombuffer(
        segment.program, abi.INSTRUCTION, header["instructions"], header["instructions_offset"]
    )
    names = {number: name for name, number in abi.CODES.items()}
    return [names[int(record["code"])] for record in found]

# SPDX-License-Identifier: Apache-2.0
"""The card's two limits on this machine, measured: arithmetic, and memory it finds in cache.

An instruction takes at least as long as the larger of its multiply-accumulates at the rate of the
best of two dense convolutions (256 channels, 28 x 28, 1x1 and 3x3), and its bytes at the better
rate of an addition of two tensors of 196 KiB and of a vector times 512 KiB of weights. All come
from one small program on the card in question, so with its instruction set and its threads.
Nothing is added for starting an instruction.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from device.binding import Card, Record
from device.compiler import CardSegment, compile_model
from device.measure.feeds import Array

CHANNELS, SIZE = 256, 28
ROUNDS, RUNS = 4, 9  # the best of the rounds' medians
VECTOR, VECTOR_OUT = 1024, 512


@dataclass(frozen=True)
class Roofline:
    """Rates per nanosecond, that is in units of 10^9 per second."""

    macs_per_ns: float
    bytes_per_ns: float

    def ns(self, macs: int, moved: int) -> float:
        """The least time of so much work."""
        return max(macs / self.macs_per_ns, moved / self.bytes_per_ns)


def measure(card: Card) -> Roofline:
    """Run the program on the card. Raises CardError."""
    (segment,) = compile_model(_model(), name="roofline").segments
    assert isinstance(segment, CardSegment)
    rng = np.random.default_rng(0)
    with card.load_program(segment.program) as program:
        sources = [rng.integers(0, 256, size, np.uint8) for size in program.input_bytes]
        targets = [np.empty(size, np.uint8) for size in program.output_bytes]
        rounds = [program.profile(sources, 1, targets, RUNS) for _ in range(ROUNDS)]
    records = [row for found in rounds for row in found if row.code in ("add", "conv")]
    return Roofline(
        max(row.macs / row.ns for row in records),
        max(_moved(row) / row.ns for row in records),
    )


def _moved(row: Record) -> int:
    return row.bytes_read + row.bytes_written


def _model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    parameters: dict[str, Array] = {
        "s": np.array(0.02, np.float32),
        "t": np.array(0.002, np.float32),
        "z": np.array(128, np.uint8),
        "w": np.array(0, np.int8),
    }
    for source, target, shape in (
        ("x", "a", (CHANNELS, CHANNELS, 1, 1)),
        ("a", "b", (CHANNELS, CHANNELS, 3, 3)),
        ("v", "u", (VECTOR_OUT, VECTOR, 1, 1)),
    ):
        parameters[f"{target}_weights"] = rng.integers(-127, 128, shape, np.int8)
        inputs = [source, "s", "z", f"{target}_weights", "t", "w", "s", "z"]
        pads = [shape[2] // 2] * 4
        nodes.append(helper.make_node("QLinearConv", inputs, [target], target, pads=pads))
    inputs = ["a", "s", "z", "b", "s", "z", "s", "z"]
    nodes.append(helper.make_node("QLinearAdd", inputs, ["y"], "y", domain="com.microsoft"))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, channels, size, size])
        for name, channels, size in (
            ("x", CHANNELS, SIZE),
            ("v", VECTOR, 1),
            ("y", CHANNELS, SIZE),
            ("u", VECTOR_OUT, 1),
        )
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in parameters.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "roofline", ports[:2], ports[2:], constants)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)

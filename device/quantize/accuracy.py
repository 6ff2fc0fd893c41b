# SPDX-License-Identifier: Apache-2.0
"""How far an int8 model is from its float32 original, for each output and after each layer.

SQNR is 10 log10 of the power of the float32 values over the power of the difference, in dB, over
all samples. Tensors are met one sample at a time, so that memory does not grow with the data.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper

from device.measure.feeds import Array
from device.session import Session, open_onnxruntime

Step = Callable[[], None]

_LOSSLESS_DB = 60.0  # of an input that lost nothing yet: more than 8 bits can keep
_DEQUANTIZED = "_DequantizeLinear_Output"  # of onnxruntime.quantization


@dataclass(frozen=True)
class OutputAccuracy:
    """`sqnr_db` is None where both agree exactly. `top1` is the share of rows whose largest element
    is the same in both, None where a row has one element or the output is not [rows, classes]."""

    name: str
    sqnr_db: float | None
    largest_difference: float
    top1: float | None


@dataclass(frozen=True)
class LayerLoss:
    """What one layer does to the signal: `sqnr_db` behind it, and `drop_db`, how much less that is
    than at the worst of its quantized inputs. A layer is what lies between quantized tensors, for
    example Conv+Relu; `node` is its first."""

    node: str
    op: str
    tensor: str
    sqnr_db: float
    drop_db: float


@dataclass
class _Power:
    signal: float = 0.0
    noise: float = 0.0

    def add(self, wanted: Array, got: Array) -> None:
        exact = wanted.astype(np.float64)
        self.signal += float(np.square(exact).sum())
        self.noise += float(np.square(exact - got.astype(np.float64)).sum())

    @property
    def db(self) -> float:
        """Infinite without noise, minus infinite where all is noise."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


@dataclass
class _Seen:
    power: _Power = field(default_factory=_Power)
    largest: float = 0.0
    same: int = 0
    rows: int = 0

    def add(self, wanted: Array, got: Array) -> None:
        if wanted.dtype.kind not in "fiu" or not wanted.size:
            return
        self.power.add(wanted, got)
        apart = np.abs(wanted.astype(np.float64) - got.astype(np.float64))
        self.largest = max(self.largest, float(apart.max()))
        if wanted.ndim == 2 and wanted.shape[1] > 1:
            self.same += int((wanted.argmax(1) == got.argmax(1)).sum())
            self.rows += len(wanted)


def output_accuracy(
    float_model: Session, int8_model: Session, feeds: Iterable[Mapping[str, Array]], step: Step
) -> list[OutputAccuracy]:
    """Both sessions over all samples. Raises CardError."""
    seen = {info.name: _Seen() for info in float_model.outputs}
    for feed in feeds:
        results = (float_model.run(None, feed), int8_model.run(None, feed))
        for name, wanted, got in zip(seen, *results, strict=True):
            seen[name].add(wanted, got)
        step()
    return [
        OutputAccuracy(
            name,
            row.power.db if math.isfinite(row.power.db) else None,
            row.largest,
            row.same / row.rows if row.rows else None,
        )
        for name, row in seen.items()
    ]


def layer_losses(
    float_model: onnx.ModelProto,
    int8_model: onnx.ModelProto,
    feeds: Iterable[Mapping[str, Array]],
    step: Step,
) -> list[LayerLoss]:
    """Layers whose result is quantized, the one that loses most first.

    `int8_model` is what onnxruntime.quantization made of `float_model`: tensors are matched by the
    names it gives. Raises ModelError where onnxruntime cannot show the tensors.
    """
    pairs = _matched(float_model, int8_model)
    wanted = open_onnxruntime(_showing(float_model, list(pairs)), "the float32 model", 1)
    got = open_onnxruntime(_showing(int8_model, list(pairs.values())), "the int8 model", 1)
    powers = {name: _Power() for name in pairs}
    for feed in feeds:
        ours = got.run(list(pairs.values()), feed) if pairs else []
        computed = [name for name in pairs if name not in feed]
        theirs = dict(feed) | dict(zip(computed, wanted.run(computed, feed), strict=True))
        for (name, power), lossy in zip(powers.items(), ours, strict=True):
            power.add(theirs[name], lossy)
        step()
    return _ranked(float_model, powers)


def _ranked(model: onnx.ModelProto, powers: Mapping[str, _Power]) -> list[LayerLoss]:
    producers = {name: node for node in model.graph.node for name in node.output if name}
    losses = []
    for tensor, power in powers.items():
        if tensor not in producers or not math.isfinite(power.db):
            continue
        layer, inputs = _layer(tensor, producers, powers)
        before = [min(powers[name].db, _LOSSLESS_DB) for name in inputs]
        losses.append(
            LayerLoss(
                layer[0].name or f"{layer[0].op_type}_{layer[0].output[0]}",
                "+".join(node.op_type for node in layer),
                tensor,
                power.db,
                min(before, default=_LOSSLESS_DB) - power.db,
            )
        )
    return sorted(losses, key=lambda loss: -loss.drop_db)


def _layer(
    tensor: str, producers: Mapping[str, onnx.NodeProto], quantized: Mapping[str, _Power]
) -> tuple[list[onnx.NodeProto], list[str]]:
    """The nodes between a quantized tensor and those before it, in order, and those tensors."""
    nodes: list[onnx.NodeProto] = []
    found: list[str] = []
    waiting = [producers[tensor]]
    while waiting:
        node = waiting.pop()
        if node in nodes:
            continue
        nodes.insert(0, node)
        found += [name for name in node.input if name in quantized]
        waiting += [
            producers[name] for name in node.input if name in producers and name not in quantized
        ]
    return nodes, found


def _matched(float_model: onnx.ModelProto, int8_model: onnx.ModelProto) -> dict[str, str]:
    """{tensor of the float model: the same after its round trip through int8}."""
    produced = {name for node in int8_model.graph.node for name in node.output}
    weights = {tensor.name for tensor in float_model.graph.initializer}
    names = [value.name for value in float_model.graph.input if value.name not in weights]
    names += [name for node in float_model.graph.node for name in node.output]
    outputs = {value.name for value in int8_model.graph.output}
    pairs = {name: name + _DEQUANTIZED for name in names if name + _DEQUANTIZED in produced}
    return pairs | {name: name for name in names if name in outputs}


def _showing(model: onnx.ModelProto, tensors: Sequence[str]) -> bytes:
    """The model with these tensors as further outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ports = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    for name in tensors:
        if name not in ports:
            copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return copy.SerializeToString()

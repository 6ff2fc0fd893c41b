# SPDX-License-Identifier: Apache-2.0
"""Whole models as onnxruntime.quantization writes them: QDQ, QOperator, every choice of types."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from .arithmetic import Array
from .running import compile_model, difference, off_card

SHAPE = (3, 16, 16)


class Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self._name = name
        rng = np.random.default_rng(5)
        self._left = iter([rng.normal(0, 1, shape).astype(np.float32) for _ in range(4)])

    def get_next(self) -> dict[str, Array] | None:
        value = next(self._left, None)
        return None if value is None else {self._name: value}


class Net:
    """A small float network, layer by layer."""

    def __init__(self, batch: int | str, shape: tuple[int, ...] = SHAPE) -> None:
        self._rng = np.random.default_rng(3)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._batch, self._shape = batch, shape
        self.channels = shape[0]
        self.last = "x"

    def _const(self, values: Any) -> str:
        name = f"c{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, *more: str, **attributes: Any) -> str:
        out = f"{op.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, [self.last, *more], [out], out, **attributes))
        self.last = out
        return out

    def conv(self, channels: int, taps: int, **attributes: Any) -> str:
        groups = attributes.get("group", 1)
        shape = (channels, self.channels // groups, taps, taps)
        w = self._rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        b = self._rng.normal(0, 0.1, channels).astype(np.float32)
        self.channels = channels
        return self.add("Conv", self._const(w), self._const(b), **attributes)

    def gemm(self, inside: int, outside: int) -> str:
        w = self._rng.normal(0, 1 / np.sqrt(inside), (inside, outside)).astype(np.float32)
        return self.add("Gemm", self._const(w), self._const(np.zeros(outside, np.float32)))

    def const(self, values: Any) -> str:
        return self._const(values)

    def model(self, opset: int = 17) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [self._batch, *self._shape])
        y = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, "net", [x], [y], self._initializers)
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def residual(batch: int | str = 1) -> onnx.ModelProto:
    net = Net(batch)
    net.conv(16, 3, pads=[1, 1, 1, 1])
    stem = net.add("Relu")
    net.conv(16, 3, pads=[1, 1, 1, 1])
    net.add("Add", stem)
    net.add("Relu")
    net.conv(16, 3, group=16, pads=[1, 1, 1, 1], strides=[2, 2])
    net.add("Clip", net.const(np.float32(0)), net.const(np.float32(6)))
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.add("GlobalAveragePool")
    net.add("Flatten")
    net.gemm(16, 10)
    return net.model()


def mixed(batch: int | str = 1) -> onnx.ModelProto:
    """LeakyRelu, Sigmoid gate, Concat, Resize, AveragePool, Transpose, Reshape, Softmax."""
    net = Net(batch)
    left = net.conv(8, 3, pads=[1, 1, 1, 1], strides=[2, 2])
    net.add("LeakyRelu", alpha=0.1)
    gate = net.add("Sigmoid")
    net.last = left
    net.add("Mul", gate)
    scales = net.const(np.array([1, 1, 2, 2], np.float32))
    net.add("Resize", net.const(np.array([], np.float32)), scales, mode="nearest")
    wide = net.last
    net.add("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    net.add("Concat", wide, axis=1)
    net.channels = 16
    net.conv(4, 3, strides=[3, 3])
    net.add("Transpose", perm=[0, 2, 3, 1])
    net.add("Reshape", net.const(np.array([0, -1])))
    net.gemm(100, 7)
    net.add("Softmax", axis=-1)
    return net.model()


TYPES = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
FORMATS = {"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}


def quantized(
    model: onnx.ModelProto,
    folder: Path,
    form: str,
    activations: str,
    weights: str,
    channels: bool,
    **more: Any,
) -> onnx.ModelProto:
    value = model.graph.input[0]
    dims = value.type.tensor_type.shape.dim
    shape = tuple(d.dim_value or 1 for d in dims)
    path = folder / "quantized.onnx"
    quantize_static(
        model,
        path,
        Batches(value.name, shape),
        quant_format=FORMATS[form],
        activation_type=TYPES[activations],
        weight_type=TYPES[weights],
        per_channel=channels,
        extra_options=more,
    )
    return onnx.load(path)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """onnxruntime.quantization advises through the root logger."""
    before = logging.root.level
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)
    logging.root.setLevel(before)


CHOICES = pytest.mark.parametrize(
    ("form", "activations", "weights", "channels"),
    [
        (form, activations, weights, channels)
        for form in FORMATS
        for activations, weights in (("u8", "s8"), ("u8", "u8"), ("s8", "s8"))
        for channels in (False, True)
    ],
)


@CHOICES
@pytest.mark.parametrize("make", [residual, mixed])
def test_model(
    make: Any, form: str, activations: str, weights: str, channels: bool, tmp_path: Path
) -> None:
    more = {"ActivationSymmetric": False, "WeightSymmetric": True}
    model = quantized(make(), tmp_path, form, activations, weights, channels, **more)
    compiled = compile_model(model, name="quantized")
    left = {op for _, op, _ in off_card(compiled)}
    assert left == set(), off_card(compiled)
    x = np.random.default_rng(9).normal(0, 1, (1, *SHAPE)).astype(np.float32)
    apart, count = difference(model, {"x": x}, compiled)
    assert apart <= 1, f"{count} values differ by up to {apart} steps"
    if make is residual and activations == "u8":
        assert count == 0


def test_symmetric_activations_keep_their_clamps(tmp_path: Path) -> None:
    model = quantized(residual(), tmp_path, "qdq", "s8", "s8", True, ActivationSymmetric=True)
    assert "Relu" in {node.op_type for node in model.graph.node}
    compiled = compile_model(model)
    assert off_card(compiled) == []
    x = np.random.default_rng(9).normal(0, 1, (1, *SHAPE)).astype(np.float32)
    assert difference(model, {"x": x}, compiled)[0] <= 1


@pytest.mark.parametrize("batch", ["N", 3])
def test_batch(batch: int | str, tmp_path: Path) -> None:
    model = quantized(residual(1), tmp_path, "qdq", "u8", "s8", True)
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    if isinstance(batch, str):
        dim.dim_param = batch
    else:
        dim.dim_value = batch
    del model.graph.value_info[:]
    compiled = compile_model(model)
    assert off_card(compiled) == [] and compiled.batchable
    for items in (3,) if batch == 3 else (1, 2, 5):
        x = np.random.default_rng(items).normal(0, 1, (items, *SHAPE)).astype(np.float32)
        assert difference(model, {"x": x}, compiled) == (0, 0)

# SPDX-License-Identifier: Apache-2.0
"""Small quantized models for the tests: units of DequantizeLinear, an operator, QuantizeLinear."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .arithmetic import Array

KINDS = {"u8": (np.uint8, TensorProto.UINT8), "s8": (np.int8, TensorProto.INT8)}
IR = 8


@dataclass
class Builder:
    """Collects nodes, initializers and ports of a model."""

    kind: str = "u8"
    opset: int = 17
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    feeds: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def const(self, name: str, values: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], output: str, domain: str = "", **more: Any
    ) -> str:
        self.nodes.append(
            helper.make_node(op, list(inputs), [output], f"{op}_{output}", domain=domain, **more)
        )
        return output

    def zero(self, kind: str | None = None) -> Array:
        """A zero point, seldom the middle."""
        dtype = KINDS[kind or self.kind][0]
        low = 0 if dtype is np.uint8 else -128
        return np.asarray(self.rng.integers(low + 80, low + 170), dtype)

    def parameters(
        self,
        name: str,
        scale: float | None = None,
        zero: int | None = None,
        kind: str | None = None,
    ) -> tuple[str, str]:
        if scale is None:
            scale = float(self.rng.uniform(0.01, 0.03))
        dtype = KINDS[kind or self.kind][0]
        point = self.zero(kind) if zero is None else np.asarray(zero, dtype)
        return (
            self.const(f"{name}_scale", np.float32(scale)),
            self.const(f"{name}_zero", point),
        )

    def bytes(self, shape: Sequence[int], kind: str | None = None) -> Array:
        """Random values over the whole range."""
        return self.rng.integers(0, 256, shape, np.uint8).view(KINDS[kind or self.kind][0])

    def input(self, name: str, shape: Sequence[int], kind: str | None = None) -> str:
        """A quantized graph input with a random feed."""
        element = KINDS[kind or self.kind][1]
        self.inputs.append(helper.make_tensor_value_info(name, element, list(shape)))
        self.feeds[name] = self.bytes(shape, kind)
        return name

    def dequantized(
        self, name: str, shape: Sequence[int], scale: float | None = None, zero: int | None = None
    ) -> str:
        """A quantized graph input behind a DequantizeLinear."""
        self.input(name, shape)
        parameters = self.parameters(name, scale, zero)
        return self.node("DequantizeLinear", (name, *parameters), f"{name}_real")

    def quantized(
        self,
        value: str,
        name: str,
        scale: float | None = None,
        zero: int | None = None,
        output: bool = True,
    ) -> str:
        parameters = self.parameters(name, scale, zero)
        self.node("QuantizeLinear", (value, *parameters), name)
        if output:
            self.output(name)
        return name

    def again(self, quantized: str) -> str:
        """Another DequantizeLinear with the parameters that a tensor was quantized with."""
        inputs = (quantized, f"{quantized}_scale", f"{quantized}_zero")
        return self.node("DequantizeLinear", inputs, f"{quantized}_real")

    def output(self, name: str, element: int | None = None) -> None:
        kind = KINDS[self.kind][1] if element is None else element
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def weights(
        self, name: str, shape: Sequence[int], channels: bool, axis: int = 0, low: int = -127
    ) -> str:
        """int8 weights behind a DequantizeLinear, scales per channel or one."""
        values = self.rng.integers(low, 128, shape).astype(np.int8)
        count = (shape[axis],) if channels else ()
        scale = self.rng.uniform(0.002, 0.02, count).astype(np.float32)
        inputs = (
            self.const(name, values),
            self.const(f"{name}_scale", scale),
            self.const(f"{name}_zero", np.zeros(count, np.int8)),
        )
        more: dict[str, Any] = {"axis": axis} if channels else {}
        return self.node("DequantizeLinear", inputs, f"{name}_real", **more)

    def bias(self, name: str, count: int, x: str, w: str) -> str:
        """int32 bias with the scale that its operator implies."""
        known = {t.name: numpy_helper.to_array(t) for t in self.initializers}
        scale = np.asarray(known[f"{x}_scale"] * known[f"{w}_scale"], np.float32)
        values = self.rng.integers(-5000, 5000, count).astype(np.int32)
        inputs = (
            self.const(name, values),
            self.const(f"{name}_scale", scale),
            self.const(f"{name}_zero", np.zeros(scale.shape, np.int32)),
        )
        more: dict[str, Any] = {"axis": 0} if scale.size > 1 else {}
        return self.node("DequantizeLinear", inputs, f"{name}_real", **more)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "test", self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR)


def unary(
    op: str,
    shape: Sequence[int],
    kind: str = "u8",
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    same: bool = False,
    seed: int = 0,
    **attributes: Any,
) -> Builder:
    """DequantizeLinear, `op` with constant further inputs ("" leaves one out), QuantizeLinear;
    `same`: both with the same parameters."""
    b = Builder(kind, opset, seed)
    x = b.dequantized("x", shape, *((0.02, 3) if same else ()))
    more = [
        b.const(name, value) if value is not None else ""
        for name, value in (constants or {}).items()
    ]
    value = b.node(op, (x, *more), "value", **attributes)
    b.quantized(value, "y", *((0.02, 3) if same else ()))
    return b

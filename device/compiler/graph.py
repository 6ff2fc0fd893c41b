# SPDX-License-Identifier: Apache-2.0
"""A model as the compiler sees it: nodes in running order, constants, types, concrete shapes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from device.compiler.plan import Array
from device.compiler.weights import Weights

Shape = tuple[int, ...]
MICROSOFT = "com.microsoft"
UINT8 = int(onnx.TensorProto.UINT8)
INT8 = int(onnx.TensorProto.INT8)
INT32 = int(onnx.TensorProto.INT32)
INT64 = int(onnx.TensorProto.INT64)
FLOAT = int(onnx.TensorProto.FLOAT)


@dataclass(frozen=True, eq=False)
class Node:
    """One operator. `index` numbers the node of the model it stands for: operators that the
    compiler split from one node share it. `domain` is "" for ONNX's own."""

    index: int
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    name: str
    captures: tuple[str, ...] = ()  # what its subgraphs read from outside

    @property
    def output(self) -> str:
        return self.outputs[0]

    def input(self, position: int) -> str:
        """The name of an input, "" where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""

    @property
    def label(self) -> str:
        return self.name or f"{self.op}_{next((o for o in self.outputs if o), self.index)}"


class Constants:
    """Named constant tensors; an initializer is decoded when it is first asked for, its bytes read
    from `weights` where they were left there."""

    def __init__(
        self, initializers: Iterable[onnx.TensorProto] = (), weights: Weights | None = None
    ) -> None:
        self._protos = {proto.name: proto for proto in initializers}
        self._weights = weights or Weights()
        self._decoded: dict[str, Array] = {}
        self._arrays: dict[str, Array] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._arrays or name in self._protos

    def __setitem__(self, name: str, array: Array) -> None:
        self._arrays[name] = array

    def get(self, name: str) -> Array | None:
        array = self._arrays.get(name)
        if array is None and name in self._protos:
            array = self._decoded.get(name)
            if array is None:
                array = self._decoded[name] = self._decode(self._protos[name])
        return array

    def _decode(self, proto: onnx.TensorProto) -> Array:
        if proto.name not in self._weights:
            return numpy_helper.to_array(proto)
        data = self._weights.read(proto.name)
        dtype = numpy_dtype(proto.data_type)
        if dtype.kind in "iuf":
            return np.frombuffer(data, dtype.newbyteorder("<")).reshape(proto.dims)
        whole = onnx.TensorProto(data_type=proto.data_type, dims=proto.dims, raw_data=data)
        return numpy_helper.to_array(whole)

    def copy(self) -> "Constants":
        """Shares initializers, decoded or not; additions to the copy stay there."""
        twin = Constants((), self._weights)
        twin._protos, twin._decoded = self._protos, self._decoded
        twin._arrays = dict(self._arrays)
        return twin

    def added(self, elements: int) -> dict[str, onnx.TensorProto]:
        """Constants of at most so many elements that are no initializers, as protos."""
        return {
            name: numpy_helper.from_array(array, name)
            for name, array in self._arrays.items()
            if name not in self._protos and array.size <= elements
        }

    def added_infos(self, elements: int) -> list[onnx.ValueInfoProto]:
        """Types and shapes of those of more elements."""
        return [
            onnx.helper.make_tensor_value_info(name, self.type(name), array.shape)
            for name, array in self._arrays.items()
            if name not in self._protos and array.size > elements
        ]

    def shape(self, name: str) -> Shape:
        array = self._arrays.get(name)
        return tuple(self._protos[name].dims) if array is None else array.shape

    def type(self, name: str) -> int:
        array = self._arrays.get(name)
        if array is None:
            return int(self._protos[name].data_type)
        return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


@dataclass
class Graph:
    """Nodes in running order. `shapes` and `types` hold what is known of each tensor that is not
    constant; a tensor without an entry has an unknown one."""

    nodes: list[Node]
    constants: Constants
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    folded: set[int] = field(default_factory=set)  # indices of nodes known before any input
    # Transpose of weights, done when compiled -> the DequantizeLinear before it
    transposed: dict[int, int] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)  # indices of nodes whose results nobody reads
    # spared node -> the one that does the same; tensor no longer produced -> its equal
    merged: dict[int, int] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def producers(self) -> dict[str, Node]:
        return {out: node for node in self.nodes for out in node.outputs if out}

    def consumers(self) -> dict[str, list[Node]]:
        """Readers of each tensor in running order, each reader once."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys((*node.inputs, *node.captures)):
                if name:
                    readers.setdefault(name, []).append(node)
        return readers

    def fixed_names(self) -> set[str]:
        """Tensors that must keep their name: outputs, and what subgraphs read from outside."""
        return {*self.outputs, *(name for node in self.nodes for name in node.captures)}

    def shape(self, name: str) -> Shape | None:
        return self.constants.shape(name) if name in self.constants else self.shapes.get(name)

    def type(self, name: str) -> int | None:
        return self.constants.type(name) if name in self.constants else self.types.get(name)


def numpy_dtype(elem_type: int) -> np.dtype[Any]:
    """numpy's dtype of an ONNX element type; object for strings and unknown ones."""
    if elem_type == onnx.TensorProto.STRING:
        return np.dtype(object)
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except (KeyError, ValueError):
        return np.dtype(object)


def proto_of(node: Node, proto: onnx.ModelProto) -> onnx.NodeProto:
    """The node as the model holds it, or anew where the compiler made or changed it."""
    original = proto.graph.node[node.index]
    attributes = {k: v for k, v in node.attributes.items() if not k.startswith("_")}
    plain = len(attributes) == len(node.attributes)
    if plain and original.op_type == node.op and tuple(original.input) == node.inputs:
        return original
    return onnx.helper.make_node(
        node.op, node.inputs, node.outputs, node.name or None, domain=node.domain, **attributes
    )


def outer_names(node: onnx.NodeProto) -> set[str]:
    """Tensors that the node's subgraphs (If, Loop, Scan) read from outside."""
    found: set[str] = set()
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            inner = {value.name for value in graph.input}
            inner |= {tensor.name for tensor in graph.initializer}
            for child in graph.node:
                found |= ({*child.input} | outer_names(child)) - inner - {""}
                inner |= set(child.output)
            found |= {value.name for value in graph.output} - inner
    return found

# SPDX-License-Identifier: Apache-2.0
"""ONNX bytes to a checked model, and a model with input shapes to a Graph with every shape known.

Checks and shape inference run on a skeleton: the model with its large initializers turned into
inputs, so that their bytes are not copied.
"""

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import checker, shape_inference

from device.compiler.ceiling import settle_ceilings
from device.compiler.expand import expand, split
from device.compiler.fold import drop_dead, fold
from device.compiler.graph import Constants, Graph, Node, Shape, numpy_dtype, outer_names, proto_of
from device.compiler.plan import TensorInfo
from device.compiler.weights import Weights
from device.errors import ModelError

LARGE = 64  # elements; smaller initializers may be shapes, axes or pads, which inference reads
TENSOR_BYTES_MAX = 1 << 31
_FOREIGN_TYPES = (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED)


class Clash(ModelError):
    """ONNX's inference finds that types or shapes do not fit together."""


def read_model(
    model: bytes | onnx.ModelProto, name: str, weights: Weights | None = None
) -> onnx.ModelProto:
    """Parse and check; raises ModelError naming the model, the node and what is wrong."""
    proto = _parse(model, name)
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(f"{name}: not an ONNX model (it has no graph or names no opset)")
    _check_versions(proto, name)
    _check_names(proto.graph, name)
    for tensor in proto.graph.initializer:
        _check_initializer(tensor, name, weights or Weights())
    try:
        checker.check_model(skeleton(proto, proto.graph.node))
    except checker.ValidationError as error:
        raise ModelError(f"{name}: the ONNX checker refuses it: {one_line(error)}") from error
    return proto


def _parse(model: bytes | onnx.ModelProto, name: str) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    if not model:
        raise ModelError(f"{name}: the model is empty (0 bytes)")
    try:
        return onnx.load_model_from_string(model)
    except Exception as error:
        raise ModelError(
            f"{name}: not an ONNX model, or cut short ({len(model)} bytes): {one_line(error)}"
        ) from error


def _check_versions(proto: onnx.ModelProto, name: str) -> None:
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{name}: ONNX IR version {proto.ir_version} is newer than {onnx.IR_VERSION}, the "
            "newest known here; export it for an older one"
        )
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= newest:
            raise ModelError(
                f"{name}: opset {entry.version} is unknown (1 to {newest} are known); convert the "
                "model with onnx.version_converter or export it anew"
            )


def _check_names(graph: onnx.GraphProto, name: str) -> None:
    """Every tensor has one producer, and it comes before its readers (ONNX IR, SSA)."""
    known = {tensor.name for tensor in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    known |= {value.name for value in graph.input}
    produced = {out for node in graph.node for out in node.output if out}
    for node in graph.node:
        label = node.name or f"{node.op_type}_{node.output[0] if node.output else ''}"
        for source in node.input:
            if source and source not in known:
                why = (
                    "is produced only later: the graph has a cycle or its nodes are not sorted"
                    if source in produced
                    else "is no input, initializer or output of another node"
                )
                raise ModelError(f'{name}: node "{label}" reads "{source}", which {why}')
        for out in node.output:
            if out and out in known:
                raise ModelError(f'{name}: "{out}" is produced twice, again by node "{label}"')
            known.add(out)
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f'{name}: no node produces the output "{value.name}"')


def _check_initializer(tensor: onnx.TensorProto, name: str, weights: Weights) -> None:
    title = f'{name}: initializer "{tensor.name}"'
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        raise ModelError(
            f'{title} lies in another file ("{where}"); load the model by its path, with that '
            "file beside it, or save it in one file"
        )
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"{title} has a negative dimension: {list(tensor.dims)}")
    dtype = numpy_dtype(tensor.data_type)
    if dtype.hasobject:
        return
    elements = math.prod(tensor.dims)
    if elements * dtype.itemsize >= TENSOR_BYTES_MAX:
        raise ModelError(f"{title} of shape {list(tensor.dims)} is 2 GiB or larger")
    left = tensor.name in weights
    if (left or tensor.HasField("raw_data")) and dtype.itemsize > 0:
        bits = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}.get(
            dtype.name, 8 * dtype.itemsize
        )
        expected = (elements * bits + 7) // 8
        found = weights.size(tensor.name) if left else len(tensor.raw_data)
        if found != expected:
            raise ModelError(
                f"{title} of shape {list(tensor.dims)} needs {expected} bytes, has {found}"
            )


def skeleton(
    proto: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, Shape] | None = None,
    constants: Mapping[str, onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    """The model with these nodes and without the bytes of its large initializers.

    With `shapes`, inputs get them and the declared shapes of outputs and values are left out.
    `constants` adds initializers.
    """
    # before IR 4 every initializer had to be an input as well
    bare = onnx.ModelProto(ir_version=max(proto.ir_version, 4))
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    graph = bare.graph
    graph.name = proto.graph.name or "graph"
    graph.node.extend(nodes)
    initializers = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in initializers:
            continue
        graph.input.append(value)
        if shapes is not None and value.name in shapes:
            _set_shape(graph.input[-1], shapes[value.name])
    for value in proto.graph.output:
        graph.output.append(value)
        if shapes is not None and value.type.HasField("tensor_type"):
            graph.output[-1].type.tensor_type.ClearField("shape")
    if shapes is None:
        for value in (*graph.input, *graph.output):
            if value.type.HasField("tensor_type"):  # the checker wants one; onnxruntime does not
                value.type.tensor_type.shape.SetInParent()
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) > LARGE and tensor.data_type not in _FOREIGN_TYPES:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(info)
        else:
            graph.initializer.append(tensor)
    graph.sparse_initializer.extend(proto.graph.sparse_initializer)
    if constants:
        graph.initializer.extend(constants.values())
    return bare


def at_shapes(proto: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy of the model whose inputs have these shapes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in copy.graph.input:
        if value.name in shapes:
            _set_shape(value, shapes[value.name])
    return copy


def _set_shape(value: onnx.ValueInfoProto, shape: Shape) -> None:
    tensor = value.type.tensor_type
    tensor.ClearField("shape")
    for size in shape:
        tensor.shape.dim.add().dim_value = size


def build_graph(
    proto: onnx.ModelProto,
    shapes: Mapping[str, Shape],
    name: str,
    initializers: Constants | None = None,
) -> Graph:
    """The model at these input shapes: QOperator nodes split in their QDQ units, constants
    folded, types and shapes inferred. `initializers`: those of the model, for several graphs of it
    to share. Raises ModelError where the shapes do not fit together."""
    constants = (initializers or Constants(proto.graph.initializer)).copy()
    graph = Graph(
        nodes=[node_of(index, node) for index, node in enumerate(proto.graph.node)],
        constants=constants,
        inputs=tuple(v.name for v in proto.graph.input if v.name not in constants),
        outputs=tuple(v.name for v in proto.graph.output),
        opset=opset(proto),
    )
    expand(graph)
    while True:
        _infer(graph, proto, shapes, name)
        again = settle_ceilings(graph)
        if not (fold(graph, proto) or again):
            drop_dead(graph)
            split(graph)
            return graph


def node_of(index: int, node: onnx.NodeProto) -> Node:
    return Node(
        index=index,
        op=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
        name=node.name,
        captures=tuple(sorted(outer_names(node))),
    )


def opset(proto: onnx.ModelProto) -> int:
    """Version of ONNX's own operators that the model imports; 0 where it imports none."""
    versions = [int(e.version) for e in proto.opset_import if e.domain in ("", "ai.onnx")]
    return versions[0] if versions else 0


def _infer(graph: Graph, proto: onnx.ModelProto, shapes: Mapping[str, Shape], name: str) -> None:
    nodes = [proto_of(node, proto) for node in graph.nodes]
    bare = skeleton(proto, nodes, shapes, graph.constants.added(LARGE))
    bare.graph.input.extend(graph.constants.added_infos(LARGE))
    try:
        inferred = shape_inference.infer_shapes(bare, True, True, True).graph
    except shape_inference.InferenceError as error:
        given = ", ".join(f"{key} {list(value)}" for key, value in shapes.items())
        raise Clash(f"{name}: types or shapes clash ({given}): {one_line(error)}") from error
    graph.shapes.clear()
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if not value.type.HasField("tensor_type"):
            continue
        tensor = value.type.tensor_type
        graph.types[value.name] = int(tensor.elem_type)
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shape = tuple(int(d.dim_value) for d in tensor.shape.dim)
            check_size(value.name, shape, name)
            graph.shapes[value.name] = shape


def check_size(tensor: str, shape: Shape, name: str) -> None:
    if any(size < 0 for size in shape):
        raise ModelError(f'{name}: tensor "{tensor}" would get shape {list(shape)}')
    if math.prod(shape) >= TENSOR_BYTES_MAX:
        raise ModelError(f'{name}: tensor "{tensor}" of shape {list(shape)} is larger than 2 GiB')


def tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    """An input or output as the model declares it."""
    if value.type.WhichOneof("value") != "tensor_type":
        return TensorInfo(value.name, numpy_dtype(0), spelled(value.type), [])
    tensor = value.type.tensor_type
    dims: list[int | str | None] = [
        int(d.dim_value) if d.HasField("dim_value") else (d.dim_param or None)
        for d in tensor.shape.dim
    ]
    return TensorInfo(value.name, numpy_dtype(tensor.elem_type), spelled(value.type), dims)


def spelled(kind: onnx.TypeProto) -> str:
    """A type as onnxruntime spells it, for example "seq(tensor(float))"."""
    match kind.WhichOneof("value"):
        case "tensor_type":
            return f"tensor({_element(kind.tensor_type.elem_type)})"
        case "sparse_tensor_type":
            return f"sparse_tensor({_element(kind.sparse_tensor_type.elem_type)})"
        case "sequence_type":
            return f"seq({spelled(kind.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({spelled(kind.optional_type.elem_type)})"
        case "map_type":
            return f"map({_element(kind.map_type.key_type)},{spelled(kind.map_type.value_type)})"
    return "unknown"


def _element(elem_type: int) -> str:
    return onnx.TensorProto.DataType.Name(elem_type).lower()


def one_line(error: Exception) -> str:
    """The error's text on one line, cut to what a person reads."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."

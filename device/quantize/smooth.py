# SPDX-License-Identifier: Apache-2.0
"""Activations whose channels are of unlike size made alike before they share one scale.

A product x W equals (x / s) (s W) for any s > 0 per channel. Transformers have a few channels that
are many times larger than the rest, which then lose most of their 8 bits; the weights, which have
a scale for each of their own channels, bear them better. s = max|x|^alpha / max|W|^(1 - alpha) as
in SmoothQuant (arXiv:2211.10438), divided by its geometric mean.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from device.compiler.graph import outer_names
from device.measure.feeds import Array
from device.session import open_onnxruntime

_LEAST = 1e-5  # of a channel's size, so that one that is always 0 keeps a finite s


def smoothed(
    model: onnx.ModelProto,
    feeds: Iterable[Mapping[str, Array]],
    alpha: float,
    excluded: Collection[str],
    step: Callable[[], None],
) -> onnx.ModelProto:
    """A copy with a Mul before each activation that MatMul or Gemm multiply by constant weights,
    but for nodes of the `excluded` names. Raises ModelError where onnxruntime cannot run it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in result.graph.initializer}
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in result.graph.node:
        if node.name not in excluded and _multiplies_weights(node, weights):
            groups.setdefault(node.input[0], []).append(node)
    sizes = _channel_sizes(model, list(groups), feeds, step)
    inserted: dict[str, onnx.NodeProto] = {}
    for activation, nodes in groups.items():
        inserted[nodes[0].output[0]] = _moved(
            result.graph, activation, nodes, weights, sizes, alpha
        )
    _insert(result.graph, inserted)
    return result


def _multiplies_weights(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx"):
        return False
    weight = weights.get(node.input[1])
    return (
        node.input[0] not in weights
        and weight is not None
        and len(weight.dims) == 2
        and weight.data_type == TensorProto.FLOAT
        and not _attribute(node, "transA")
    )


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((entry.i for entry in node.attribute if entry.name == name), 0)


def _channel_sizes(
    model: onnx.ModelProto,
    activations: Sequence[str],
    feeds: Iterable[Mapping[str, Array]],
    step: Callable[[], None],
) -> dict[str, Array]:
    """Largest absolute value of each channel, the last axis, over all samples."""
    showing = onnx.ModelProto()
    showing.CopyFrom(model)
    ports = {value.name for value in (*showing.graph.input, *showing.graph.output)}
    computed = [name for name in activations if name not in ports]
    for name in computed:
        showing.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_onnxruntime(showing.SerializeToString(), "the float32 model", 1)
    asked = [value.name for value in showing.graph.output if value.name in activations]
    sizes: dict[str, Array] = {}
    for feed in feeds:
        found = dict(feed) | dict(
            zip(asked, session.run(asked, feed) if asked else [], strict=True)
        )
        for name in activations:
            value = np.abs(found[name])
            largest = value.reshape(-1, value.shape[-1]).max(axis=0)
            sizes[name] = np.maximum(sizes.get(name, largest), largest)
        step()
    return sizes


def _moved(
    graph: onnx.GraphProto,
    activation: str,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, onnx.TensorProto],
    sizes: Mapping[str, Array],
    alpha: float,
) -> onnx.NodeProto:
    """The Mul by 1 / s; the nodes now read it and weights of their own, times s."""
    turned = [_attribute(node, "transB") for node in nodes]
    matrices = [numpy_helper.to_array(weights[node.input[1]]) for node in nodes]
    largest = np.max(
        [np.abs(w).max(axis=0 if t else 1) for w, t in zip(matrices, turned, strict=True)], axis=0
    )
    logs = alpha * np.log(np.maximum(sizes[activation], _LEAST), dtype=np.float64)
    logs -= (1 - alpha) * np.log(np.maximum(largest, _LEAST), dtype=np.float64)
    factor = np.exp(logs - logs.mean())
    shrink = f"{activation}_shrink"
    graph.initializer.append(numpy_helper.from_array((1 / factor).astype(np.float32), shrink))
    for node, matrix, turn in zip(nodes, matrices, turned, strict=True):
        grown = (matrix * (factor if turn else factor[:, np.newaxis])).astype(np.float32)
        name = f"{node.input[1]}_of_{node.output[0]}"
        graph.initializer.append(numpy_helper.from_array(grown, name))
        node.input[0], node.input[1] = f"{activation}_smooth", name
    return helper.make_node("Mul", [activation, shrink], [f"{activation}_smooth"], shrink)


def _insert(graph: onnx.GraphProto, before: Mapping[str, onnx.NodeProto]) -> None:
    """Each node before the one that has this output; weights that nobody reads any more go."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in before:
            nodes.append(before[node.output[0]])
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
    read = {name for node in nodes for name in (*node.input, *outer_names(node))}
    read |= {value.name for value in graph.output}
    kept = [
        onnx.TensorProto.FromString(tensor.SerializeToString())
        for tensor in graph.initializer
        if tensor.name in read
    ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)

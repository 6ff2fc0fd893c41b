# SPDX-License-Identifier: Apache-2.0
"""Pools with ceil_mode, sized as onnxruntime sizes them: without a last window that would start
behind the image. ONNX's own shape inference counts that one."""

import dataclasses

from device.compiler.graph import Graph, Node

POOLS = {"AveragePool", "LpPool", "MaxPool"}


def settle_ceilings(graph: Graph) -> bool:
    """Gives pools whose inferred size is too large the padding that leads to the right one without
    ceil_mode; whether there were any, so that shapes are to be inferred anew."""
    settled = [_settled(node, graph) for node in graph.nodes]
    changed = any(new is not old for new, old in zip(settled, graph.nodes, strict=True))
    graph.nodes = settled
    return changed


def _settled(node: Node, graph: Graph) -> Node:
    attributes = node.attributes
    if node.domain or node.op not in POOLS or not attributes.get("ceil_mode", 0):
        return node
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return node
    shape, inferred = graph.shape(node.inputs[0]), graph.shape(node.output)
    if shape is None or inferred is None:
        return node
    rank = len(shape) - 2
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    pads = list(attributes.get("pads") or [0] * 2 * rank)
    changed = False
    for axis in range(rank):
        size, out, before = shape[axis + 2], inferred[axis + 2], pads[axis]
        if (out - 1) * strides[axis] >= size + before:
            out -= 1
            changed = True
        span = (attributes["kernel_shape"][axis] - 1) * dilations[axis] + 1
        needed = (out - 1) * strides[axis] + span - size - before
        pads[rank + axis] = max(pads[rank + axis], needed)
    if not changed:
        return node
    return dataclasses.replace(
        node, attributes={**attributes, "ceil_mode": 0, "pads": pads, "_settled": True}
    )

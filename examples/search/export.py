# SPDX-License-Identifier: Apache-2.0
"""all-MiniLM-L6-v2 as ONNX: a BERT encoder, the mean over its tokens, scaled to length 1.

Inputs `input_ids`, `attention_mask` and `token_type_ids` are int64 [batch, sequence]; the output
`embedding` is float32 [batch, 384], so that a product of two of them is their cosine.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from examples.search.minilm import Weights

OPSET = 17
LAYERS = 6
HEADS = 12
WIDTH = 384
LAYERNORM_EPSILON = 1e-12
MASKED = -1e4  # added to the score of a token that is padding: its e^x is 0
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Graph:
    """Nodes and constants as they are appended; a node is named after its place in the model."""

    def __init__(self, weights: Weights) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._weights = weights

    def node(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The node's one output, which has its name."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name: str, value: Any, dtype: str = "f4") -> str:
        """A constant by name; the same name twice is the same constant."""
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def weight(self, name: str) -> str:
        """A tensor of the original."""
        return self.constant(name, self._weights[name])

    def linear(self, name: str, source: str) -> str:
        """source x weight^T + bias over the last axis."""
        turned = np.ascontiguousarray(self._weights[f"{name}.weight"].T)
        product = self.node(
            "MatMul", f"{name}.product", [source, self.constant(f"{name}.weight", turned)]
        )
        return self.node("Add", name, [product, self.weight(f"{name}.bias")])

    def normalized(self, name: str, source: str) -> str:
        """LayerNorm over the last axis."""
        affine = [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.node(
            "LayerNormalization", name, [source, *affine], axis=-1, epsilon=LAYERNORM_EPSILON
        )


def export(weights: Weights) -> onnx.ModelProto:
    """The model, checked."""
    graph = _Graph(weights)
    at = _embedded(graph)
    bias = _mask_bias(graph)
    for layer in range(LAYERS):
        at = _layer(graph, f"encoder.layer.{layer}", at, bias)
    _pooled(graph, at)
    shape = ["batch", "sequence"]
    ports = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in INPUTS]
    result = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "all-MiniLM-L6-v2", ports, [result], list(graph.constants.values())
        ),
        producer_name="tepi examples/search",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _embedded(graph: _Graph) -> str:
    """The sum of word, type and position embeddings, normalized: [batch, sequence, 384]."""
    zero, one = graph.constant("zero", [0], "i8"), graph.constant("one", [1], "i8")
    shape = graph.node("Shape", "embeddings.shape", ["input_ids"])
    length = graph.node(
        "Slice", "embeddings.length", [shape, one, graph.constant("two", [2], "i8")]
    )
    table = graph.weight("embeddings.position_embeddings.weight")
    positions = graph.node("Slice", "embeddings.positions", [table, zero, length, zero])
    words, types = (
        graph.node("Gather", f"embeddings.{part}", [graph.weight(f"embeddings.{table}"), indices])
        for part, table, indices in (
            ("words", "word_embeddings.weight", "input_ids"),
            ("types", "token_type_embeddings.weight", "token_type_ids"),
        )
    )
    typed = graph.node("Add", "embeddings.typed", [words, types])
    placed = graph.node("Add", "embeddings.placed", [typed, positions])
    return graph.normalized("embeddings.LayerNorm", placed)


def _mask_bias(graph: _Graph) -> str:
    """What is added to the scores: 0, or MASKED where the token looked at is padding."""
    mask = graph.node("Cast", "mask.float", ["attention_mask"], to=TensorProto.FLOAT)
    absent = graph.node("Sub", "mask.absent", [graph.constant("mask.one", 1), mask])
    bias = graph.node("Mul", "mask.scaled", [absent, graph.constant("mask.value", MASKED)])
    axes = graph.constant("mask.axes", [1, 2], "i8")
    return graph.node("Unsqueeze", "mask.bias", [bias, axes])


def _layer(graph: _Graph, name: str, source: str, bias: str) -> str:
    """Attention and a feed-forward network, each with a way around it and normalized."""
    attended = graph.linear(
        f"{name}.attention.output.dense", _attention(graph, f"{name}.attention", source, bias)
    )
    around = graph.node("Add", f"{name}.attention.sum", [attended, source])
    middle = graph.normalized(f"{name}.attention.output.LayerNorm", around)
    wide = _gelu(graph, f"{name}.gelu", graph.linear(f"{name}.intermediate.dense", middle))
    narrow = graph.linear(f"{name}.output.dense", wide)
    around = graph.node("Add", f"{name}.output.sum", [narrow, middle])
    return graph.normalized(f"{name}.output.LayerNorm", around)


def _attention(graph: _Graph, name: str, source: str, bias: str) -> str:
    """Softmax(query x key^T / root of a head's width + bias) x value, heads side by side."""
    parts = graph.constant("attention.parts", [0, 0, HEADS, WIDTH // HEADS], "i8")

    def split(kind: str, order: Sequence[int]) -> str:
        whole = graph.linear(f"{name}.self.{kind}", source)
        heads = graph.node("Reshape", f"{name}.{kind}.heads", [whole, parts])
        return graph.node("Transpose", f"{name}.{kind}.turned", [heads], perm=list(order))

    keys_and_queries = [split("query", (0, 2, 1, 3)), split("key", (0, 2, 3, 1))]
    value = split("value", (0, 2, 1, 3))
    scores = graph.node("MatMul", f"{name}.scores", keys_and_queries)
    scale = graph.constant("attention.scale", (WIDTH // HEADS) ** -0.5)
    scaled = graph.node("Mul", f"{name}.scaled", [scores, scale])
    masked = graph.node("Add", f"{name}.masked", [scaled, bias])
    shares = graph.node("Softmax", f"{name}.shares", [masked], axis=-1)
    mixed = graph.node("MatMul", f"{name}.mixed", [shares, value])
    turned = graph.node("Transpose", f"{name}.mixed.turned", [mixed], perm=[0, 2, 1, 3])
    whole = graph.constant("attention.whole", [0, 0, WIDTH], "i8")
    return graph.node("Reshape", f"{name}.mixed.whole", [turned, whole])


def _gelu(graph: _Graph, name: str, source: str) -> str:
    """x * (1 + erf(x / root 2)) / 2."""
    shrunk = graph.node("Mul", f"{name}.shrunk", [source, graph.constant("gelu.shrink", 2**-0.5)])
    erf = graph.node("Erf", f"{name}.erf", [shrunk])
    lifted = graph.node("Add", f"{name}.lifted", [erf, graph.constant("gelu.one", 1)])
    half = graph.node("Mul", f"{name}.half", [source, graph.constant("gelu.half", 0.5)])
    return graph.node("Mul", name, [half, lifted])


def _pooled(graph: _Graph, source: str) -> str:
    """The mean over the tokens that are no padding, divided by its length."""
    last = graph.constant("pool.axis", [2], "i8")
    mask = graph.node("Unsqueeze", "pool.mask", ["mask.float", last])
    tokens = graph.constant("pool.tokens", [1], "i8")
    kept = graph.node("Mul", "pool.kept", [source, mask])
    total = graph.node("ReduceSum", "pool.total", [kept, tokens], keepdims=0)
    count = graph.node("ReduceSum", "pool.count", [mask, tokens], keepdims=0)
    least = graph.node("Max", "pool.least", [count, graph.constant("pool.tiny", 1e-9)])
    mean = graph.node("Div", "pool.mean", [total, least])
    length = graph.node("ReduceL2", "pool.length", [mean], axes=[1], keepdims=1)
    above = graph.node("Max", "pool.above", [length, graph.constant("pool.small", 1e-12)])
    return graph.node("Div", "embedding", [mean, above])

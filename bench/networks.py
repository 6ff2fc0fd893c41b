# SPDX-License-Identifier: Apache-2.0
"""Networks of well-known shapes with random weights, quantized to int8, for measuring speed alone.

`resnet50`, `mobilenetv2` and `resnet8` have the layers of the networks of that name, `dscnn` and
`mlp` those of the keyword spotter and the machine-sound autoencoder of MLPerf Tiny; `encoder` is a
text encoder on embedded tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

OPSET = 17
MOBILENET = (  # expansion, channels, blocks, stride
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


class Network:
    """Appends layers; `at` is the tensor that the next one reads, `channels` its channels."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = list(shape)
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.at, self.channels = "x", shape[1]

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node's output, which the next layer reads."""
        self.at = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [self.at], self.at, **attributes))
        return self.at

    def constant(self, values: np.ndarray[Any, Any]) -> str:
        """Its name."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self, channels: int, kernel: int | tuple[int, int], stride: int = 1, groups: int = 1
    ) -> str:
        """Convolution with bias, padded so that stride 1 keeps the size."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        shape = (channels, self.channels // groups, height, width)
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weights = self.rng.normal(0, spread, shape).astype("f4")
        bias = self.rng.normal(0, 0.05, channels).astype("f4")
        self.channels = channels
        top, left = (height - 1) // 2, (width - 1) // 2
        return self.node(
            "Conv",
            [self.at, self.constant(weights), self.constant(bias)],
            strides=[stride, stride],
            pads=[top, left, height // 2, width // 2],
            group=groups,
        )

    def relu(self) -> str:
        """The activation."""
        return self.node("Relu", [self.at])

    def relu6(self) -> str:
        """Relu that ends at 6."""
        bounds = (self.constant(np.array(bound, "f4")) for bound in (0, 6))
        return self.node("Clip", [self.at, *bounds])

    def dense(self, inputs: int, outputs: int) -> str:
        """Fully connected."""
        weights = self.rng.normal(0, np.sqrt(2 / inputs), (outputs, inputs)).astype("f4")
        bias = self.constant(np.zeros(outputs, "f4"))
        self.channels = outputs
        return self.node("Gemm", [self.at, self.constant(weights), bias], transB=1)

    def classify(self, classes: int) -> str:
        """Mean over the image, then one dense layer."""
        self.node("GlobalAveragePool", [self.at])
        self.node("Flatten", [self.at])
        return self.dense(self.channels, classes)

    def model(self) -> onnx.ModelProto:
        """The network so far."""
        ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)]
        result = [helper.make_tensor_value_info(self.at, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", ports, result, self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def mlp() -> Network:
    """640-128-128-128-128-8-128-128-128-128-640."""
    net = Network([1, 640])
    widths = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    for inputs, outputs in pairwise(widths):
        net.dense(inputs, outputs)
        if outputs != 640:
            net.relu()
    return net


def dscnn() -> Network:
    """Depthwise separable convolutions over a spectrogram of 49 x 10."""
    net = Network([1, 1, 49, 10])
    net.conv(64, (10, 4), 2)
    net.relu()
    for _ in range(4):
        net.conv(64, 3, groups=64)
        net.relu()
        net.conv(64, 1)
        net.relu()
    net.classify(12)
    return net


def resnet8() -> Network:
    """Three residual blocks on 32 x 32."""
    net = Network([1, 3, 32, 32])
    net.conv(16, 3)
    net.relu()
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        _residual(net, [(channels, 3, stride), (channels, 3, 1)], stride)
    net.classify(10)
    return net


def resnet50() -> Network:
    """Sixteen bottleneck blocks on 224 x 224."""
    net = Network([1, 3, 224, 224])
    net.conv(64, 7, 2)
    net.relu()
    net.node("MaxPool", [net.at], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            _residual(net, [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)], stride)
    net.classify(1000)
    return net


def _residual(net: Network, layers: Sequence[tuple[int, int, int]], stride: int) -> None:
    """Convolutions (channels, kernel, stride) with a way around them."""
    source, channels = net.at, net.channels
    for number, (wide, kernel, step) in enumerate(layers):
        net.conv(wide, kernel, step)
        if number + 1 < len(layers):
            net.relu()
    main, wide = net.at, net.channels
    if wide != channels or stride != 1:
        net.at, net.channels = source, channels
        source = net.conv(wide, 1, stride)
    net.node("Add", [main, source])
    net.relu()


def mobilenetv2() -> Network:
    """Seventeen inverted residuals on 224 x 224."""
    net = Network([1, 3, 224, 224])
    net.conv(32, 3, 2)
    net.relu6()
    for expansion, channels, blocks, first in MOBILENET:
        for block in range(blocks):
            stride = 1 if block else first
            source, before = net.at, net.channels
            if expansion != 1:
                net.conv(before * expansion, 1)
                net.relu6()
            net.conv(net.channels, 3, stride, groups=net.channels)
            net.relu6()
            net.conv(channels, 1)
            if stride == 1 and before == channels:
                net.node("Add", [net.at, source])
    net.conv(1280, 1)
    net.relu6()
    net.classify(1000)
    return net


def encoder() -> Network:
    """Six transformer layers of the size of MiniLM: 128 tokens, 384 wide, 12 heads, exact Gelu."""
    net = Network([1, 128, 384])
    for _ in range(6):
        source = net.at
        net.node("Add", [source, _attention(net, 384, 12)])
        middle = _normalized(net, 384)
        wide = _projected(net, middle, 384, 1536)
        half = net.node("Mul", [wide, net.constant(np.array(0.5, "f4"))])
        net.node("Mul", [wide, net.constant(np.array(2**-0.5, "f4"))])
        net.node("Erf", [net.at])
        net.node("Add", [net.at, net.constant(np.array(1, "f4"))])
        narrow = _projected(net, net.node("Mul", [half, net.at]), 1536, 384)
        net.node("Add", [middle, narrow])
        _normalized(net, 384)
    return net


def _projected(net: Network, source: str, inputs: int, outputs: int) -> str:
    weights = net.rng.normal(0, inputs**-0.5, (inputs, outputs)).astype("f4")
    product = net.node("MatMul", [source, net.constant(weights)])
    return net.node("Add", [product, net.constant(net.rng.normal(0, 0.02, outputs).astype("f4"))])


def _normalized(net: Network, width: int) -> str:
    scale, bias = np.ones(width, "f4"), np.zeros(width, "f4")
    return net.node("LayerNormalization", [net.at, net.constant(scale), net.constant(bias)])


def _attention(net: Network, width: int, heads: int) -> str:
    """Softmax of scaled products of queries and keys, times the values."""
    source, tokens = net.at, net.shape[1]

    def split(order: Sequence[int]) -> str:
        _projected(net, source, width, width)
        parts = net.constant(np.array([1, tokens, heads, width // heads]))
        return net.node("Transpose", [net.node("Reshape", [net.at, parts])], perm=list(order))

    scores = net.node("MatMul", [split((0, 2, 1, 3)), split((0, 2, 3, 1))])
    scale = net.constant(np.array((width // heads) ** -0.5, "f4"))
    weights = net.node("Softmax", [net.node("Mul", [scores, scale])], axis=-1)
    net.node("MatMul", [weights, split((0, 2, 1, 3))])
    net.node("Transpose", [net.at], perm=[0, 2, 1, 3])
    net.node("Reshape", [net.at, net.constant(np.array([1, tokens, width]))])
    return _projected(net, net.at, width, width)


NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": mlp,
    "dscnn": dscnn,
    "resnet8": resnet8,
    "mobilenetv2": mobilenetv2,
    "encoder": encoder,
    "resnet50": resnet50,
}


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, shape: Sequence[int], count: int) -> None:
        rng = np.random.default_rng(1)
        self._left: Iterator[Any] = iter(
            [{"x": rng.standard_normal(shape).astype("f4")} for _ in range(count)]
        )

    def get_next(self) -> Any:
        return next(self._left, None)


def quantized(name: str, folder: Path) -> Path:
    """The int8 model of that name in `folder`, made there on first use."""
    path = folder / f"{name}.int8.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        net = NETWORKS[name]()
        part = path.with_suffix(".part")
        quantize_static(
            net.model(),
            part,
            _Samples(net.shape, 2),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        part.replace(path)
    return path

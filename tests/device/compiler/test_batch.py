# SPDX-License-Identifier: Apache-2.0
"""Batches and shapes that only a feed settles."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from device.errors import ModelError

from .arithmetic import Array
from .building import Builder
from .running import compile_model, difference, off_card

Sizes = Sequence[int | str]


def resized(b: Builder, shape: Sizes) -> onnx.ModelProto:
    """The model with other declared sizes of its first input."""
    model = b.model()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, shape, strict=True):
        dim.Clear()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size
    return model


def feed(b: Builder, shape: Sequence[int]) -> dict[str, Array]:
    return {"x": b.bytes(shape)}


def network(axis: int = 1) -> Builder:
    b = Builder()
    x, w = b.dequantized("x", (1, 4, 8, 8)), b.weights("w", (6, 4, 3, 3), True)
    b.quantized(b.node("Conv", [x, w], "conv"), "mid", 0.3, output=False)
    b.quantized(b.node("Softmax", [b.again("mid")], "p", axis=axis), "y", 1 / 200)
    return b


@pytest.mark.parametrize("batch", ["N", 4])
def test_batch_item_by_item(batch: int | str) -> None:
    b = network()
    model = resized(b, (batch, 4, 8, 8))
    compiled = compile_model(model)
    assert compiled.batchable and compiled.shapes == {"x": (1, 4, 8, 8)}
    for items in (4,) if batch == 4 else (1, 3):
        assert difference(model, feed(b, (items, 4, 8, 8)), compiled) == (0, 0)


@pytest.mark.parametrize("batch", ["N", 4])
def test_batch_that_mixes_its_items(batch: int | str) -> None:
    b = network(axis=0)
    model = resized(b, (batch, 4, 8, 8))
    compiled = compile_model(model)
    assert not compiled.batchable and off_card(compiled) == []
    assert compiled.shapes == {"x": (4 if batch == 4 else 1, 4, 8, 8)}
    whole = compile_model(model, {"x": (4, 4, 8, 8)})
    assert not whole.batchable
    assert difference(model, feed(b, (4, 4, 8, 8)), whole) == (0, 0)


def test_reshape_that_names_the_batch() -> None:
    """A literal batch in a Reshape: right for the declared batch only."""
    b = Builder()
    real = b.dequantized("x", (4, 6))
    value = b.node("Reshape", [real, b.const("shape", np.array([4, 2, 3]))], "v")
    b.quantized(b.node("Sigmoid", [value], "s"), "y", 0.01)
    model = b.model()
    compiled = compile_model(model)
    assert not compiled.batchable and off_card(compiled) == []
    assert difference(model, b.feeds, compiled) == (0, 0)


def test_batch_from_shape_arithmetic() -> None:
    """Shape, Gather, Unsqueeze, Concat, Reshape, as exporters write a flatten."""
    b = network()
    batch = b.node("Gather", [b.node("Shape", ["y"], "s"), b.const("i", np.array(0))], "n")
    lifted = b.node("Unsqueeze", [batch, b.const("at", np.array([0]))], "n1")
    target = b.node("Concat", [lifted, b.const("rest", np.array([-1]))], "target", axis=0)
    b.node("Reshape", ["y", target], "flat")
    b.outputs.clear()
    b.output("flat")
    model = resized(b, ("N", 4, 8, 8))
    compiled = compile_model(model)
    assert compiled.batchable and off_card(compiled) == []
    for items in (1, 3):
        assert difference(model, feed(b, (items, 4, 8, 8)), compiled) == (0, 0)


def test_batch_through_onnxruntime() -> None:
    """The host's part takes the whole batch at once, even where it mixes items."""
    b = network()
    b.outputs.clear()
    value = b.node("CumSum", [b.again("y"), b.const("axis", np.array(0))], "sum")
    b.quantized(value, "z", 0.05, output=False)
    b.quantized(b.node("Sigmoid", [b.again("z")], "g"), "out", 0.01)
    model = resized(b, ("N", 4, 8, 8))
    compiled = compile_model(model)
    assert compiled.batchable and len(compiled.segments) == 3
    for items in (1, 3):
        assert difference(model, feed(b, (items, 4, 8, 8)), compiled) == (0, 0)


def test_sizes_that_only_a_feed_settles() -> None:
    b = network()
    model = resized(b, ("N", 4, "H", "W"))
    unsettled = compile_model(model)
    assert unsettled.needs_shapes and unsettled.segments == ()
    assert off_card(unsettled) == []
    assert [info.shape for info in unsettled.inputs] == [["N", 4, "H", "W"]]
    for shape in ((1, 4, 9, 12), (2, 4, 5, 5)):
        compiled = compile_model(model, {"x": shape})
        assert not compiled.needs_shapes and off_card(compiled) == []
        assert difference(model, feed(b, shape), compiled) == (0, 0)


@pytest.mark.parametrize("shape", [(1, 5, 8, 8), (1, 4, 8), (1, 4, -8, 8)])
def test_shapes_that_do_not_fit(shape: Sequence[int]) -> None:
    model = resized(network(), ("N", 4, "H", "W"))
    with pytest.raises(ModelError, match="pictures"):
        compile_model(model, {"x": shape}, name="pictures")


def test_unknown_input() -> None:
    with pytest.raises(ModelError, match="has no input 'z'; its inputs are x"):
        compile_model(network().model(), {"z": (1, 4, 8, 8)})

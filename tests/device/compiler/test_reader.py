# SPDX-License-Identifier: Apache-2.0
"""Bad models: each ends in a ModelError that names the model and what is wrong, nothing else."""

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from device.compiler import CompiledModel, compile_model
from device.errors import ModelError

from .building import Builder


def network() -> onnx.ModelProto:
    b = Builder()
    x, w = b.dequantized("x", (1, 4, 8, 8)), b.weights("w", (6, 4, 3, 3), True)
    value = b.node("Conv", [x, w, b.bias("b", 6, "x", "w")], "conv", pads=[1, 1, 1, 1])
    b.quantized(value, "mid", 0.3, output=False)
    shape = b.const("shape", np.array([1, -1]))
    b.quantized(b.node("Reshape", [b.again("mid"), shape], "flat"), "flat_q", 0.3, output=False)
    inputs = [b.again("flat_q"), b.weights("v", (384, 5), False, 1)]
    b.quantized(b.node("Gemm", inputs, "gemm"), "y", 3.0)
    return b.model()


BYTES = network().SerializeToString()


def compiled_or_refused(model: bytes) -> CompiledModel | None:
    try:
        return compile_model(model, name="broken.onnx")
    except ModelError as error:
        assert "broken.onnx" in str(error)
        return None


INTS = onnx.AttributeProto.INTS
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
Change = Callable[[onnx.ModelProto], None]


def unknown_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def newer_format(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


def unknown_operator(model: onnx.ModelProto) -> None:
    next(n for n in model.graph.node if n.op_type == "Conv").op_type = "Convolve"


def missing_initializer(model: onnx.ModelProto) -> None:
    keep = [t for t in model.graph.initializer if t.name != "w"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(keep)


def external_data(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def cut_initializer(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    tensor.raw_data = tensor.raw_data[:-3]


def cycle(model: onnx.ModelProto) -> None:
    first = next(n for n in model.graph.node if n.op_type == "DequantizeLinear")
    first.input[0] = "y"


def produced_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[-1])


def missing_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def huge_initializer(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    tensor.dims[:] = [1 << 40, 1 << 40, 3, 3]


def negative_initializer(model: onnx.ModelProto) -> None:
    next(t for t in model.graph.initializer if t.name == "w").dims[0] = -6


def huge_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40


def negative_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -3


def wrong_channels(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


def wrong_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def wrong_rank(model: onnx.ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[2:]


def bad_attribute(model: onnx.ModelProto) -> None:
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    conv.attribute.append(helper.make_attribute("pads", "wide"))


def bad_perm(model: onnx.ModelProto) -> None:
    reshape = next(n for n in model.graph.node if n.op_type == "Reshape")
    reshape.op_type = "Transpose"
    del reshape.input[1:]
    reshape.attribute.append(helper.make_attribute("perm", [0, 1, 7, 9]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown_opset, "opset 999"),
        (no_opset, "names no opset"),
        (newer_format, "IR version 99"),
        (no_graph, "not an ONNX model"),
        (unknown_operator, "Convolve"),
        (missing_initializer, '"w"'),
        (external_data, "weights.bin"),
        (cut_initializer, '"w" of shape'),
        (cycle, "cycle"),
        (produced_twice, "produced twice"),
        (missing_output, '"nowhere"'),
        (huge_initializer, "2 GiB"),
        (negative_initializer, "negative dimension"),
        (huge_input, "2 GiB"),
        (negative_input, "negative dimension"),
        (wrong_type, "types or shapes clash"),
        (wrong_rank, "clash|rank"),
        (bad_attribute, "pads"),
        (bad_perm, "perm"),
    ],
)
def test_refused_with_a_message(change: Change, message: str) -> None:
    model = network()
    change(model)
    with pytest.raises(ModelError, match=r"broken\.onnx") as caught:
        compile_model(model.SerializeToString(), name="broken.onnx")
    assert re.search(message, str(caught.value))


@pytest.mark.parametrize("change", [wrong_channels])
def test_mismatch_that_only_a_run_shows(change: Change) -> None:
    """What inference does not refuse may go to onnxruntime, which does; never another error."""
    model = network()
    change(model)
    found = compiled_or_refused(model.SerializeToString())
    assert found is not None
    row = next(row for row in found.placement if row.op == "Conv")
    assert (row.where, row.reason) == ("onnxruntime", "its groups do not divide its channels")


@pytest.mark.parametrize("junk", [b"", b"\x00", b"hello, world", b"\x08\x07", bytes(4096)])
def test_junk(junk: bytes) -> None:
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        compile_model(junk, name="broken.onnx")


@pytest.mark.parametrize("at", range(0, len(BYTES), max(len(BYTES) // 64, 1)))
def test_truncated(at: int) -> None:
    assert compiled_or_refused(BYTES[:at]) is None


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_changed_bytes(data: st.DataObject) -> None:
    """Any bytes changed: it compiles, or there is a ModelError."""
    body = bytearray(BYTES)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    compiled_or_refused(bytes(body))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_changed_structure(data: st.DataObject) -> None:
    """Names, types, attributes and sizes changed at random: no other error."""
    model = network()
    draw = data.draw
    graph = model.graph
    node = graph.node[draw(st.integers(0, len(graph.node) - 1))]
    names = [*{name for n in graph.node for name in (*n.input, *n.output)}, ""]
    what = draw(st.sampled_from(["input", "drop", "op", "swap", "dims", "type", "value", "pads"]))
    tensor = graph.initializer[draw(st.integers(0, len(graph.initializer) - 1))]
    if what == "input":
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
    elif what == "drop":
        del node.input[draw(st.integers(0, len(node.input) - 1)) :]
    elif what == "op":
        node.op_type = draw(
            st.sampled_from(sorted({schema.name for schema in onnx.defs.get_all_schemas()}))
        )
    elif what == "swap":
        other = graph.node[draw(st.integers(0, len(graph.node) - 1))]
        node.op_type, other.op_type = other.op_type, node.op_type
    elif what == "dims" and tensor.dims:
        tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(
            st.sampled_from([0, 1, -1, 2, 7, 1 << 33, (1 << 63) - 1])
        )
    elif what == "type":
        tensor.data_type = draw(st.integers(0, 23))
    elif what == "value":
        values = draw(st.sampled_from([np.inf, -np.inf, np.nan, 0.0, -1.0, 1e38, 1e-45]))
        for scale in graph.initializer:
            if scale.name == draw(st.sampled_from(["x_scale", "w_scale", "mid_scale", "y_scale"])):
                shape = tuple(scale.dims)
                scale.CopyFrom(
                    numpy_helper.from_array(np.full(shape, values, np.float32), scale.name)
                )
    else:
        conv = next((n for n in graph.node if n.op_type == "Conv"), node)
        del conv.attribute[:]
        size = draw(st.integers(0, 5))
        values_list = draw(st.lists(st.integers(-3, 3000), min_size=size, max_size=size))
        key = draw(st.sampled_from(["pads", "strides", "dilations", "kernel_shape", "group"]))
        value = values_list if key != "group" else draw(st.integers(-2, 9))
        conv.attribute.append(
            helper.make_attribute(key, value, attr_type=INTS if value == [] else None)
        )
    compiled_or_refused(model.SerializeToString())


def test_a_model_that_only_the_inference_of_onnx_refuses() -> None:
    """A function of ONNX whose body has a Constant without a value, as inference sees it."""
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3, 3, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 3, 3, 1])
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(
        helper.make_graph([node], "mvn", [x], [y]), opset_imports=opsets, ir_version=8
    )
    (row,) = compile_model(model).placement
    assert row.where == "onnxruntime" and "inference of shapes" in row.reason


def test_initializers_that_are_inputs_as_before_ir_4() -> None:
    model = network()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    assert {row.where for row in compile_model(model).placement} == {"card"}

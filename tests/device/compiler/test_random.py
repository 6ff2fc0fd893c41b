# SPDX-License-Identifier: Apache-2.0
"""Random networks and pools of any geometry: the whole equals onnxruntime bit for bit."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from .building import Builder, unary
from .running import compile_model, difference, off_card, reference


class Network:
    """Grows a quantized network by random steps; `left` are the tensors it may go on from."""

    def __init__(self, draw: Any, kind: str) -> None:
        self.draw = draw
        self.b = Builder(kind, seed=draw(st.integers(0, 1000)))
        self.shapes: dict[str, tuple[int, ...]] = {}
        shape = (1, draw(st.sampled_from([1, 3, 8, 17])), 9, 8)
        self.b.dequantized("x", shape)
        self.shapes["x"] = shape
        self.count = 0

    def pick(self, rank: int = 4) -> tuple[str, tuple[int, ...]] | None:
        names = [name for name, shape in self.shapes.items() if len(shape) == rank]
        if not names:
            return None
        name = self.draw(st.sampled_from(names))
        return name, self.shapes[name]

    def real(self, name: str) -> str:
        real = f"{name}_real"
        if not any(real in node.output for node in self.b.nodes):
            self.b.again(name)
        return real

    def finish(self, value: str, shape: tuple[int, ...], scale: float | None = None) -> None:
        name = f"t{self.count}"
        self.count += 1
        self.b.quantized(value, name, scale, output=self.draw(st.booleans()))
        self.shapes[name] = shape

    def step(self) -> None:
        what = self.draw(
            st.sampled_from(["conv", "depthwise", "add", "concat", "pool", "table", "move", "gemm"])
        )
        getattr(self, what)()

    def conv(self) -> None:
        picked = self.pick()
        if picked is None or min(picked[1][2:]) < 2:
            return
        name, (n, c, h, w) = picked
        taps, stride = self.draw(st.sampled_from([1, 2, 3])), self.draw(st.integers(1, 2))
        pads = [self.draw(st.integers(0, 2)) for _ in range(4)]
        out = self.draw(st.sampled_from([1, 4, 16, 19]))
        weights = self.b.weights(f"w{self.count}", (out, c, taps, taps), self.draw(st.booleans()))
        value = self.b.node(
            "Conv",
            [self.real(name), weights],
            f"conv{self.count}",
            pads=pads,
            strides=[stride, stride],
        )
        high = (h + pads[0] + pads[2] - taps) // stride + 1
        wide = (w + pads[1] + pads[3] - taps) // stride + 1
        self.finish(value, (n, out, high, wide), 0.4)

    def depthwise(self) -> None:
        picked = self.pick()
        if picked is None:
            return
        name, shape = picked
        weights = self.b.weights(f"w{self.count}", (shape[1], 1, 3, 3), True)
        value = self.b.node(
            "Conv",
            [self.real(name), weights],
            f"conv{self.count}",
            group=shape[1],
            pads=[1, 1, 1, 1],
        )
        self.finish(value, shape, 0.1)

    def add(self) -> None:
        picked = self.pick(self.draw(st.sampled_from([2, 4])))
        if picked is None:
            return
        name, shape = picked
        partners = [other for other, sizes in self.shapes.items() if sizes == shape]
        other = self.draw(st.sampled_from(partners))
        op = self.draw(st.sampled_from(["Add", "Mul"]))
        value = self.b.node(op, [self.real(name), self.real(other)], f"sum{self.count}")
        self.finish(value, shape)

    def concat(self) -> None:
        picked = self.pick()
        if picked is None:
            return
        name, shape = picked
        partners = [
            other
            for other, sizes in self.shapes.items()
            if len(sizes) == 4 and (sizes[0], *sizes[2:]) == (shape[0], *shape[2:])
        ]
        names = [name, *self.draw(st.lists(st.sampled_from(partners), min_size=1, max_size=3))]
        reals = [self.real(part) for part in names]
        value = self.b.node("Concat", reals, f"joined{self.count}", axis=1)
        channels = sum(self.shapes[part][1] for part in names)
        if channels < 200:
            self.finish(value, (shape[0], channels, *shape[2:]))

    def pool(self) -> None:
        picked = self.pick()
        if picked is None or min(picked[1][2:]) < 2:
            return
        name, (n, c, h, w) = picked
        op = self.draw(st.sampled_from(["MaxPool", "GlobalAveragePool"]))
        if op == "MaxPool":
            more = {"kernel_shape": [2, 2], "strides": [2, 2]}
            pooled = f"pool{self.count}"
            value = self.b.node(op, [self.real(name)], pooled, **more)  # type: ignore[arg-type]
            self.finish(value, (n, c, h // 2, w // 2))
        else:
            value = self.b.node(op, [self.real(name)], f"pool{self.count}")
            self.finish(value, (n, c, 1, 1))

    def table(self) -> None:
        picked = self.pick(self.draw(st.sampled_from([2, 4])))
        if picked is not None:
            op = self.draw(st.sampled_from(["Sigmoid", "HardSwish", "Relu", "LeakyRelu"]))
            value = self.b.node(op, [self.real(picked[0])], f"f{self.count}")
            self.finish(value, picked[1])

    def move(self) -> None:
        picked = self.pick()
        if picked is None:
            return
        name, shape = picked
        op = self.draw(st.sampled_from(["Transpose", "Flatten", "Pad"]))
        if op == "Transpose":
            order = self.draw(st.permutations([1, 2, 3]))
            value = self.b.node(op, [self.real(name)], f"m{self.count}", perm=[0, *order])
            self.finish(value, (shape[0], *(shape[axis] for axis in order)))
        elif op == "Flatten":
            value = self.b.node(op, [self.real(name)], f"m{self.count}")
            self.finish(value, (shape[0], int(np.prod(shape[1:]))))
        else:
            pads = self.b.const(f"p{self.count}", np.array([0, 0, 1, 0, 0, 0, 0, 2]))
            value = self.b.node(op, [self.real(name), pads], f"m{self.count}")
            self.finish(value, (*shape[:2], shape[2] + 1, shape[3] + 2))

    def gemm(self) -> None:
        picked = self.pick(2)
        if picked is None:
            return
        name, (rows, depth) = picked
        weights = self.b.weights(f"w{self.count}", (depth, 12), False, 1)
        value = self.b.node("MatMul", [self.real(name), weights], f"product{self.count}")
        self.finish(value, (rows, 12), 0.5)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_network(data: st.DataObject) -> None:
    network = Network(data.draw, "u8")
    for _ in range(data.draw(st.integers(1, 10), "steps")):
        network.step()
    b = network.b
    if not b.outputs:
        if network.count == 0:
            return
        b.output(f"t{network.count - 1}")
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    assert difference(model, b.feeds, compiled) == (0, 0)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_pool_of_any_geometry(data: st.DataObject) -> None:
    draw = data.draw
    rank = draw(st.integers(1, 2), "rank")

    def sizes(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    kernel, stride = sizes(1, 4), sizes(1, 4)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": stride}
    padding = draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    before = [draw(st.integers(0, k - 1)) for k in kernel]
    after = [draw(st.integers(0, k - 1)) for k in kernel]
    size = [k + draw(st.integers(0, 8)) for k in kernel]
    if padding == "pads":
        attributes["pads"] = [*before, *after]
        attributes["ceil_mode"] = draw(st.integers(0, 1))
        if op == "MaxPool":
            attributes["dilations"] = dilation = sizes(1, 2)
            size = [s + k * (d - 1) for s, k, d in zip(size, kernel, dilation, strict=True)]
    else:  # onnxruntime refuses windows that skip pixels here
        attributes["auto_pad"] = padding
        attributes["strides"] = [min(k, s) for k, s in zip(kernel, stride, strict=True)]
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    channels = draw(st.sampled_from([1, 5, 16, 33]))
    kind = draw(st.sampled_from(["u8", "s8"]))
    b = unary(op, (draw(st.integers(1, 2)), channels, *size), kind, **attributes)
    model = b.model()
    compiled = compile_model(model)
    assert off_card(compiled) == []
    assert reference(model, b.feeds)["y"].shape
    worst, _ = difference(model, b.feeds, compiled)
    assert worst <= (1 if op == "AveragePool" else 0)

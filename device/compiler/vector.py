# SPDX-License-Identifier: Apache-2.0
"""Float operators as straight lines of vector-unit operations (VECTOR in device/abi/program.h)."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from device.binding.abi import VECTOR_ROW_MAX, VECTOR_SOURCES
from device.compiler.graph import Graph, Node, Shape
from device.compiler.plan import Array
from device.compiler.quant import Unplaced
from device.compiler.units import Step

F32 = np.float32
OUTER_MAX = 3  # loops around a row: n, h, w
REDUCING = {"sum", "maxof", "minof"}


class Line:
    """Steps in the making. Values are numbered: the inputs, then each step's result."""

    def __init__(self, node: Node, graph: Graph, shapes: tuple[Shape, ...]) -> None:
        """`shapes` of the operands."""
        self.node = node
        self.graph = graph
        self.shapes = shapes
        self.steps: list[Step] = []

    @property
    def args(self) -> tuple[int, ...]:
        return tuple(range(len(self.shapes)))

    def do(self, code: str, *args: int) -> int:
        self.steps.append(Step(code, args))
        return len(self.shapes) + len(self.steps) - 1

    def value(self, number: float) -> int:
        if math.isnan(number):
            raise Unplaced("a constant of it is not a number")
        with np.errstate(over="ignore"):
            self.steps.append(Step("value", (), float(F32(number))))
        return len(self.shapes) + len(self.steps) - 1

    def with_value(self, code: str, a: int, number: float) -> int:
        return self.do(code, a, self.value(number))

    def attribute(self, name: str, default: float) -> float:
        return float(self.node.attributes.get(name, default))

    def constant(self, position: int) -> Array | None:
        name = self.node.input(position)
        return self.graph.constants.get(name) if name else None

    def check(self, domain: Shape) -> None:
        """Raises Unplaced where one instruction cannot hold the operator."""
        if len(self.shapes) > VECTOR_SOURCES:
            raise Unplaced(f"it has more than {VECTOR_SOURCES} operands")
        if outer_axes(domain, self.shapes) > OUTER_MAX:
            raise Unplaced("its operands broadcast along too many axes")
        if domain[-1] > VECTOR_ROW_MAX and any(step.code in REDUCING for step in self.steps):
            raise Unplaced(f"it reduces rows of more than {VECTOR_ROW_MAX} elements")


def outer_axes(domain: Shape, shapes: Iterable[Shape]) -> int:
    """Loops around the rows of a domain: axes, but neighbours along which each of the operands
    runs or each stands still are one."""
    aligned = [(1,) * (len(domain) - len(shape)) + tuple(shape) for shape in shapes]
    found: list[list[bool]] = []
    for axis, size in enumerate(domain[:-1]):
        runs = [shape[axis] != 1 for shape in aligned]
        if size != 1 and (not found or found[-1] != runs):
            found.append(runs)
    return len(found)


Rule = Callable[[Line], int]


def one(code: str) -> Rule:
    return lambda line: line.do(code, 0)


def two(code: str) -> Rule:
    return lambda line: line.do(code, 0, 1)


def swapped(code: str) -> Rule:
    return lambda line: line.do(code, 1, 0)


def _chain(code: str) -> Rule:
    def rule(line: Line) -> int:
        found = 0
        for arg in line.args[1:]:
            found = line.do(code, found, arg)
        return found

    return rule


def _clip(line: Line) -> int:
    node, found = line.node, 0
    bounds = {"max": node.attributes.get("min"), "min": node.attributes.get("max")}
    for code, bound in bounds.items():
        if bound is not None:
            found = line.with_value(code, found, float(bound))
    names = [name for name in node.inputs[1:] if name]
    for code, name in zip(("max", "min"), (node.input(1), node.input(2)), strict=True):
        if name:
            found = line.do(code, found, 1 + names.index(name))
    return found


def _pow(line: Line) -> int:
    exponent = line.constant(1)
    if exponent is None or exponent.size != 1:
        raise Unplaced("its exponent is not one constant")
    power = float(exponent.reshape(-1)[0])
    if power == 2:
        return line.do("mul", 0, 0)
    if power == 3:
        return line.do("mul", line.do("mul", 0, 0), 0)
    if power == 0.5:
        return line.do("sqrt", 0)
    if power == 1:
        return 0
    if power == -1:
        return line.do("div", line.value(1), 0)
    raise Unplaced(f"the card has no power of {power:g}")


def _relu(line: Line) -> int:
    return line.with_value("max", 0, 0.0)


def _leaky_relu(line: Line) -> int:
    scaled = line.with_value("mul", 0, line.attribute("alpha", 0.01))
    return line.do("select", line.do("lt", 0, line.value(0)), scaled, 0)


def _hard_sigmoid(line: Line) -> int:
    alpha, beta = line.attribute("alpha", 0.2), line.attribute("beta", 0.5)
    shifted = line.with_value("add", line.with_value("mul", 0, alpha), beta)
    return line.with_value("min", line.with_value("max", shifted, 0), 1)


def _hard_swish(line: Line) -> int:
    shifted = line.with_value("add", line.with_value("mul", 0, 1 / 6), 0.5)
    return line.do("mul", 0, line.with_value("min", line.with_value("max", shifted, 0), 1))


def _gelu(line: Line) -> int:
    if line.node.attributes.get("approximate", b"none") == b"tanh" or line.node.op == "FastGelu":
        cube = line.do("mul", line.do("mul", 0, 0), 0)
        inner = line.do("add", 0, line.with_value("mul", cube, 0.044715))
        inner = line.do("tanh", line.with_value("mul", inner, math.sqrt(2 / math.pi)))
    else:
        inner = line.do("erf", line.with_value("mul", 0, math.sqrt(0.5)))
    half = line.with_value("mul", 0, 0.5)
    return line.do("mul", half, line.with_value("add", inner, 1))


def _swish(line: Line) -> int:
    alpha = line.attribute("alpha", 1.702 if line.node.op == "QuickGelu" else 1.0)
    scaled = line.with_value("mul", 0, alpha) if alpha != 1 else 0
    return line.do("mul", 0, line.do("sigmoid", scaled))


def _softplus(line: Line) -> int:
    """max(x, 0) + log(1 + e^-|x|), which cannot overflow."""
    small = line.do("exp", line.do("neg", line.do("abs", 0)))
    return line.do("add", _relu(line), line.do("log", line.with_value("add", small, 1)))


def _inverse(line: Line) -> int:
    return line.do("sub", line.value(1), 0)


def _reciprocal(line: Line) -> int:
    return line.do("div", line.value(1), 0)


def _softmax(line: Line) -> int:
    raised = line.do("exp", line.do("sub", 0, line.do("maxof", 0)))
    return line.do("div", raised, line.do("sum", raised))


def _log_softmax(line: Line) -> int:
    lowered = line.do("sub", 0, line.do("maxof", 0))
    return line.do("sub", lowered, line.do("log", line.do("sum", line.do("exp", lowered))))


def _layer_norm(line: Line) -> int:
    count = float(line.shapes[0][-1])
    apart = line.do("sub", 0, line.with_value("div", line.do("sum", 0), count))
    squares = line.do("sum", line.do("mul", apart, apart))
    spread = line.with_value("div", squares, count)
    deviation = line.do("sqrt", line.with_value("add", spread, line.attribute("epsilon", 1e-5)))
    found = line.do("mul", line.do("div", apart, deviation), 1)
    return line.do("add", found, 2) if len(line.shapes) > 2 else found


def _mean(line: Line) -> int:
    return line.with_value("div", line.do("sum", 0), float(line.shapes[0][-1]))


def _norm(line: Line) -> int:
    return line.do("sqrt", line.do("sum", line.do("mul", 0, 0)))


def _cast(line: Line) -> int:
    """To float32, or to a truth value."""
    return 0 if line.node.attributes.get("to") == 1 else line.do("ne", 0, line.value(0))


def _or(line: Line) -> int:
    return line.do("max", 0, 1)


ROWWISE: dict[str, Rule] = {
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "Softmax": _softmax,
}
REDUCTIONS: dict[str, Rule] = {
    "ReduceL2": _norm,
    "ReduceMax": one("maxof"),
    "ReduceMean": _mean,
    "ReduceMin": one("minof"),
    "ReduceSum": one("sum"),
    "ReduceSumSquare": lambda line: line.do("sum", line.do("mul", 0, 0)),
}
ELEMENTWISE: dict[tuple[str, str], Rule] = {
    **{("", op): one(op.lower()) for op in ("Abs", "Ceil", "Erf", "Exp", "Floor", "Log", "Neg")},
    **{("", op): one(op.lower()) for op in ("Round", "Sigmoid", "Sqrt", "Tanh")},
    **{("", op): two(op.lower()) for op in ("Add", "Div", "Mul", "Sub")},
    ("", "Max"): _chain("max"),
    ("", "Min"): _chain("min"),
    ("", "Sum"): _chain("add"),
    ("", "And"): two("mul"),
    ("", "Or"): _or,
    ("", "Not"): _inverse,
    ("", "Equal"): two("eq"),
    ("", "Greater"): swapped("lt"),
    ("", "GreaterOrEqual"): swapped("le"),
    ("", "Less"): two("lt"),
    ("", "LessOrEqual"): two("le"),
    ("", "Where"): lambda line: line.do("select", 0, 1, 2),
    ("", "Cast"): _cast,
    ("", "Clip"): _clip,
    ("", "Gelu"): _gelu,
    ("", "HardSigmoid"): _hard_sigmoid,
    ("", "HardSwish"): _hard_swish,
    ("", "LeakyRelu"): _leaky_relu,
    ("", "Pow"): _pow,
    ("", "Reciprocal"): _reciprocal,
    ("", "Relu"): _relu,
    ("", "Softplus"): _softplus,
    ("", "Swish"): _swish,
    ("com.microsoft", "FastGelu"): _gelu,
    ("com.microsoft", "Gelu"): _gelu,
    ("com.microsoft", "QuickGelu"): _swish,
}
FIRST_ONLY = {"Cast", "Pow"}
"""Operators of which only the first input is an operand."""

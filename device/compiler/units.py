# SPDX-License-Identifier: Apache-2.0
"""The card's work on quantized tensors, before layouts: one Unit is one instruction or a move."""

from dataclasses import dataclass, field

from device.compiler.graph import Node, Shape
from device.compiler.plan import Array
from device.compiler.quant import Quantization

Pair = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution or pool; padding as (top, left, bottom, right)."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: tuple[int, int, int, int]


@dataclass(frozen=True)
class Clamp:
    """Bounds of a stored result."""

    lo: int = 0
    hi: int = 255


@dataclass(frozen=True)
class Quantize:
    """A float tensor at the segment's edge to bytes."""


@dataclass(frozen=True)
class Dequantize:
    """Bytes to a float tensor at the segment's edge."""


@dataclass(frozen=True)
class Table:
    """Byte to byte; `values` uint8 [256]."""

    values: Array


@dataclass(frozen=True)
class Convolution:
    """`weights` int8 [out][kernel_h][kernel_w][in / groups], `bias` int32 [out] with the input's
    zero point folded in, `multiplier` float32 [out]. A matrix product has a 1x1 window and takes
    its input row-major (`matrix`). With `floats` the result is float32, `addend` float32 [out]
    added to it; with `dynamic` the input's scale and zero point are known only as it runs."""

    window: Window
    groups: int
    weights: Array
    bias: Array
    multiplier: Array
    input_zero: int  # what the padding holds
    clamp: Clamp
    matrix: bool = False
    floats: bool = False
    addend: Array | None = None
    dynamic: bool = False


@dataclass(frozen=True)
class Add:
    a: Quantization
    b: Quantization
    out: Quantization
    clamp: Clamp


@dataclass(frozen=True)
class Multiply:
    ratio: float
    zero: float
    zero_a: int
    zero_b: int
    offset_out: int
    clamp: Clamp


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """Products of two activations, [.., M, K] by [.., K, N]. A split operand holds `heads` matrices
    side by side in its last axis, for each of `batch`; `b_transposed`: b is [.., N, K]."""

    heads: int = 0
    batch: int = 1
    a_split: bool = False
    b_split: bool = False
    out_split: bool = False
    b_transposed: bool = False


@dataclass(frozen=True)
class Product(Matrices):
    """Of bytes."""

    multiplier: float
    a: Quantization
    b: Quantization
    clamp: Clamp


@dataclass(frozen=True)
class LayerNorm:
    """Along the last axis; `epsilon` in squared steps of the input, `gamma` and `beta` float32
    [last axis] in steps of the output."""

    epsilon: float
    gamma: Array
    beta: Array


@dataclass(frozen=True)
class MaxPool:
    window: Window


@dataclass(frozen=True)
class AveragePool:
    window: Window
    count_include_pad: bool
    input: Quantization
    is_global: bool = False


@dataclass(frozen=True)
class Resize:
    """For each output row and column the input's; uint32."""

    rows: Array
    columns: Array


@dataclass(frozen=True)
class Softmax:
    """Along `axis`, or along all from it on (`flat`, before opset 13); `table` float32 [256]."""

    axis: int
    flat: bool
    table: Array
    ratio: float


@dataclass(frozen=True)
class Reshape:
    """Same elements in row-major order, another shape."""


@dataclass(frozen=True)
class Transpose:
    permutation: tuple[int, ...]


@dataclass(frozen=True)
class Concat:
    axis: int


@dataclass(frozen=True)
class Pad:
    """`before` elements of `value` ahead of the data along each axis (after: what is left)."""

    before: tuple[int, ...]
    value: int


@dataclass(frozen=True)
class Step:
    """One operation of the vector unit (abi.VECTOR_CODES). `args` number values: the inputs of the
    work first, then what each step before gave."""

    code: str
    args: tuple[int, ...] = ()
    value: float = 0.0


@dataclass(frozen=True)
class Vector:
    """Float operations along rows: `domain` is the shape that the inputs broadcast to, a row its
    last axis. `sources`: how each input is dequantized, None for a float one. The result is value
    number `result`, quantized where the unit has a quantization."""

    steps: tuple[Step, ...]
    result: int
    domain: Shape
    sources: tuple[Quantization | None, ...]


@dataclass(frozen=True)
class FloatProduct(Matrices):
    """Of float32."""


@dataclass(frozen=True)
class Gather:
    """Rows of the first input (a table, dequantized by `table` where it is quantized) chosen by the
    integers of the second, a tensor at the segment's edge."""

    table: Quantization | None


@dataclass(frozen=True)
class FromInteger:
    """Integers or truth values at the segment's edge as float32."""


@dataclass(frozen=True)
class DynamicQuantize:
    """A float tensor to bytes with a scale and zero point of its own in each run."""


@dataclass(frozen=True)
class Slice:
    """Elements `starts + i * steps` along each axis."""

    starts: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Expand:
    """Repeats along axes of 1."""


Work = (
    Quantize
    | Dequantize
    | Table
    | Convolution
    | Add
    | Multiply
    | Product
    | LayerNorm
    | MaxPool
    | AveragePool
    | Resize
    | Softmax
    | Reshape
    | Transpose
    | Concat
    | Pad
    | Vector
    | FloatProduct
    | Gather
    | FromInteger
    | DynamicQuantize
    | Slice
    | Expand
)
MOVING = (Quantize, Dequantize, Reshape, Transpose, Concat, Pad, Slice, Expand)
FLOATING = (Vector, FloatProduct, Gather, FromInteger, DynamicQuantize)
"""Work that is not in whole numbers: alone, it is as well off on onnxruntime."""


@dataclass(frozen=True, eq=False)
class Unit:
    """`inputs` and `output` name quantized tensors (float at the edge of Quantize, Dequantize); a
    constant input is named too. `members` are the graph's nodes that it stands for, without the
    DequantizeLinear nodes before it, which others may need as well."""

    work: Work
    node: Node
    members: tuple[Node, ...]
    inputs: tuple[str, ...]
    output: str
    shape: Shape  # of the output
    quantization: Quantization | None  # of the output, where the work sets it
    dequantizers: tuple[Node, ...] = field(default=())

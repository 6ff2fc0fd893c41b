# SPDX-License-Identifier: Apache-2.0
"""Products of activations and layer normalization to instructions."""

import dataclasses
from typing import Any

from device.compiler import units
from device.compiler.emit import Constant
from device.compiler.images import Held, Image, Layout, expanded, quantized
from device.compiler.lower import Lowering, result, stored
from device.compiler.plan import Array
from device.compiler.quant import Quantization
from device.compiler.units import Unit


def lower_product(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Product)
    a, b = (lowering.get(name, Layout.ROWS) for name in unit.inputs)
    more = {"multiplier": work.multiplier, **stored(work.clamp, table)}
    _emit("matmul", unit, work, lowering, (a, b), (work.a, work.b), more)


def lower_float_product(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.FloatProduct)
    a, b = (lowering.floats(name) for name in unit.inputs)
    _emit("fmatmul", unit, work, lowering, (a, b), (None, None), {"scale": 1.0})


def _emit(
    code: str,
    unit: Unit,
    work: units.Matrices,
    lowering: Lowering,
    operands: tuple[Held, Held],
    quantizations: tuple[Quantization | None, Quantization | None],
    more: dict[str, Any],
) -> None:
    a = matrices(operands[0], work.a_split, work.batch)
    b = matrices(operands[1], work.b_split, work.batch)
    out = matrices(lowering.allocate(unit.output, Layout.ROWS), work.out_split, work.batch)
    depth = a.c // work.heads if work.a_split else a.c
    lowering.emit(
        code,
        quantized(out, unit.quantization),
        quantized(a, quantizations[0]),
        quantized(b, quantizations[1]),
        macs=out.n * out.h * out.w * out.c * depth,
        heads=work.heads,
        a_split=int(work.a_split),
        b_split=int(work.b_split),
        out_split=int(work.out_split),
        b_transposed=int(work.b_transposed),
        **more,
    )


def matrices(held: Held, split: bool, batch: int) -> Image:
    """Row-major matrices with what they are counted by as n and h; one whose heads lie side by
    side as `batch` images of one row."""
    if not split:
        return expanded(held)
    image = held.image
    rows, step = image.n * image.h * image.w // batch, image.stride_w
    return dataclasses.replace(
        image, n=batch, h=1, w=rows, stride_w=step, stride_h=rows * step, stride_n=rows * step
    )


def lower_layer_norm(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.LayerNorm)
    source = lowering.get(unit.inputs[0], Layout.ROWS)
    target = lowering.allocate(unit.output, Layout.ROWS)
    lowering.emit(
        "layernorm",
        result(target.image, unit),
        source.image,
        epsilon=work.epsilon,
        gamma=Constant(work.gamma),
        beta=Constant(work.beta),
    )

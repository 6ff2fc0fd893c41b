# SPDX-License-Identifier: Apache-2.0
"""Products of activations and layer normalization to instructions."""

import dataclasses

from device.compiler import units
from device.compiler.emit import Constant
from device.compiler.images import Held, Image, Layout, expanded
from device.compiler.lower import Lowering, result, stored
from device.compiler.plan import Array
from device.compiler.units import Unit


def lower_product(unit: Unit, lowering: Lowering, table: Array | None) -> None:
    work = unit.work
    assert isinstance(work, units.Product)
    a = matrices(lowering.get(unit.inputs[0], Layout.ROWS), work.a_split, work.batch)
    b = matrices(lowering.get(unit.inputs[1], Layout.ROWS), work.b_split, work.batch)
    out = matrices(lowering.allocate(unit.output, Layout.ROWS), work.out_split, work.batch)
    depth = a.c // work.heads if work.a_split else a.c
    lowering.emit(
        "matmul",
        result(out, unit),
        a.quantized(work.a),
        b.quantized(work.b),
        macs=out.n * out.h * out.w * out.c * depth,
        multiplier=work.multiplier,
        heads=work.heads,
        a_split=int(work.a_split),
        b_split=int(work.b_split),
        out_split=int(work.out_split),
        b_transposed=int(work.b_transposed),
        **stored(work.clamp, table),
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

# SPDX-License-Identifier: Apache-2.0
"""Kernel, stride, dilation and padding of Conv and pools, from attributes and auto_pad."""

from device.compiler.graph import Node, Shape
from device.compiler.quant import Unplaced
from device.compiler.units import Window

KERNEL_MAX, HALO_MAX = 1024, 1024  # abi/program.h


def window_of(node: Node, size: Shape, out: Shape, kernel: Shape) -> Window:
    """For an image of `size` and a result of `out`, each (width) or (height, width)."""
    rank = len(size)
    stride = _list(node, "strides", [1] * rank)
    dilation = _list(node, "dilations", [1] * rank)
    pads = _list(node, "pads", [0] * 2 * rank)
    mode = node.attributes.get("auto_pad", b"NOTSET")
    if not (len(kernel) == len(stride) == len(dilation) == len(out) == rank):
        raise Unplaced("its window and its image differ in rank")
    if len(pads) != 2 * rank:
        raise Unplaced("its pads and its image differ in rank")
    if mode == b"VALID":
        pads = [0] * 2 * rank
    elif mode in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = _same(size, out, kernel, stride, dilation, lower=mode == b"SAME_LOWER")
    if any(pad < 0 for pad in pads):
        raise Unplaced("it has negative padding")
    if any(not 1 <= v <= KERNEL_MAX for v in (*kernel, *stride, *dilation)):
        raise Unplaced(f"its kernel, stride or dilation is not in 1..{KERNEL_MAX}")
    if any(pad > HALO_MAX for pad in pads):
        raise Unplaced(f"its padding is larger than {HALO_MAX}")
    lead = [1] * (2 - rank)
    none = [0] * (2 - rank)
    before, after = [*none, *pads[:rank]], [*none, *pads[rank:]]
    return Window(
        kernel=_pair([*lead, *kernel]),
        stride=_pair([*lead, *stride]),
        dilation=_pair([*lead, *dilation]),
        padding=(before[0], before[1], after[0], after[1]),
    )


def _list(node: Node, key: str, default: list[int]) -> list[int]:
    return [int(v) for v in node.attributes.get(key) or default]


def _pair(values: list[int]) -> tuple[int, int]:
    return values[0], values[1]


def _same(
    size: Shape, out: Shape, kernel: Shape, stride: list[int], dilation: list[int], lower: bool
) -> list[int]:
    """ONNX auto_pad SAME: what the windows need beyond the image, the odd pixel at the end, or at
    the beginning where `lower`."""
    before, after = [], []
    for extent, count, taps, step, spread in zip(size, out, kernel, stride, dilation, strict=True):
        total = max((count - 1) * step + (taps - 1) * spread + 1 - extent, 0)
        small, large = total // 2, total - total // 2
        before.append(large if lower else small)
        after.append(small if lower else large)
    return [*before, *after]

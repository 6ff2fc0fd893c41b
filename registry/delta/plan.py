# SPDX-License-Identifier: Apache-2.0
"""Pairs the parts of a new blob with those of an old one: tensors by their names, the rest by what
surrounds it or by its bytes."""

from __future__ import annotations

import bisect
from collections import defaultdict, deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from registry.delta.align import Aligner, Region, joined
from registry.delta.tensors import Tensor, find_tensors

Bytes = NDArray[np.uint8]

_SMALL_TENSOR = 1 << 10  # bytes; smaller ones are subtracted byte by byte with what is around them
_SORTED = 64 << 10  # bytes of a matrix that are worth a window of their own, and to be sorted
_SEARCHED = 64 << 10  # bytes between tensors that are worth aligning by their bytes


def plan(new: Bytes, old: Bytes) -> list[Region]:
    """Regions that cover `new` from its start to its end, paired with `old` where they can be."""
    before = find_tensors(old.data)
    after = find_tensors(new.data) if before else {}
    pairs = _paired(after, before)
    aligner = Aligner(old)
    if not pairs:
        return aligner.align(new)
    pairs.sort(key=lambda pair: pair[0].offset)
    return joined(list(_around(pairs, new, aligner)))


def _paired(after: dict[str, Tensor], before: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """By name where the size is the same; the others, which an exporter named anew, in their order
    among those of their size."""
    same = {n for n, tensor in after.items() if n in before and before[n].size == tensor.size}
    left: dict[int, deque[Tensor]] = defaultdict(deque)
    for name, tensor in before.items():
        if name not in same:
            left[tensor.size].append(tensor)
    pairs = [(after[name], before[name]) for name in same]
    for name, tensor in after.items():
        if name not in same and left[tensor.size]:
            pairs.append((tensor, left[tensor.size].popleft()))
    return pairs


def _around(pairs: list[tuple[Tensor, Tensor]], new: Bytes, aligner: Aligner) -> Iterator[Region]:
    """The tensors, and what lies between them: as large a gap behind the old tensor is the same
    gap, with the name and the shape of the tensor that follows."""
    starts = sorted(twin.offset for _, twin in pairs)
    at, source = 0, 0
    for tensor, twin in [*pairs, (Tensor(len(new), 0, 1), Tensor(len(aligner.old), 0, 1))]:
        following = bisect.bisect_left(starts, source)
        bound = starts[following] if following < len(starts) else len(aligner.old)
        gap = Region(at, tensor.offset - at, source)
        if gap.size == bound - source:
            yield gap
        elif gap.size >= _SEARCHED:
            for part in aligner.align(new[gap.offset : gap.end]):
                yield part._replace(offset=part.offset + gap.offset)
        else:
            yield gap._replace(source=None)
        width = tensor.width if tensor.size >= _SMALL_TENSOR else 1
        columns = tensor.columns if width == 1 and tensor.size >= _SORTED else 0
        yield Region(tensor.offset, tensor.size, twin.offset, width, columns)
        at, source = tensor.offset + tensor.size, twin.offset + twin.size

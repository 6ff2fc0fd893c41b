# SPDX-License-Identifier: Apache-2.0
"""Which way to get a blob: the one that moves the fewest bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """Ways to get a blob; where two cost the same, the earlier is taken."""

    FULL = 0  # the whole blob, as it is
    BLOCKS = 1  # block by block, some of which are here
    DELTA = 2  # made from another blob that is here


@dataclass(frozen=True, slots=True)
class DeltaWant:
    """A delta that makes the wanted blob out of `base`: its own blob's digest and size in bytes."""

    base: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Way:
    """One way, and the bytes that have yet to come over the network for it."""

    kind: Kind
    cost: int
    delta: DeltaWant | None = None


def choose(
    remaining: int,
    missing: int | None,
    deltas: Iterable[tuple[DeltaWant, int]],
    *,
    untrusted: bool = False,
) -> list[Way]:
    """All ways, the cheapest first. `remaining`: bytes of the blob that are not here yet;
    `missing`: bytes of those in blocks that are nowhere here, None without a block index;
    `deltas`: those whose base is here, each with the bytes of it that have yet to come.
    `untrusted`: peers give bytes too, so blocks are checked one by one where that is possible."""
    ways = [] if untrusted and missing is not None else [Way(Kind.FULL, remaining)]
    if missing is not None:
        ways.append(Way(Kind.BLOCKS, min(missing, remaining)))
    ways += [Way(Kind.DELTA, cost, delta) for delta, cost in deltas]
    return sorted(ways, key=lambda way: (way.cost, way.kind))

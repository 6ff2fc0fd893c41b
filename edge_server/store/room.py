# SPDX-License-Identifier: Apache-2.0
"""What has to go so that something else fits: a rule without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """In the order in which they go."""

    DAMAGED = 0  # in quarantine
    ABANDONED = 1  # a partial that nobody fills
    BLOB = 2


@dataclass(frozen=True, slots=True)
class Victim:
    """Something that may go. `used`: seconds, the oldest goes first. `gain`: bytes that the disk
    gets back, 0 where the file has another name elsewhere."""

    kind: Kind
    digest: str
    size: int
    gain: int
    used: float


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """`max_bytes`: of blobs, partials and what is in quarantine together; None: no limit.
    `reserve_bytes`: what stays free on the file system for others."""

    max_bytes: int | None = None
    reserve_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed, or would remove. `over`: bytes by which the store still exceeds
    its limits because of pins; 0 where it does not."""

    removed: tuple[Victim, ...]
    over: int = 0

    @property
    def bytes(self) -> int:
        """Of all that was removed."""
        return sum(victim.size for victim in self.removed)


@dataclass(frozen=True, slots=True)
class Lack:
    """Bytes that are missing under the store's own limit, and on the disk; negative: to spare."""

    limit: int
    disk: int

    @property
    def any(self) -> bool:
        """Does anything have to go?"""
        return self.limit > 0 or self.disk > 0


def choose(victims: Iterable[Victim], lack: Lack) -> tuple[list[Victim], Lack]:
    """The first victims that make up for what lacks, and what still lacks after them."""
    chosen: list[Victim] = []
    for victim in in_order(victims):
        if not lack.any:
            break
        if lack.limit <= 0 and not victim.gain:
            continue  # its going helps nobody
        chosen.append(victim)
        lack = Lack(lack.limit - victim.size, lack.disk - victim.gain)
    return chosen, lack


def in_order(victims: Iterable[Victim]) -> Sequence[Victim]:
    """The first to go first."""
    return sorted(victims, key=lambda v: (v.kind, v.used, v.digest))

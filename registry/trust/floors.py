# SPDX-License-Identifier: Apache-2.0
"""Numbers that only rise: versions of roles, releases of rings, and time. Rules only."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuf.api.metadata import Role

from registry.trust.desired import Desired
from registry.trust.errors import ClockSetBack, Rollback
from registry.trust.names import DESIRED, ROLES, ROOT
from registry.trust.verify import Walk


@dataclass(frozen=True, slots=True)
class Floor:
    """A number that may only rise, for as long as these keys are the role's."""

    number: int
    keys: frozenset[str] = frozenset()

    def holds(self, keys: Iterable[str], threshold: int) -> bool:
        """Whether the floor still counts under these keys. Where what the old keys signed cannot
        verify any more there is nothing to roll back to, and whoever had the old keys may have
        driven the number up (TUF 5.3.11, recovery from a fast-forward attack)."""
        return not self.keys or len(self.keys.intersection(keys)) >= threshold


@dataclass(frozen=True, slots=True)
class Floors:
    """Versions by role, releases by ring, and a time in seconds since 1970 that has passed."""

    roles: Mapping[str, Floor] = field(default_factory=dict)
    releases: Mapping[str, Floor] = field(default_factory=dict)
    time: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "format": 1,
            "time": self.time,
            "roles": {name: _floor_json(floor) for name, floor in sorted(self.roles.items())},
            "releases": {name: _floor_json(floor) for name, floor in sorted(self.releases.items())},
        }


def higher(one: Floors, other: Floors) -> Floors:
    """Each floor the higher of the two; `one` was written last."""
    return Floors(
        _higher_each(one.roles, other.roles),
        _higher_each(one.releases, other.releases),
        max(one.time, other.time),
    )


def _higher_each(one: Mapping[str, Floor], other: Mapping[str, Floor]) -> dict[str, Floor]:
    """Floors of different keys are of different times; `one`, from the file that is written
    after the other, wins unless it is merely lower."""
    found = dict(one)
    for name, floor in other.items():
        mine = found.get(name)
        if mine is None or (mine.keys == floor.keys and floor.number > mine.number):
            found[name] = floor
    return found


def check_versions(found: Walk, floors: Floors) -> None:
    """Raises Rollback where a role's version is below its floor."""
    for role in ROLES:
        version = found.signed[role].version
        floor = floors.roles.get(role)
        if floor is not None and version < floor.number and floor.holds(*_keys(found, role)):
            raise Rollback(
                f"version {version} of role {role} is older than version {floor.number}, which "
                "this node has seen"
            )


def check_releases(found: Walk, floors: Floors, rings: Mapping[str, Desired]) -> None:
    """Raises Rollback where a ring's release is below its floor."""
    for ring, desired in rings.items():
        floor = floors.releases.get(ring)
        if floor is None or not floor.holds(*_keys(found, DESIRED)):
            continue
        if desired.release < floor.number:
            raise Rollback(
                f"release {desired.release} of ring {ring} is older than release {floor.number}, "
                "which this node has seen"
            )


def raised(found: Walk, floors: Floors, rings: Mapping[str, Desired], now: float) -> Floors:
    """The floors after a good walk at `now`. The time can run ahead of the true one by no more
    than a timestamp lives, since the walk would else have found it expired."""
    roles = {r: Floor(found.signed[r].version, frozenset(_keys(found, r)[0])) for r in ROLES}
    keys = frozenset(_keys(found, DESIRED)[0])
    releases = {ring: Floor(desired.release, keys) for ring, desired in rings.items()}
    return Floors(roles, {**floors.releases, **releases}, max(floors.time, now))


def check_clock(now: float, floor: float, slack: float) -> None:
    """Raises ClockSetBack where `now` is more than `slack` seconds before the `floor`."""
    if now >= floor - slack:
        return
    raise ClockSetBack(
        f"this machine's clock says {_when(now)}, but {_when(floor)} has passed",
        "set the clock of this machine; if it had run ahead and is right now, installing goes on "
        f"by itself after {_when(floor)}",
    )


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _keys(found: Walk, role: str) -> tuple[list[str], int]:
    """The ids of a role's keys and its threshold. A root is never let go: its floor has no keys."""
    if role == ROOT:
        return [], 1
    judge = found.targets if role == DESIRED else found.root
    held: Role = judge.get_delegated_role(role)
    return held.keyids, held.threshold


def _floor_json(floor: Floor) -> dict[str, Any]:
    return {"number": floor.number, "keys": sorted(floor.keys)}

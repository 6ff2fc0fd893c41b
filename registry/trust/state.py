# SPDX-License-Identifier: Apache-2.0
"""What a node keeps of trust, in two files, each written whole and synced:

`trusted.json`, the metadata that was good last, and `floors.json`, the versions below which the
node does not go. They are two so that the loss of one loses no floor: each role's floor is the
higher of what either says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.digest import digest_of
from registry.trust.durable import write_whole
from registry.trust.floors import Floor, Floors, higher
from registry.trust.names import ROOT
from registry.trust.sources import Missing

_FORMAT = 1
_TRUSTED = "trusted.json"
_FLOORS = "floors.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """The metadata that was good at `time`: roots by version, files by role, the documents of the
    rings, and the floors of that moment."""

    time: float = 0.0
    roots: Mapping[int, bytes] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)
    floors: Floors = field(default_factory=Floors)


class KeptSource:
    """What was kept, as a source of metadata."""

    def __init__(self, name: str, kept: Kept) -> None:
        self.name = name
        self._kept = kept

    def get(self, path: str, limit: int) -> bytes:
        """As MetadataSource."""
        kind, _, rest = path.partition("/")
        version, _, role = rest.removesuffix(".json").rpartition("/")[2].rpartition(".")
        found: bytes | None
        if kind == "targets":
            found = self._kept.documents.get(role)  # the name after the digest is the ring's
        elif role == ROOT:
            found = self._kept.roots.get(int(version))
        else:
            found = self._kept.files.get(role)
        if found is None or len(found) > limit:
            raise Missing(path)
        return found


class State:
    """The two files of `folder`. `damage` says of each file that could not be read why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damage: list[str] = []

    def read(self) -> tuple[Kept, Floors]:
        """What was kept, and the floors. What is damaged counts as absent, but for its part in the
        other file. Raises OSError."""
        self.damage = []
        kept = Kept()
        try:
            if (found := self._load(_TRUSTED)) is not None:
                kept = _kept_from(found)
        except _BAD as error:
            self.damage.append(f"{self.folder / _TRUSTED} is damaged: {error!r}")
        floors = kept.floors
        try:
            if (found := self._load(_FLOORS)) is not None:
                floors = higher(_floors_from(found), kept.floors)
        except _BAD as error:
            self.damage.append(f"{self.folder / _FLOORS} is damaged: {error!r}")
        return kept, floors

    def write(self, kept: Kept) -> None:
        """Keep this. Raises OSError."""
        body = {
            "format": _FORMAT,
            "time": kept.time,
            "roots": {str(version): data.decode() for version, data in kept.roots.items()},
            "files": {role: data.decode() for role, data in kept.files.items()},
            "documents": {ring: data.decode() for ring, data in kept.documents.items()},
            "floors": kept.floors.as_json(),
        }
        self._store(_TRUSTED, body)
        self.write_floors(kept.floors)

    def write_floors(self, floors: Floors) -> None:
        """Keep these floors. Raises OSError."""
        self._store(_FLOORS, floors.as_json())

    def _load(self, name: str) -> dict[str, Any] | None:
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        sealed = json.loads(data)
        body = sealed["body"]
        if digest_of(_encode(body)) != sealed["digest"] or body["format"] != _FORMAT:
            raise ValueError("its bytes are not those that were written")
        assert isinstance(body, dict)
        return body

    def _store(self, name: str, body: dict[str, Any]) -> None:
        sealed = {"digest": digest_of(_encode(body)), "body": body}
        write_whole(self.folder / name, json.dumps(sealed).encode(), 0o600)


# What reading a damaged file can come to.
_BAD = (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError)


def _encode(body: object) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _floors_from(body: dict[str, Any]) -> Floors:
    def read(key: str) -> dict[str, Floor]:
        return {
            name: Floor(int(floor["number"]), frozenset(floor["keys"]))
            for name, floor in body[key].items()
        }

    return Floors(read("roles"), read("releases"), float(body["time"]))


def _kept_from(body: dict[str, Any]) -> Kept:
    return Kept(
        float(body["time"]),
        {int(version): text.encode() for version, text in body["roots"].items()},
        {role: text.encode() for role, text in body["files"].items()},
        {ring: text.encode() for ring, text in body["documents"].items()},
        _floors_from(body["floors"]),
    )

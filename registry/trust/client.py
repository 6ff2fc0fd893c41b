# SPDX-License-Identifier: Apache-2.0
"""A node's side of trust: what is current, and what is vouched for.

    client = TrustClient(folder, Path("root.json"))
    trusted = client.refresh([HttpSource("https://registry.example/tuf")], ring="canary")
    for model in trusted.desired("canary").models:
        digest, size = trusted.vouched(model.repository, model.tag)

Synchronous; calls of one client come one after the other, two processes exclude each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from registry.trust.durable import locked
from registry.trust.errors import BadMetadata, BadRoot, NoSource, SourceDown, TrustError
from registry.trust.floors import Floors, check_clock, check_releases, check_versions, raised
from registry.trust.names import check_ring
from registry.trust.sources import MetadataSource
from registry.trust.state import Kept, KeptSource, State
from registry.trust.trusted import Trusted, agreed, trusted
from registry.trust.verify import BY_BAD_VALUES, Walk, walk

__all__ = ["TrustClient", "Trusted"]

# A clock may be put right by so much without being refused, in seconds: its own steps, and the
# difference between the publisher's clock and ours.
_STEP = 300.0
_PUBLISHER_AHEAD = 86_400.0
_TIME_WRITTEN = 600.0  # s between two writes of the time alone: floors are on a node's flash


class TrustClient:
    """Keeps trust in `folder`. `root` is the first root, as file or bytes, shipped with the node;
    `clock` gives seconds since 1970."""

    def __init__(
        self, folder: Path, root: Path | bytes, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._state = State(folder)
        self._root = root if isinstance(root, bytes) else _read_root(root)

    @property
    def damage(self) -> Sequence[str]:
        """What of the kept state could not be read, for the log; set by `load` and `refresh`."""
        return tuple(self._state.damage)

    def load(self) -> Trusted | None:
        """What was good last, verified again without a network; None where there is nothing
        (`damage` says whether something is lost), or where a newer root has revoked its keys. It
        may be stale by now: ask. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        kept, floors = self._state.read()
        if not kept.files:
            return None
        try:
            found = self._again(kept)
            return self._judge("", found, floors, kept.documents, kept.time)[0]
        except TrustError as error:
            self._state.damage.append(f"{self._folder}: what was kept is not used: {error}")
            return None

    def refresh(self, sources: Sequence[MetadataSource], ring: str) -> Trusted:
        """The newest state that the first good source has, and keep it. Sources that are stale,
        damaged, hostile or silent are passed over.

        Raises ClockSetBack; where no source is good, what was wrong with the first that answered,
        NoSource where none did; Busy; OSError of the folder.
        """
        check_ring(ring)
        with locked(self._folder / "lock", f"the trust in {self._folder}"):
            self._sweep()
            now = self._clock()
            check_clock(now, self._state.read()[1].time, _STEP)
            failures: list[TrustError] = []
            for source in sources:
                try:
                    return self._follow(source, ring, now)
                except TrustError as error:
                    failures.append(error)
            raise _best(failures)

    def accept_clock(self) -> None:
        """Take this machine's clock for right: the way out where it had run ahead. What has
        expired by it stays refused. Raises Busy, OSError."""
        with locked(self._folder / "lock", f"the trust in {self._folder}"):
            kept, floors = self._state.read()
            floors = replace(floors, time=self._clock())
            self._state.write(replace(kept, floors=floors))

    def _follow(self, source: MetadataSource, ring: str, now: float) -> Trusted:
        kept, floors = self._state.read()
        lost = bool(self._state.damage)
        found = walk(source, self._root, kept.roots, kept.files, ring, now, self._folder)
        # A root that verified counts from now on, whatever came after it: who replays what the
        # old keys signed is refused for ever (TUF 5.3.8).
        if found.roots and max(found.roots) > max(kept.roots, default=0):
            kept = replace(kept, roots=found.roots, floors=floors)
            self._state.write(kept)
        if found.error is not None:
            raise found.error
        documents = {ring: found.document} if found.document is not None else {}
        good, new = self._judge(source.name, found, floors, documents, now)
        changed = (found.files, documents) != (kept.files, kept.documents)
        if changed or lost or now - kept.time > _TIME_WRITTEN:
            self._state.write(Kept(now, found.roots, found.files, documents, new))
        return replace(good, changed=changed)

    def _judge(
        self, name: str, found: Walk, floors: Floors, documents: Mapping[str, bytes], now: float
    ) -> tuple[Trusted, Floors]:
        """What follows from a walk that the library found good, and the new floors."""
        try:
            check_clock(now, found.signed_at, _PUBLISHER_AHEAD)
            check_versions(found, floors)
            rings = agreed(found, documents)
            check_releases(found, floors, rings)
            return trusted(name, found, rings), raised(found, floors, rings, now)
        except TrustError as error:
            raise type(error)(f"{name}: {error}" if name else str(error), error.remedy) from None
        except BY_BAD_VALUES as error:
            raise BadMetadata(f"{name}: signed metadata says what it must not: {error!r}") from None

    def _again(self, kept: Kept) -> Walk:
        """The kept state walked once more, as of the time when it was good; raises TrustError."""
        ring = next(iter(kept.documents), "none")
        source = KeptSource(str(self._folder), kept)
        found = walk(source, self._root, kept.roots, {}, ring, kept.time, self._folder)
        if found.error is not None:
            raise found.error
        return found

    def _sweep(self) -> None:
        """Take away what a walk left that was killed."""
        for left in self._folder.glob("walk-*"):
            for path in sorted(left.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            left.rmdir()


def _read_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRoot(f"{path}: {error.strerror}") from None


def _best(failures: Sequence[TrustError]) -> TrustError:
    """The error that says most, with what was wrong with the other sources."""
    answered = [error for error in failures if not isinstance(error, SourceDown)]
    if not answered:
        why = "; ".join(str(error) for error in failures) or "none is given"
        return NoSource(f"no source of metadata answered: {why}")
    first = answered[0]
    others = [str(error) for error in failures if error is not first]
    also = f" (also: {'; '.join(others)})" if others else ""
    return type(first)(f"{first}{also}", first.remedy)

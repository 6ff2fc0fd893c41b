# SPDX-License-Identifier: Apache-2.0
"""Finds out what a desired package is made of and brings it into the store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from edge_server.fill.choose import DeltaWant
from edge_server.fill.errors import FillError, Stopped
from edge_server.fill.fill import Fill, Want
from edge_server.fill.origins import Origins
from edge_server.store.store import Store
from edge_server.sync.package import Package
from registry.delta.block_index import BlockIndex
from registry.delta.block_index import parse as parse_index
from registry.delta.publish import DELTA, candidates
from registry.digest import digest_of
from registry.errors import RegistryError, WrongDigest, WrongSize
from registry.oci import MANIFEST_LIMIT, Descriptor, Index, Manifest, parse, parse_manifest
from registry.package.modelpack import File, choose, files_of, variant_of
from registry.trust.desired import DesiredModel

_LOOK_SECONDS: Final = 0.25  # between two looks at whether to stop
_INDEX_LIMIT: Final = 64 << 20
_SMALL: Final = 64 << 10  # files below this are not worth a delta


class Filler(Protocol):
    """edge_server.fill.fills.Fills, as much of it as is needed here."""

    def start(self, want: Want) -> Fill:
        """The fill of this blob, begun or under way or done."""


class Gatherer:
    """Brings packages into one store. Works on the thread of the sync."""

    def __init__(
        self,
        store: Store,
        fills: Filler,
        origins: Origins,
        abi: int | None,
        stop: threading.Event,
        deltas: bool = True,
    ) -> None:
        """`abi`: of the programs that this node's card takes, None where it has no card."""
        self._store = store
        self._fills = fills
        self._origins = origins
        self._abi = abi
        self._stop = stop
        self._deltas = deltas

    def package(self, model: DesiredModel) -> Package:
        """The variant for this node. Raises BadManifest and PackageError for a package that no
        attempt will make better, FillError and the store's errors for what may pass."""
        top = self._document(model.repository, model.digest, model.size)
        what = f"{model.repository}:{model.tag}"
        found = parse(top, what)
        if isinstance(found, Manifest):
            return Package(model, variant_of(found)[0], (model.digest,), tuple(files_of(found)))
        entry = choose(found, self._abi)
        data = self._document(model.repository, entry.digest, entry.size)
        manifest = parse_manifest(data, f"{what}, variant {variant_of(entry)[0]}")
        digests = (model.digest, entry.digest)
        return Package(model, variant_of(entry)[0], digests, tuple(files_of(manifest)))

    def fill(
        self, package: Package, old: Package | None, tell: Callable[[Sequence[Fill]], None]
    ) -> None:
        """Every file into the store; `old` is a package that is here and may share bytes. `tell`
        is called now and then with the fills of the files. Raises as `package` does."""
        holders = self._indexes(old) if old is not None else ()
        deltas = self._find_deltas(package) if self._deltas and old is not None else {}
        files = {file.digest: file for file in package.files}.values()
        for file in files:
            self._index(package, file)
        fills = [
            self._fills.start(
                Want(
                    package.model.repository,
                    file.digest,
                    file.size,
                    index=held_index(self._store, file),
                    holders=holders,
                    deltas=tuple(deltas.get(file.digest, ())),
                )
            )
            for file in files
        ]
        self._wait(fills, tell)

    # -- beneath ------------------------------------------------------------------------------

    def _document(self, name: str, digest: str, size: int) -> bytes:
        """A manifest by its digest, from the store or an origin."""
        path = self._store.path(digest)
        if path is not None:
            return path.read_bytes()
        if size > MANIFEST_LIMIT:
            raise WrongSize(f"{name}: a manifest of {size} bytes; at most {MANIFEST_LIMIT}")
        data, _ = self._origins.manifest(name, digest, limit=size)
        if len(data) != size:
            raise WrongSize(f"{name}: manifest {digest} has {len(data)} bytes, not {size}")
        if digest_of(data) != digest:
            raise WrongDigest(f"{name}: what came is not {digest}")
        self._store.add(data, digest)
        return data

    def _wait(self, fills: Sequence[Fill], tell: Callable[[Sequence[Fill]], None]) -> None:
        waiting = list(fills)
        try:
            while waiting:
                if self._stop.is_set():
                    raise Stopped("the sync is stopping")
                try:
                    waiting[0].wait(_LOOK_SECONDS)
                    waiting.pop(0)
                except TimeoutError:
                    pass
                tell(fills)
        except BaseException:
            for fill in waiting:
                fill.cancel()
            raise

    def _index(self, package: Package, file: File) -> None:
        """The file's block index into the store; without it the file comes as a whole."""
        if not file.blocks or self._store.path(file.blocks) or self._store.path(file.digest):
            return
        want = Want(package.model.repository, file.blocks)
        try:
            self._wait([self._fills.start(want)], lambda _fills: None)
        except Stopped:
            raise
        except (FillError, TimeoutError):
            pass  # said by the fill; the blob itself will say whether an origin answers

    def _indexes(self, package: Package) -> tuple[BlockIndex, ...]:
        found = (held_index(self._store, f) for f in package.files if self._store.path(f.digest))
        return tuple(index for index in found if index is not None)

    def _find_deltas(self, package: Package) -> dict[str, list[DeltaWant]]:
        """Deltas whose base is here, by the digest of what they make. None where the origins do
        not answer or have none: the files then come as they are."""
        lacking = {f.digest for f in package.files if f.size >= _SMALL}
        lacking = {digest for digest in lacking if self._store.path(digest) is None}
        if not lacking:
            return {}
        name = package.model.repository
        found: dict[str, list[DeltaWant]] = {}
        try:
            referrers = self._origins.referrers(name, package.model.digest)
            for delta in candidates(self._manifests(name, referrers)):
                if delta.new in lacking and self._store.path(delta.old) is not None:
                    want = DeltaWant(delta.old, delta.blob.digest, delta.blob.size)
                    found.setdefault(delta.new, []).append(want)
        except RegistryError:
            return {}
        return found

    def _manifests(self, name: str, referrers: Index) -> Iterable[tuple[Descriptor, Manifest]]:
        for entry in referrers.manifests:
            if entry.artifact_type == DELTA and entry.size <= MANIFEST_LIMIT:
                data, _ = self._origins.manifest(name, entry.digest, limit=entry.size)
                yield entry, parse_manifest(data, f"a delta of {name}")


def held_index(store: Store, file: File) -> BlockIndex | None:
    """The file's block index, where the store has a good one."""
    path = store.path(file.blocks) if file.blocks else None
    if path is None or path.stat().st_size > _INDEX_LIMIT:
        return None
    try:
        index = parse_index(path.read_bytes())
    except RegistryError:
        return None
    return index if (index.digest, index.size) == (file.digest, file.size) else None

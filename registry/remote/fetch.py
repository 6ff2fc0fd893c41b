# SPDX-License-Identifier: Apache-2.0
"""A package from a registry into a layout: resumed where it broke off, every byte checked.

A blob grows in `.partial-<hex>` beside its place and takes it only once its digest is right, so a
layout never holds a wrong blob under a name; the tag comes last.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from registry import oci
from registry.digest import hex_of
from registry.errors import BadManifest, NotFound, RegistryError, WrongDigest
from registry.package.layout import Layout
from registry.package.modelpack import variant_of
from registry.remote.client import Remote
from registry.remote.errors import EndlessData, RemoteError, Truncated
from registry.remote.transfers import Transfers

_DEPTH = 4
_BUFFER = 1 << 20


@dataclass
class Package:
    """What a registry says a package is: documents as bytes by digest, the outermost first."""

    root: oci.Descriptor
    documents: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    blobs: dict[str, oci.Descriptor] = field(default_factory=dict)
    referrers: list[oci.Descriptor] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs.values())


@dataclass(frozen=True)
class Fetched:
    """What a pull did; counts are of blobs."""

    digest: str
    size: int
    received_bytes: int
    received: int
    kept: int


def look_up(
    remote: Remote,
    name: str,
    target: str,
    transfers: Transfers,
    *,
    variant: str = "",
    referrers: bool = False,
) -> Package:
    """Read a package's documents, of one variant or all of them. Raises NotFound where it has no
    such variant, BadManifest, RemoteError."""
    found = transfers.again(target, lambda: remote.manifest(name, target))
    document = oci.parse(found.data, f"{remote.registry}/{name} {target}")
    package = Package(oci.Descriptor(document.media_type, found.digest, len(found.data)))
    if variant:
        package.root = _variant(package.root, document, variant, f"{name} {target}")
    _collect(remote, name, package.root, package, transfers, _DEPTH)
    if referrers:
        for digest in list(package.documents):
            for entry in transfers.again(digest, partial(_referrers, remote, name, digest)):
                _collect(remote, name, entry, package, transfers, _DEPTH)
                package.referrers.append(entry)
    return package


def _referrers(remote: Remote, name: str, digest: str) -> tuple[oci.Descriptor, ...]:
    return remote.referrers(name, digest).manifests


def _variant(
    root: oci.Descriptor, document: oci.Manifest | oci.Index, variant: str, what: str
) -> oci.Descriptor:
    if isinstance(document, oci.Manifest):
        if variant_of(document)[0] == variant:
            return root
        raise NotFound(f"{what} is a single manifest, not variant {variant!r}")
    known = [variant_of(entry)[0] for entry in document.manifests]
    for entry, label in zip(document.manifests, known, strict=True):
        if label == variant:
            return entry
    raise NotFound(
        f"{what} has no variant {variant!r}", f"it has: {', '.join(filter(None, known)) or 'none'}"
    )


def _collect(
    remote: Remote,
    name: str,
    entry: oci.Descriptor,
    package: Package,
    transfers: Transfers,
    depth: int,
) -> None:
    if entry.digest in package.documents:
        return
    if depth == 0:
        raise BadManifest(f"{name}@{entry.digest}: more than {_DEPTH} indexes deep")
    found = transfers.again(entry.digest, lambda: remote.manifest(name, entry.digest))
    document = oci.parse(found.data, f"{name}@{entry.digest}")
    package.documents[entry.digest] = (found.data, document.media_type)
    if isinstance(document, oci.Index):
        for child in document.manifests:
            _collect(remote, name, child, package, transfers, depth - 1)
    else:
        for blob in document.blobs:
            package.blobs.setdefault(blob.digest, blob)


def fetch(
    remote: Remote, layout: Layout, name: str, package: Package, tag: str, transfers: Transfers
) -> Fetched:
    """Fetch a package that was looked up; without `tag` it is entered under its digest. Raises
    RemoteError, WrongDigest, OSError."""
    blobs = sorted(package.blobs.values(), key=lambda blob: -blob.size)

    def receive(blob: oci.Descriptor) -> int:
        got = _Download(remote, layout, name, blob, transfers).run()
        transfers.watch.end(blob.digest, "received" if got else "kept")
        return got

    received = transfers.each(blobs, receive)
    for data, media_type in package.documents.values():
        layout.add(data, media_type)
    for entry in package.referrers:
        layout.hold(entry)
    if tag:
        layout.tag(tag, package.root)
    else:
        layout.hold(package.root)
    count = sum(1 for got in received if got)
    return Fetched(package.root.digest, package.size, sum(received), count, len(blobs) - count)


class _Download:
    """One blob on its way into a layout."""

    def __init__(
        self,
        remote: Remote,
        layout: Layout,
        name: str,
        blob: oci.Descriptor,
        transfers: Transfers,
    ) -> None:
        self._remote = remote
        self._layout = layout
        self._name = name
        self._blob = blob
        self._transfers = transfers
        self._place = layout.blob_path(blob.digest)
        self._partial = self._place.with_name(f".partial-{hex_of(blob.digest)}")
        self._buffer = memoryview(bytearray(_BUFFER))
        self._hasher = hashlib.sha256()
        self._offset = 0  # bytes in the file and in the hash
        self._received = 0

    def run(self) -> int:
        """Fetch what is missing; returns the bytes received, 0 where the blob was there."""
        if self._there():
            return 0
        with self._opened() as handle:
            if self._there():  # another process may have fetched it while this one waited
                self._partial.unlink(missing_ok=True)  # made by whoever asked for the lock last
                return 0
            self._take_up(handle)
            resumed = self._offset > 0
            self._fill(handle)
            if resumed and self._wrong():  # what was on the disk may have suffered from a power cut
                self._empty(handle)
                self._fill(handle)
            self._settle(handle)
        return self._received

    def _there(self) -> bool:
        try:
            self._layout.check_blob(self._blob)
        except RegistryError:
            return False
        return True

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The partial file, locked; the one that has the name, not one that another process has
        renamed or removed meanwhile."""
        while True:
            handle = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                try:
                    same = os.path.samestat(os.fstat(handle), self._partial.stat())
                except FileNotFoundError:
                    same = False
                if same or self._there():
                    yield handle
                    return
            finally:
                os.close(handle)

    def _take_up(self, handle: int) -> None:
        while count := os.preadv(handle, [self._buffer], self._offset):
            self._hasher.update(self._buffer[:count])
            self._offset += count
        if self._offset > self._blob.size:
            self._empty(handle)

    def _empty(self, handle: int) -> None:
        os.ftruncate(handle, 0)
        self._hasher, self._offset = hashlib.sha256(), 0

    def _fill(self, handle: int) -> None:
        def receive() -> None:
            before = self._offset
            try:
                while self._offset < self._blob.size:
                    self._receive(handle)
            except RemoteError as error:
                error.progressed = self._offset > before
                raise

        self._transfers.again(self._blob.digest, receive)

    def _receive(self, handle: int) -> None:
        size, digest = self._blob.size, self._blob.digest
        with self._remote.open_blob(self._name, digest, self._offset) as body:
            at = body.start  # 0 where the server ignored the range: what is there is passed over
            more = True
            while more:
                count = 0
                try:  # a full buffer at a time, and what has come before a failure too
                    while count < _BUFFER and (got := body.readinto(self._buffer[count:])):
                        count += got
                    more = count == _BUFFER
                finally:
                    at = self._take(handle, at, count)
                self._transfers.at(digest, self._offset)
        if self._offset < size:
            raise Truncated(f"{self._name}@{digest}: {self._offset} of {size} bytes came")

    def _take(self, handle: int, at: int, count: int) -> int:
        """Keep what is new of `count` bytes from offset `at`; returns the offset behind them."""
        if at + count > self._blob.size:
            raise EndlessData(
                f"{self._name}@{self._blob.digest}: more than {self._blob.size} bytes"
            )
        self._received += count
        new = self._buffer[max(0, self._offset - at) : count]
        _write(handle, new, self._offset)
        self._hasher.update(new)
        self._offset += len(new)
        return at + count

    def _wrong(self) -> bool:
        return self._hasher.hexdigest() != hex_of(self._blob.digest)

    def _settle(self, handle: int) -> None:
        if self._wrong():
            self._partial.unlink()
            raise WrongDigest(
                f"{self._remote.registry}/{self._name}: the bytes received are "
                f"sha256:{self._hasher.hexdigest()}, not {self._blob.digest}",
                "the registry or something before it is broken, or lies; nothing was kept",
            )
        os.fsync(handle)
        self._partial.rename(self._place)
        folder = os.open(self._place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(handle: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(handle, data, offset)
        data, offset = data[count:], offset + count

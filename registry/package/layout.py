# SPDX-License-Identifier: Apache-2.0
"""An OCI image layout on disk (OCI Image Specification 1.1, Image Layout).

`oci-layout`, `index.json` and `blobs/sha256/<hex>`. Every file is written beside its place, synced
and renamed, so that an interruption leaves what was there before; `index.json` comes last and under
a lock on the folder, so that two writers lose nothing of each other's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from registry.digest import digest_of, digest_of_file, hex_of
from registry.errors import BadManifest, NotFound, WrongDigest, WrongSize
from registry.oci import (
    INDEX,
    MANIFEST,
    MANIFEST_LIMIT,
    REF_NAME,
    Descriptor,
    Index,
    Manifest,
    describe,
    parse,
    parse_manifest,
)
from registry.package.errors import BadLayout
from registry.reference import check_tag

LAYOUT_VERSION = "1.0.0"
_LAYOUT_FILE = "oci-layout"
_INDEX_FILE = "index.json"
_LAYOUT_LIMIT = 4096
_CHUNK = 1 << 20


def _nothing(_bytes: int) -> None:
    """Nobody watches the progress."""


def split_tag(text: str) -> tuple[Path, str]:
    """The folder and the tag (or `sha256:…`) of LAYOUT[:TAG], the tag empty where there is none. A
    folder of that very name wins."""
    if Path(text).is_dir():
        return Path(text), ""
    folder, colon, digest = text.partition("@")
    if not colon:
        folder, colon, digest = text.rpartition(":")
    apart = colon and folder and "/" not in digest
    return (Path(folder), digest) if apart else (Path(text), "")


class Layout:
    """A layout at `path`; `create` makes one where the folder is empty or not there.

    Raises BadLayout where the folder is no layout of version 1.0.0.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        self.path = path
        self._blobs = path / "blobs" / "sha256"
        if create and not (path / _LAYOUT_FILE).exists():
            self._make()
        self._check()

    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if any(self.path.iterdir()):
            raise BadLayout(
                f"{self.path} holds files and is no OCI layout", "name a new or an empty folder"
            )
        self._blobs.mkdir(parents=True)
        _write(self.path / _INDEX_FILE, Index(()).encode())
        version = json.dumps({"imageLayoutVersion": LAYOUT_VERSION}).encode()
        _write(self.path / _LAYOUT_FILE, version)

    def _check(self) -> None:
        try:
            with (self.path / _LAYOUT_FILE).open("rb") as file:
                found = json.loads(file.read(_LAYOUT_LIMIT))
            version = found["imageLayoutVersion"]
        except FileNotFoundError:
            raise BadLayout(
                f"{self.path} is no OCI layout: it has no file {_LAYOUT_FILE}",
                "make one with `tepi model pack` or `tepi model pull`",
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadLayout(f"{self.path / _LAYOUT_FILE} is not readable JSON") from None
        if version != LAYOUT_VERSION:
            raise BadLayout(f"{self.path} is a layout of version {version!r}, not {LAYOUT_VERSION}")

    @property
    def index(self) -> Index:
        """What index.json says. Raises BadLayout."""
        try:
            with (self.path / _INDEX_FILE).open("rb") as file:
                found = parse(file.read(MANIFEST_LIMIT + 1), str(self.path / _INDEX_FILE))
        except FileNotFoundError:
            raise BadLayout(f"{self.path} has no {_INDEX_FILE}") from None
        except BadManifest as error:
            raise BadLayout(str(error)) from None
        if not isinstance(found, Index):
            raise BadLayout(f"{self.path / _INDEX_FILE} is not an index")
        return found

    def tags(self) -> dict[str, Descriptor]:
        """What each tag names, in the order of the tags."""
        named = {e.annotations[REF_NAME]: e for e in self.index.manifests if _tagged(e)}
        return dict(sorted(named.items()))

    def resolve(self, tag: str = "") -> Descriptor:
        """What `tag` (or `sha256:…`) names; without one, the only package. Raises NotFound."""
        index = self.index
        if tag.startswith("sha256:"):
            found = [e for e in index.manifests if e.digest == tag]
            return found[0] if found else self._by_digest(tag)
        tags = self.tags()
        only = list(tags.values()) or list(index.manifests)
        if not tag and len({entry.digest for entry in only}) == 1:
            return only[0]
        if tag in tags:
            return tags[tag]
        known = ", ".join(tags) or "none"
        wanted = f"no tag {tag!r}" if tag else f"{len(only)} packages, so say which"
        raise NotFound(f"{self.path} has {wanted}", f"its tags are: {known}")

    def _by_digest(self, digest: str) -> Descriptor:
        data = self.read(digest, MANIFEST_LIMIT)
        return Descriptor(parse(data, digest).media_type, digest, len(data))

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Let `name` stand for a manifest or an index that the layout holds. Referrers of what it
        stood for go with it, unless another tag names that."""
        check_tag(name)
        entry = replace(descriptor, annotations={**descriptor.annotations, REF_NAME: name})
        with self._locked():
            index = self.index
            kept = [e for e in index.manifests if e.annotations.get(REF_NAME) != name]
            gone = {e.digest for e in index.manifests} - {e.digest for e in (*kept, entry)}
            kept = [e for e in kept if not gone or self._subject(e) not in gone]
            self._replace_index(index, [*kept, entry])

    def hold(self, descriptor: Descriptor) -> None:
        """Enter a manifest without a tag, say a referrer; once however often it is called."""
        with self._locked():
            index = self.index
            if all(e.digest != descriptor.digest for e in index.manifests):
                self._replace_index(index, [*index.manifests, descriptor])

    def _subject(self, entry: Descriptor) -> str:
        """What an entry without a tag refers to, empty where it refers to nothing."""
        if _tagged(entry) or entry.media_type != MANIFEST or not self.has(entry.digest):
            return ""
        subject = self.manifest(entry).subject
        return subject.digest if subject else ""

    def _replace_index(self, old: Index, entries: list[Descriptor]) -> None:
        entries.sort(key=lambda e: (e.annotations.get(REF_NAME, ""), e.digest))
        _write(self.path / _INDEX_FILE, replace(old, manifests=tuple(entries)).encode())

    def referrers(self, digest: str) -> list[tuple[Descriptor, Manifest]]:
        """The untagged manifests of the layout whose subject is `digest`."""
        found = []
        for entry in self.index.manifests:
            if self._subject(entry) == digest:
                data = self.read(entry.digest, MANIFEST_LIMIT)
                found.append((entry, parse_manifest(data, entry.digest)))
        return found

    def blob_path(self, digest: str) -> Path:
        """Where the blob is or would be. Raises BadDigest."""
        return self._blobs / hex_of(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob is there; its bytes are not looked at."""
        return self.blob_path(digest).is_file()

    def read(self, digest: str, limit: int) -> bytes:
        """A blob of at most `limit` bytes, checked. Raises NotFound, WrongSize, WrongDigest."""
        try:
            with self.blob_path(digest).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise self._missing(digest) from None
        if len(data) > limit:
            raise WrongSize(f"{digest} in {self.path} has more than {limit} bytes")
        if digest_of(data) != digest:
            raise self._damaged(digest)
        return data

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """The document that a descriptor names. Raises as read, and BadManifest."""
        data = self.read(descriptor.digest, MANIFEST_LIMIT)
        return parse(data, f"{descriptor.digest} in {self.path}")

    def check_blob(self, descriptor: Descriptor, tell: Callable[[int], None] = _nothing) -> None:
        """Read a blob whole. Raises NotFound, WrongSize, WrongDigest; `tell` gets bytes read."""
        path = self.blob_path(descriptor.digest)
        try:
            size = path.stat().st_size
            if size != descriptor.size:
                raise WrongSize(
                    f"{descriptor.digest} in {self.path} has {size} bytes, not {descriptor.size}"
                )
            if digest_of_file(path, tell) != descriptor.digest:
                raise self._damaged(descriptor.digest)
        except FileNotFoundError:
            raise self._missing(descriptor.digest) from None

    def add(
        self,
        content: bytes | Path,
        media_type: str,
        annotations: Mapping[str, str] | None = None,
        tell: Callable[[int], None] = _nothing,
    ) -> Descriptor:
        """Take a blob in, from memory or copied from a file; `tell` gets the bytes of each step.

        The blob is durable when this returns. Raises OSError.
        """
        descriptor, temporary = self._take_in(content, tell)
        target = self.blob_path(descriptor[0])
        temporary.rename(target)  # a damaged blob of that name is healed by it
        _sync_folder(self._blobs)
        return Descriptor(media_type, *descriptor, dict(annotations or {}))

    def add_document(self, document: Manifest | Index) -> Descriptor:
        """Take a manifest or an index in."""
        descriptor, data = describe(document, artifact_type=document.artifact_type)
        self.add(data, descriptor.media_type)
        return descriptor

    def _take_in(
        self, content: bytes | Path, tell: Callable[[int], None]
    ) -> tuple[tuple[str, int], Path]:
        hasher, size = hashlib.sha256(), 0
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self._blobs)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in _chunks(content):
                    hasher.update(chunk)
                    file.write(chunk)
                    size += len(chunk)
                    tell(len(chunk))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return (f"sha256:{hasher.hexdigest()}", size), Path(name)

    def reachable(self, entries: Sequence[Descriptor]) -> dict[str, Descriptor]:
        """These documents and every document and blob that they lead to, by digest."""
        found: dict[str, Descriptor] = {}
        waiting = list(entries)
        while waiting:
            entry = waiting.pop()
            if entry.digest in found:
                continue
            found[entry.digest] = entry
            if entry.media_type in (MANIFEST, INDEX):
                document = self.manifest(entry)
                waiting += document.manifests if isinstance(document, Index) else document.blobs
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _missing(self, digest: str) -> NotFound:
        return NotFound(f"{self.path} has no blob {digest}", "pull or pack the package again")

    def _damaged(self, digest: str) -> WrongDigest:
        return WrongDigest(
            f"the bytes of {digest} in {self.path} are not those it names",
            "delete that blob and pull or pack the package again",
        )


def _tagged(entry: Descriptor) -> bool:
    return REF_NAME in entry.annotations and entry.media_type in (MANIFEST, INDEX)


def _chunks(content: bytes | Path) -> Iterator[memoryview]:
    if isinstance(content, bytes):
        yield memoryview(content)
        return
    buffer = memoryview(bytearray(_CHUNK))
    with content.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def _write(path: Path, data: bytes) -> None:
    """Replace a file by one with these bytes, all or nothing."""
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

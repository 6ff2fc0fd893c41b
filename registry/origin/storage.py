# SPDX-License-Identifier: Apache-2.0
"""A registry's folder on disk.

    DIR/blobs/sha256/<hex>                                blobs and manifests, each once
    DIR/repositories/<name>/_manifests/digests/<hex>      the media type of a manifest held here
    DIR/repositories/<name>/_manifests/tags/<tag>         the digest that a tag stands for
    DIR/repositories/<name>/_manifests/referrers/<hex of the subject>/<hex>   a descriptor
    DIR/uploads/<id>                                      uploads under way
    DIR/tuf/metadata, DIR/tuf/targets                     the trust's files, written elsewhere

No part of a name begins with `_`, so that no repository is another's `_manifests`. A file appears
under its name when its bytes are on the disk (write, fsync, rename, fsync of the folder), so that a
power cut leaves the old or the new; what a tag names was there before the tag.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
from pathlib import Path
from typing import IO, BinaryIO

from registry.digest import check_digest, digest_of, hex_of
from registry.errors import BadDigest, BadManifest, BadReference, RegistryError
from registry.oci import MANIFEST_LIMIT, Descriptor, Manifest
from registry.origin.documents import Document, read_document
from registry.origin.problems import DigestInvalid, ManifestBlobUnknown, ManifestInvalid
from registry.origin.source import ManifestFound
from registry.reference import check_name, check_tag

_SMALL = MANIFEST_LIMIT + (64 << 10)  # bytes of a record: a descriptor has a manifest's annotations


class OriginBusy(RegistryError):
    """Another process serves this folder."""


class Storage:
    """One registry folder. Blocking and thread-safe; names, tags and digests are checked here
    too, so that no path leaves the folder whoever calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.uploads = root / "uploads"
        self.trust = root / "tuf"
        self._repositories = root / "repositories"
        self.change = threading.RLock()  # manifests come, blobs go: never at once
        self._lock: IO[str] | None = None
        for folder in (self.blobs, self.uploads, self._repositories):
            _make_folder(folder)

    def claim(self) -> None:
        """Serve it alone. Raises OriginBusy."""
        lock = (self.root / "serve.lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read(20).strip() or "unknown"
            lock.close()
            raise OriginBusy(
                f"{self.root} is served by process {owner}", "stop that first, or use its address"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Let another process serve it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def blob_path(self, digest: str) -> Path:
        """Where a blob is or would be; raises BadDigest."""
        return self.blobs / hex_of(digest)

    def open_blob(self, digest: str) -> BinaryIO | None:
        """A blob's file; None where there is none."""
        try:
            return self.blob_path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            return None

    def blob_size(self, digest: str) -> int | None:
        """Bytes of a blob; None where there is none."""
        try:
            return self.blob_path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def keep_blob(self, digest: str) -> int | None:
        """As blob_size, for somebody who is about to refer to it: the sweep spares it for the time
        that it spares new blobs."""
        with self.change:
            try:
                os.utime(self.blob_path(digest))
            except FileNotFoundError:
                return None
            return self.blob_size(digest)

    def manifest(self, name: str, target: str) -> ManifestFound | None:
        """By tag or by digest; None where this repository has none."""
        folder = self._folder(name)
        try:
            digest = target if ":" in target else _read(folder / "tags" / check_tag(target))
            media_type = _read(folder / "digests" / hex_of(digest))
            return ManifestFound(self.blob_path(digest).read_bytes(), media_type, digest)
        except FileNotFoundError:
            return None

    def put_manifest(
        self, name: str, target: str, data: bytes, media_type: str
    ) -> tuple[str, Document]:
        """Hold a manifest under a tag or its digest; returns its digest and what is in it. Raises
        ManifestInvalid, ManifestBlobUnknown, DigestInvalid."""
        folder, digest = self._folder(name), digest_of(data)
        if ":" in target and target != digest:
            raise DigestInvalid(f"the manifest sent as {target} is {digest}")
        try:
            document = read_document(data, media_type, f"{name}/{target}")
            document.body.encode()  # as it is listed for its subject
        except (BadManifest, UnicodeEncodeError) as error:
            raise ManifestInvalid(str(error)) from None
        with self.change:
            for entry in document.needs:
                self._check_needed(folder, entry, isinstance(document.body, Manifest))
            write_durably(self.blob_path(digest), data, self.uploads)
            if document.body.subject is not None:
                found = describe_referrer(document, digest, len(data))
                record = self._referrers(name, document.body.subject.digest) / hex_of(digest)
                write_durably(record, json.dumps(found.as_json()).encode(), self.uploads)
            write_durably(folder / "digests" / hex_of(digest), media_type.encode(), self.uploads)
            if ":" not in target:
                write_durably(folder / "tags" / check_tag(target), digest.encode(), self.uploads)
        return digest, document

    def delete_manifest(self, name: str, target: str) -> bool:
        """Forget a tag, or a manifest with all its tags; False where there is none."""
        folder = self._folder(name)
        with self.change:
            found = self.manifest(name, target)
            if found is None:
                return False
            if ":" not in target:
                (folder / "tags" / check_tag(target)).unlink()
                return True
            for tag in self.tags(name) or []:
                if _read(folder / "tags" / tag) == target:
                    (folder / "tags" / tag).unlink()
            body = read_document(found.data, found.media_type, target).body
            if body.subject is not None:
                record = self._referrers(name, body.subject.digest) / hex_of(target)
                record.unlink(missing_ok=True)
            (folder / "digests" / hex_of(target)).unlink()
        return True

    def tags(self, name: str) -> list[str] | None:
        """The tags of a repository in order; None where there is no such repository."""
        folder = self._folder(name)
        if not folder.is_dir():
            return None
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in (folder / "tags").iterdir())
        return []

    def names(self) -> list[str]:
        """Every repository, in order."""
        found = [
            str(Path(path).relative_to(self._repositories))
            for path, folders, _ in os.walk(self._repositories)
            if "_manifests" in folders
        ]
        return sorted(name for name in found if _is_name(name))

    def digests(self, name: str) -> list[str]:
        """Every manifest of a repository."""
        try:
            return [f"sha256:{e.name}" for e in (self._folder(name) / "digests").iterdir()]
        except FileNotFoundError:
            return []

    def referrers(self, name: str, digest: str) -> list[Descriptor]:
        """What refers to a manifest, in the order of digests."""
        folder = self._referrers(name, digest)
        try:
            entries = sorted(entry.name for entry in folder.iterdir())
        except FileNotFoundError:
            return []
        return [_descriptor(json.loads(_read(folder / entry))) for entry in entries]

    def _folder(self, name: str) -> Path:
        return self._repositories / check_name(name) / "_manifests"

    def _referrers(self, name: str, subject: str) -> Path:
        return self._folder(name) / "referrers" / hex_of(subject)

    def _check_needed(self, folder: Path, entry: Descriptor, is_blob: bool) -> None:
        size = self.keep_blob(entry.digest)
        known = is_blob or (folder / "digests" / hex_of(entry.digest)).exists()
        if size is None or not known:
            raise ManifestBlobUnknown(f"{entry.digest} is not here; push it before what names it")
        if size != entry.size:
            raise ManifestInvalid(f"{entry.digest} has {size} bytes, not {entry.size}")


def describe_referrer(document: Document, digest: str, size: int) -> Descriptor:
    """The descriptor in a list of referrers (OCI Distribution 1.1, Listing Referrers)."""
    body = document.body
    kind = body.artifact_type
    if not kind and isinstance(body, Manifest):
        kind = body.config.media_type
    return Descriptor(document.media_type, digest, size, body.annotations, kind)


def write_durably(path: Path, data: bytes, scratch: Path) -> None:
    """Put a file in place so that a power cut leaves the old or the new; `scratch` is a folder on
    the same filesystem. Raises OSError."""
    temporary = scratch / f"tmp-{secrets.token_hex(16)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        move_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_durably(source: Path, path: Path) -> None:
    """Rename a file whose bytes are on the disk, making folders as needed, each fsynced."""
    _make_folder(path.parent)
    source.replace(path)
    _sync_folder(path.parent)


def _make_folder(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync_folder(folder.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_SMALL).decode("utf-8", "replace")


def _is_name(text: str) -> bool:
    try:
        return bool(check_name(text))
    except BadReference:
        return False


def _descriptor(found: dict[str, object]) -> Descriptor:
    """Of a record that write_durably made of Descriptor.as_json. Raises BadDigest."""
    texts = {key: str(found.get(key, "")) for key in ("mediaType", "digest", "artifactType")}
    size, notes = found.get("size"), found.get("annotations")
    if not isinstance(size, int):
        raise BadDigest(f"the record of {texts['digest']} has no size")
    return Descriptor(
        texts["mediaType"],
        check_digest(texts["digest"]),
        size,
        notes if isinstance(notes, dict) else {},
        texts["artifactType"],
    )

# SPDX-License-Identifier: Apache-2.0
"""A client of one OCI registry (OCI Distribution Specification 1.1), for all threads.

What comes by digest is checked against it, except the body of `open_blob`: whoever receives that
hashes it. Every limit is on bytes received, whatever the headers say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

from registry import oci
from registry.digest import check_digest, digest_of, hex_of
from registry.errors import BadManifest, WrongDigest
from registry.reference import check_name, check_tag
from registry.remote.backoff import ONCE, Retry
from registry.remote.body import Blob
from registry.remote.credentials import Credentials
from registry.remote.errors import BadAnswer, Missing, Refused, RemoteError
from registry.remote.headers import parse_length
from registry.remote.pages import pages, texts
from registry.remote.transport import Transport
from registry.remote.upload import CHUNK, Source, Upload

ACCEPT = ", ".join(
    (
        oci.MANIFEST,
        oci.INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_RIVALS = 5  # writers of one referrers tag who may come between reading and writing it


class Found(NamedTuple):
    """A manifest or an index as a registry gave it, its digest checked."""

    data: bytes
    media_type: str
    digest: str


class Document(NamedTuple):
    """A file beside the packages; `data` is None where it is still the one of the ETag asked."""

    data: bytes | None
    etag: str


class Remote:
    """One registry: `HOST[:PORT]`, or `http://…` or `https://…`.

    Plain HTTP is for this machine, or for all with `insecure`. `ca` is a PEM file of the authority
    to trust instead of the system's; `client_certificate` is a certificate and its key; `timeout`
    is in seconds of silence; `headers` go with every request. Every method raises RemoteError.
    """

    def __init__(
        self,
        registry: str,
        credentials: Credentials | None = None,
        *,
        insecure: bool = False,
        ca: Path | None = None,
        client_certificate: tuple[Path, Path] | None = None,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = registry
        self._transport = Transport(
            registry,
            credentials,
            insecure=insecure,
            ca=ca,
            client_certificate=client_certificate,
            timeout=timeout,
            clock=clock,
            headers=headers,
        )
        self._lock = threading.Lock()  # of this process's changes to referrers tags

    @property
    def base(self) -> str:
        """The URL that all begins with: scheme, host and port."""
        return self._transport.base

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ping(self) -> None:
        """Ask whether a registry is there and takes the credentials."""
        self._transport.finish(self._transport.request("GET", "/v2/"))

    # Manifests

    def manifest(self, name: str, target: str, limit: int = oci.MANIFEST_LIMIT) -> Found:
        """The manifest of a tag or a digest; raises Missing, WrongDigest, EndlessData."""
        path = _manifest_path(name, target)
        response = self._transport.request("GET", path, _pull(name), {"Accept": ACCEPT})
        what = f"{self.registry}/{name} {target}"
        promised = response.headers.get("Docker-Content-Digest", "")
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        data = self._transport.read(response, limit, what)
        found = digest_of(data)
        expected = target if _is_digest(target) else promised
        if _is_digest(expected) and found != expected:
            raise WrongDigest(
                f"{what}: the manifest's digest is {found}, not {expected}",
                "the registry or something before it is broken, or lies",
            )
        return Found(data, media_type, found)

    def head_manifest(self, name: str, target: str) -> oci.Descriptor | None:
        """What a tag or digest stands for now, as the registry says; None where it is missing."""
        path = _manifest_path(name, target)
        try:
            response = self._transport.request("HEAD", path, _pull(name), {"Accept": ACCEPT})
            self._transport.finish(response)
            digest = response.headers.get("Docker-Content-Digest", "")
            length = parse_length(response.headers.get("Content-Length", ""))
            if not _is_digest(digest) or length is None:
                found = self.manifest(name, target)
                return oci.Descriptor(found.media_type, found.digest, len(found.data))
        except Missing:
            return None
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return oci.Descriptor(media_type, check_digest(digest), length)

    def push_manifest(self, name: str, target: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; returns its digest. Where it has a subject
        and the registry has no referrers API, the subject's referrers tag is brought up to date
        (OCI Distribution 1.1, Pushing Manifests with Subject)."""
        path, digest = _manifest_path(name, target), digest_of(data)
        response = self._transport.request(
            "PUT", path, _push(name), {"Content-Type": media_type}, lambda: [data], len(data)
        )
        self._transport.finish(response)
        stored = response.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise WrongDigest(f"{self.registry}/{name}: stored {target} as {stored}, not {digest}")
        document = oci.parse(data, f"manifest {target}")
        if document.subject is not None:
            told = response.headers.get("OCI-Subject", "")
            if told != document.subject.digest:
                kind = document.artifact_type
                if not kind and isinstance(document, oci.Manifest):
                    kind = document.config.media_type
                notes = document.annotations
                entry = oci.Descriptor(media_type, digest, len(data), notes, kind)
                self._refer(name, document.subject.digest, entry)
        return digest

    # Blobs

    def head_blob(self, name: str, digest: str) -> int | None:
        """A blob's size in bytes, -1 where the server does not tell; None where it is missing."""
        try:
            response = self._transport.request("HEAD", _blob_path(name, digest), _pull(name))
        except Missing:
            return None
        self._transport.finish(response)
        length = parse_length(response.headers.get("Content-Length", ""))
        return -1 if length is None else length

    def has_blob(self, name: str, digest: str) -> bool:
        """Whether the repository holds a blob."""
        return self.head_blob(name, digest) is not None

    def open_blob(
        self, name: str, digest: str, first: int = 0, last: int | None = None, etag: str = ""
    ) -> Blob:
        """A blob's bytes from `first` to `last` inclusive, or to the end, as they arrive. A server
        may ignore the range and send all: look at `status` and `start`. With `etag` (RFC 9110
        section 13.1.5) it sends all where the blob is another by now. Raises RangeRefused, and
        BadAnswer for a range that was not asked for."""
        headers = {}
        if first or last is not None:
            headers["Range"] = f"bytes={first}-{'' if last is None else last}"
            if etag and not etag.startswith("W/"):
                headers["If-Range"] = etag
        path = _blob_path(name, digest)
        what = f"{self.registry}/{name} {digest}"
        response = self._transport.request("GET", path, _pull(name), headers)
        return Blob.of(response, what, first, last, self._transport.translate)

    def blob(self, name: str, digest: str, start: int = 0, end: int | None = None) -> Blob:
        """As open_blob, the bytes from `start` up to and without `end`."""
        return self.open_blob(name, digest, start, None if end is None else end - 1)

    def read_blob(self, name: str, digest: str, limit: int) -> bytes:
        """A small blob in memory, its digest checked; raises EndlessData above `limit` bytes."""
        with self.open_blob(name, digest) as blob:
            data = blob.read(limit)
        if digest_of(data) != digest:
            raise WrongDigest(f"{self.registry}/{name}: the bytes are not those of {digest}")
        return data

    def push_blob(
        self,
        name: str,
        digest: str,
        data: bytes | Path,
        *,
        mount_from: str = "",
        tell: Callable[[int], None] = lambda _offset: None,
        retry: Retry = ONCE,
        chunk: int = CHUNK,
        on_error: Callable[[RemoteError, float], None] = lambda _error, _pause: None,
    ) -> str:
        """Store a blob; returns `exists`, `mounted` or `sent`. `tell` gets the offset reached,
        which goes back where bytes must be sent again. After a failure that is retryable the
        upload goes on where the server says."""
        if retry.run(lambda: self.has_blob(name, digest), on_error):
            return "exists"
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        source = Source(check_digest(digest), size, data)
        if mount_from:
            check_name(mount_from)
        upload = Upload(self._transport, check_name(name), source, _push(name), tell, chunk)
        retry.run(lambda: upload.run(mount_from), on_error)
        return "mounted" if upload.mounted else "sent"

    # Lists

    def tags(self, name: str) -> list[str]:
        """The tags of a repository; raises Missing."""
        path = f"/v2/{check_name(name)}/tags/list"
        return texts(self._transport, path, "tags", _pull(name))

    def catalog(self) -> list[str]:
        """The repositories of the registry, where it tells."""
        return texts(self._transport, "/v2/_catalog", "repositories", "registry:catalog:*")

    def referrers(self, name: str, digest: str, artifact_type: str = "") -> oci.Index:
        """What refers to a manifest, all of it or of one type; by the API, else by the tag schema.
        An index without entries where nothing does."""
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        path = f"/v2/{check_name(name)}/referrers/{check_digest(digest)}{query}"
        found: list[oci.Descriptor] = []
        try:
            for page in pages(self._transport, path, _pull(name)):
                found += _index(page, f"referrers of {digest}").manifests
        except (Missing, Refused):
            found = list(self._referrers_tag(name, digest).manifests)
        chosen = {d.digest: d for d in found if artifact_type in ("", d.artifact_type)}
        return oci.Index(tuple(chosen.values()))

    def document(self, path: str, limit: int, etag: str = "") -> Document:
        """A file of the server, `/tuf/metadata/timestamp.json` for example: at most `limit` bytes,
        or no bytes where `etag` still names it. Raises Missing, EndlessData."""
        headers = {"If-None-Match": etag} if etag else {}
        response = self._transport.request("GET", quote(path), "", headers)
        now = response.headers.get("ETag", "")
        if response.status == 304:
            self._transport.finish(response)
            return Document(None, now or etag)
        return Document(self._transport.read(response, limit, f"{self.base}{path}"), now)

    def _referrers_tag(self, name: str, digest: str) -> oci.Index:
        try:
            found = self.manifest(name, f"sha256-{hex_of(digest)}")
        except Missing:
            return oci.Index(())
        return _index(found.data, f"referrers tag of {digest}")

    def _refer(self, name: str, subject: str, entry: oci.Descriptor) -> None:
        """Registries have no compare-and-swap: write, look again, and write anew where another
        writer's index came to stand there instead."""
        with self._lock:
            for _ in range(_RIVALS):
                index = self._referrers_tag(name, subject)
                if any(known.digest == entry.digest for known in index.manifests):
                    return
                data = oci.Index((*index.manifests, entry), annotations=index.annotations).encode()
                self.push_manifest(name, f"sha256-{hex_of(subject)}", data, oci.INDEX)
        raise BadAnswer(
            f"{self.registry}/{name}: other writers change the referrers of {subject} all the time",
            "push again",
        )


def _index(data: bytes, what: str) -> oci.Index:
    document = oci.parse(data, what)
    if not isinstance(document, oci.Index):
        raise BadManifest(f"{what} is no index")
    return document


def _is_digest(text: str) -> bool:
    return text.startswith("sha256:")


def _manifest_path(name: str, target: str) -> str:
    good = check_digest(target) if ":" in target else check_tag(target)
    return f"/v2/{check_name(name)}/manifests/{good}"


def _blob_path(name: str, digest: str) -> str:
    return f"/v2/{check_name(name)}/blobs/{check_digest(digest)}"


def _pull(name: str) -> str:
    return f"repository:{name}:pull"


def _push(name: str) -> str:
    return f"repository:{name}:pull,push"

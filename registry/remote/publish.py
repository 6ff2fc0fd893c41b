# SPDX-License-Identifier: Apache-2.0
"""A package from a layout into a registry: all variants, and what refers to them.

The order is such that a reader never sees half: blobs first, then manifests, the innermost first,
then referrers (block indexes, deltas), and the tag last. What the registry holds is not sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from registry import oci
from registry.errors import BadManifest, NotFound, WrongSize
from registry.package.layout import Layout
from registry.remote.client import Remote
from registry.remote.transfers import Transfers

_DEPTH = 4  # of indexes in indexes
_DOCUMENTS = (oci.MANIFEST, oci.INDEX)


@dataclass
class Plan:
    """What belongs to a package: blobs, and documents in the order in which they must go."""

    root: oci.Descriptor
    blobs: dict[str, oci.Descriptor] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)  # by digest

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs.values())


@dataclass(frozen=True)
class Published:
    """What a push did; counts are of blobs."""

    digest: str
    size: int
    sent_bytes: int
    sent: int
    mounted: int
    existing: int
    documents: int  # manifests and indexes that were put
    referrers: int  # block indexes and deltas that go with the package


def plan(layout: Layout, root: oci.Descriptor) -> Plan:
    """Walk a package and all that refers to its documents, and what refers to those. Raises
    NotFound, WrongDigest, BadManifest."""
    found = Plan(root)
    by_subject: dict[str, list[oci.Descriptor]] = {}
    for entry in layout.index.manifests:
        subject = layout.manifest(entry).subject if entry.media_type in _DOCUMENTS else None
        if subject is not None:
            by_subject.setdefault(subject.digest, []).append(entry)
    waiting = [root]
    while waiting:
        before = set(found.documents)
        _walk(layout, waiting.pop(), found, _DEPTH)
        for digest in [d for d in found.documents if d not in before]:
            waiting += [e for e in by_subject.get(digest, ()) if e.digest not in found.documents]
    return found


def _walk(layout: Layout, entry: oci.Descriptor, found: Plan, depth: int) -> None:
    if entry.digest in found.documents:
        return
    if depth == 0:
        raise BadManifest(f"{entry.digest} in {layout.path}: more than {_DEPTH} indexes deep")
    data = layout.read(entry.digest, oci.MANIFEST_LIMIT)
    document = oci.parse(data, f"{entry.digest} in {layout.path}")
    if isinstance(document, oci.Index):
        for child in document.manifests:
            _walk(layout, child, found, depth - 1)
    else:
        for blob in document.blobs:
            _check_there(layout, blob)
            found.blobs.setdefault(blob.digest, blob)
    found.documents[entry.digest] = data


def _check_there(layout: Layout, blob: oci.Descriptor) -> None:
    if blob.digest == oci.EMPTY_DIGEST:
        return
    try:
        size = layout.blob_path(blob.digest).stat().st_size
    except FileNotFoundError:
        raise NotFound(
            f"{layout.path} has no blob {blob.digest}", "pull or pack the package again"
        ) from None
    if size != blob.size:
        raise WrongSize(
            f"{blob.digest} in {layout.path} has {size} bytes, not {blob.size}",
            "see `tepi model verify`; pull or pack the package again",
        )


def publish(
    remote: Remote,
    layout: Layout,
    root: oci.Descriptor,
    name: str,
    tag: str,
    transfers: Transfers,
    mount_from: str = "",
) -> Published:
    """Push `root` and what belongs to it into repository `name`, and let `tag` name it. Raises
    RemoteError, and what plan raises."""
    work = plan(layout, root)
    blobs = sorted(work.blobs.values(), key=lambda blob: -blob.size)

    def send(blob: oci.Descriptor) -> str:
        path = layout.blob_path(blob.digest)
        empty = blob.digest == oci.EMPTY_DIGEST
        outcome = remote.push_blob(
            name,
            blob.digest,
            oci.EMPTY_JSON if empty else path,
            mount_from=mount_from,
            tell=lambda offset: transfers.at(blob.digest, offset),
            retry=transfers.retry,
            on_error=lambda e, pause: transfers.trouble(blob.digest, e, pause),
        )
        transfers.watch.end(blob.digest, outcome)
        return outcome

    outcomes = transfers.each(blobs, send)
    put = 0
    for digest, data in work.documents.items():
        put += transfers.again(digest, _putter(remote, name, digest, data))
    document = work.documents[root.digest]
    media_type = oci.parse(document).media_type
    transfers.again(tag, lambda: remote.push_manifest(name, tag, document, media_type))
    count = outcomes.count
    return Published(
        root.digest,
        work.size,
        sum(b.size for b, outcome in zip(blobs, outcomes, strict=True) if outcome == "sent"),
        count("sent"),
        count("mounted"),
        count("exists"),
        put,
        sum(oci.parse(data).subject is not None for data in work.documents.values()),
    )


def _putter(remote: Remote, name: str, digest: str, data: bytes) -> Callable[[], bool]:
    def put() -> bool:
        document = oci.parse(data)
        known = remote.head_manifest(name, digest) is not None
        if known and document.subject is not None:
            entries = remote.referrers(name, document.subject.digest).manifests
            known = any(entry.digest == digest for entry in entries)
        if not known:
            remote.push_manifest(name, digest, data, document.media_type)
        return not known

    return put

# SPDX-License-Identifier: Apache-2.0
"""The folder on disk: what a crash leaves, what a sweep removes, who may serve it."""

import os
import time
from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.errors import BadDigest, BadReference
from registry.oci import EMPTY, EMPTY_DIGEST, MANIFEST, Descriptor, Manifest
from registry.origin import storage as storage_module
from registry.origin.storage import OriginBusy, Storage, write_durably
from registry.origin.sweep import YOUNG, Unreadable, sweep
from registry.origin.uploads import ABANDONED, Uploads

CONFIG = Descriptor(EMPTY, EMPTY_DIGEST, 2)


def later() -> float:
    return time.time() + YOUNG + 1


def put(storage: Storage, *layers: bytes, tag: str = "v1") -> str:
    """A package; its digest."""
    for data in (b"{}", *layers):
        write_durably(storage.blob_path(digest_of(data)), data, storage.uploads)
    found = tuple(Descriptor("application/x", digest_of(d), len(d)) for d in layers)
    digest, _ = storage.put_manifest("a", tag, Manifest(CONFIG, found).encode(), MANIFEST)
    return digest


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc", "a//b", "_manifests", "a/_manifests"])
def test_path_traversal_is_refused_here_too(storage: Storage, name: str) -> None:
    with pytest.raises(BadReference):
        storage.manifest(name, "v1")
    with pytest.raises(BadReference):
        storage.manifest("a", f"{name}/v1")
    with pytest.raises(BadDigest):
        storage.blob_path(f"sha256:{name}")


def test_two_processes_on_one_folder(storage: Storage, tmp_path: Path) -> None:
    storage.claim()
    with pytest.raises(OriginBusy, match=str(os.getpid())):
        Storage(tmp_path).claim()
    storage.release()
    other = Storage(tmp_path)
    other.claim()
    other.release()


@pytest.mark.parametrize("step", ["move_durably", "_sync_folder"])
def test_a_crash_at_each_file_leaves_the_old_tag_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    product = getattr(storage_module, step)
    for crash in range(1, 12):
        storage = Storage(tmp_path / f"{step}-{crash}")
        old = put(storage, b"old")
        new = digest_of(
            Manifest(CONFIG, (Descriptor("application/x", digest_of(b"new"), 3),)).encode()
        )
        left = [crash]

        def counted(*arguments: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            product(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(storage_module, step, counted)
            try:
                put(storage, b"new")
                done = True
            except Killed:
                done = False
        found = Storage(storage.root).manifest("a", "v1")
        assert found is not None and found.digest in ((new,) if done else (old, new))
        assert digest_of(found.data) == found.digest
        if done:
            return
    pytest.fail("the crash never came late enough")


def test_a_sweep_removes_what_nothing_refers_to(storage: Storage) -> None:
    digest = put(storage, b"kept")
    write_durably(storage.blob_path(digest_of(b"lost")), b"lost", storage.uploads)
    assert sweep(storage).blobs == 0  # young: its manifest may be on the way
    assert (sweep(storage, later).blobs, storage.blob_size(digest_of(b"lost"))) == (1, None)
    assert storage.blob_size(digest_of(b"kept")) == 4 and storage.manifest("a", digest)
    storage.delete_manifest("a", digest)
    assert sweep(storage, later).blobs == 3  # the manifest, its layer and its configuration
    assert storage.tags("a") == []


def test_a_sweep_spares_what_a_push_just_asked_for(storage: Storage) -> None:
    digest = digest_of(b"lost")
    write_durably(storage.blob_path(digest), b"lost", storage.uploads)
    os.utime(storage.blob_path(digest), (0, 0))
    assert storage.keep_blob(digest) == 4
    assert sweep(storage).blobs == 0


def test_a_damaged_manifest_stops_the_sweep(storage: Storage) -> None:
    path = storage.blob_path(put(storage, b"kept"))
    path.write_bytes(b"{")
    with pytest.raises(Unreadable, match="nothing was removed"):
        sweep(storage, later)
    path.unlink()
    with pytest.raises(Unreadable):
        sweep(storage, later)
    assert storage.blob_size(digest_of(b"kept")) == 4


def test_abandoned_uploads_go(storage: Storage) -> None:
    now = time.time()
    uploads = Uploads(storage, 100, lambda: now)
    name = uploads.start()
    uploads.find(name).append(b"half")
    assert uploads.sweep() == 0
    now += ABANDONED + 1
    assert uploads.sweep() == 1 and list(storage.uploads.iterdir()) == []

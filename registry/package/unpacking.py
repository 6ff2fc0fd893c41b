# SPDX-License-Identifier: Apache-2.0
"""A package's files into a model's folder, whatever the folder holds already.

Paths are walked with handles of folders and no symbolic link is followed, so that nothing is ever
written outside the folder, not even where somebody put a link there beforehand. Each file appears
whole, checked and durable under its name, or not at all.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from registry.errors import WrongDigest, WrongSize
from registry.package.errors import UnsafePath
from registry.package.modelpack import File, check_path

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _nothing(_bytes: int) -> None:
    """Nobody watches the progress."""


def place(
    files: Sequence[File],
    path_of: Callable[[str], Path],
    folder: Path,
    *,
    link: bool = False,
    tell: Callable[[int], None] = _nothing,
) -> None:
    """Put every file under `folder`, which is made where it is not there. `path_of` names the blob
    of a digest, as Layout.blob_path does; `tell` gets the bytes of each step.

    Copies are checked as they are made. With `link` a file is another name for its blob, on the
    same file system, and is not read; a blob must then never be written to, as in a store.

    Raises UnsafePath, WrongDigest, WrongSize, OSError. Model files come before the configuration,
    so that whoever looks in between finds no configuration of files that are not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = os.open(folder, _FOLDER)
    try:
        for file in sorted(files, key=lambda f: (-f.path.count("/"), f.path)):
            *parents, name = check_path(file.path).split("/")
            with _inside(root, parents, file.path) as where:
                _put(path_of(file.digest), where, name, file, link, tell)
    finally:
        os.close(root)


@contextmanager
def _inside(root: int, parents: Sequence[str], path: str) -> Iterator[int]:
    """A handle of the folder that the path lies in; folders are made and links are refused."""
    handle = os.dup(root)
    try:
        for parent in parents:
            try:
                os.mkdir(parent, 0o755, dir_fd=handle)
                os.fsync(handle)
            except FileExistsError:
                pass
            try:
                inner = os.open(parent, _FOLDER, dir_fd=handle)
            except OSError as error:
                raise UnsafePath(
                    f"{path!r} cannot be written: {parent!r} is there and is no folder "
                    f"({error.strerror})",
                    "remove it or name another folder",
                ) from None
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _put(
    blob: Path, where: int, name: str, file: File, link: bool, tell: Callable[[int], None]
) -> None:
    temporary = f".new-{secrets.token_hex(8)}"
    try:
        if link:
            os.link(blob, temporary, dst_dir_fd=where, follow_symlinks=False)
        else:
            _copy(blob, where, temporary, file, tell)
        os.rename(temporary, name, src_dir_fd=where, dst_dir_fd=where)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=where)
        except FileNotFoundError:
            pass
        raise
    if link:  # rename does nothing where both names are one file already
        try:
            os.unlink(temporary, dir_fd=where)
        except FileNotFoundError:
            pass
    os.fsync(where)


def _copy(blob: Path, where: int, temporary: str, file: File, tell: Callable[[int], None]) -> None:
    hasher, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_CHUNK))
    target = os.open(temporary, _NEW, 0o644, dir_fd=where)
    with os.fdopen(target, "wb") as written, blob.open("rb", buffering=0) as source:
        while count := source.readinto(buffer):
            size += count
            if size > file.size:
                break
            hasher.update(buffer[:count])
            written.write(buffer[:count])
            tell(count)
        written.flush()
        os.fsync(written.fileno())
    if size != file.size:
        raise WrongSize(f"{file.path}: its blob {file.digest} does not have {file.size} bytes")
    if f"sha256:{hasher.hexdigest()}" != file.digest:
        raise WrongDigest(
            f"{file.path}: the bytes are not those that {file.digest} names",
            "fetch the package again",
        )

# SPDX-License-Identifier: Apache-2.0
"""Files of identities: whole after a power cut, keys readable by nobody else.

`Disk` is the one place that changes the file system here; tests let a process die between any two
of its operations.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from firmware_bridge.provision.errors import IdentityBusy

SECRET = 0o600
PUBLIC = 0o644


class Disk:
    """Each operation is durable when it returns. All raise OSError."""

    def make(self, folder: Path, mode: int = 0o755) -> None:
        """A folder, with those above it."""
        if folder.is_dir():
            return
        self.make(folder.parent)
        folder.mkdir(mode=mode, exist_ok=True)
        self._sync(folder.parent)

    def write(self, path: Path, data: bytes, mode: int = PUBLIC) -> None:
        """A file: after a power cut there is the old one or the new one."""
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        self.rename(new, path)

    def rename(self, old: Path, new: Path) -> None:
        """Put a file, a link or a folder in the place of `new`."""
        old.replace(new)
        self._sync(new.parent)

    def link(self, name: Path, target: str) -> None:
        """Turn the symbolic link `name` to `target`."""
        new = name.with_name(f".{name.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        self.rename(new, name)

    def remove(self, path: Path) -> None:
        """A file, a link, or a folder with all in it; one that is gone already is well."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        self._sync(path.parent)

    def _sync(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


REAL_DISK = Disk()


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file; raises IdentityBusy where another process holds it, OSError."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(20).strip() or "unknown"
            raise IdentityBusy(
                f"process {holder} is changing {what}", "wait until it is done, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield

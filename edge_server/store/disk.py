# SPDX-License-Identifier: Apache-2.0
"""The file operations of the store, and nothing else that touches the disk.

The store goes through a `Disk`, so tests put one under it that dies at any step or loses what was
not synced (tests/edge_server/store/power_cut.py). All methods raise OSError as the system does.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_WRITERS_MODE = 0o644


_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of linux/falloc.h
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Stat(NamedTuple):
    """Of a file: bytes, bytes that the disk keeps for it, modification time in seconds, number of
    names."""

    size: int
    allocated: int
    modified: float
    links: int


class Disk:
    """The operating system's files."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor; the caller closes it."""
        return os.open(path, flags | os.O_CLOEXEC, _WRITERS_MODE)

    def close(self, fd: int) -> None:
        """Let go of a descriptor. Syncs nothing."""
        os.close(fd)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        """Write all of `data`. On ENOSPC a prefix of it may have been written."""
        view = memoryview(data)
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count

    def preadv(self, fd: int, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        """Read into buffers; returns the bytes read, 0 at the end."""
        return os.preadv(fd, buffers, offset)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        """Read at most `count` bytes; b'' at the end."""
        return os.pread(fd, count, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cut or grow a file to `size` bytes."""
        os.ftruncate(fd, size)

    def allocate(self, fd: int, offset: int, count: int) -> None:
        """Have the disk keep room behind the file's end, where it can; the size stays."""
        if _fallocate(fd, _KEEP_SIZE, offset, count):
            number = ctypes.get_errno()
            if number not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINTR):
                raise OSError(number, os.strerror(number))

    def fdatasync(self, fd: int) -> None:
        """Return once the file's bytes and size survive a power cut; its name may not."""
        os.fdatasync(fd)

    def fsync_dir(self, path: Path) -> None:
        """Return once the names in a folder survive a power cut."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_read_only(self, fd: int) -> None:
        """Mode 0444."""
        os.fchmod(fd, 0o444)

    def mkdir(self, path: Path) -> bool:
        """Make a folder; False where it is there already."""
        try:
            path.mkdir()
        except FileExistsError:
            return False
        return True

    def link(self, source: Path, path: Path) -> None:
        """Give a file a second name; FileExistsError where `path` is there."""
        path.hardlink_to(source)

    def rename(self, source: Path, path: Path) -> None:
        """Move a file, over another where there is one."""
        source.rename(path)

    def symlink(self, target: Path, path: Path) -> None:
        """A name that leads to `target`; FileExistsError where `path` is there."""
        path.symlink_to(target)

    def read_link(self, path: Path) -> Path | None:
        """Where a symbolic link leads; None where there is none."""
        try:
            return path.readlink()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # something else than a link
                return None
            raise

    def rmdir(self, path: Path) -> None:
        """Take an empty folder away; nothing happens where there is none."""
        try:
            path.rmdir()
        except FileNotFoundError:
            pass

    def unlink(self, path: Path) -> None:
        """Take a name away; nothing happens where there is none."""
        path.unlink(missing_ok=True)

    def names(self, path: Path) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(entry.name for entry in path.iterdir())

    def stat(self, path: Path) -> Stat | None:
        """Of a regular file; None where there is none."""
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stat(found.st_size, found.st_blocks * 512, found.st_mtime, found.st_nlink)

    def size(self, fd: int) -> int:
        """Bytes of an open file."""
        return os.fstat(fd).st_size

    def forget(self, fd: int) -> None:
        """Drop the file's clean pages from memory, so that the next read asks the medium."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def free(self, path: Path) -> int:
        """Bytes that an ordinary user can still write to this file system."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def lock(self, path: Path, *, wait: bool) -> int | None:
        """An exclusive lock on a file, which is made where it is not there; closing the
        descriptor lets go, and so does the end of the process. None: another holds it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _WRITERS_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        return fd

    def write_pid(self, fd: int) -> None:
        """This process's number as the only content of a lock file."""
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)

    def boot_id(self) -> str:
        """Changes with each boot of the machine; '' where that cannot be known."""
        try:
            return _BOOT_ID.read_text().strip()
        except OSError:
            return ""


REAL_DISK = Disk()


def read_file(disk: Disk, path: Path, limit: int) -> bytes | None:
    """At most `limit` bytes of a file; None where there is none. Raises OSError."""
    try:
        fd = disk.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        found = bytearray()
        while len(found) < limit:
            piece = disk.pread(fd, limit - len(found), len(found))
            if not piece:
                break
            found += piece
        return bytes(found)
    finally:
        disk.close(fd)


def write_file(disk: Disk, path: Path, data: Buffer) -> None:
    """A new file with these bytes, which survive a power cut as soon as its name does."""
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        disk.pwrite(fd, data, 0)
        disk.fdatasync(fd)
    finally:
        disk.close(fd)


def replace_file(disk: Disk, path: Path, data: Buffer) -> None:
    """Replace a small file so that it has the old bytes or the new ones after a power cut, never
    others; returns once it has the new ones for good. One writer at a time. Raises OSError."""
    new = path.with_name(path.name + ".new")
    disk.unlink(new)  # never written over: an older name may lead to the same bytes
    write_file(disk, new, data)
    disk.rename(new, path)
    disk.fsync_dir(path.parent)

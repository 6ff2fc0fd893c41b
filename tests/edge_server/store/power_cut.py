# SPDX-License-Identifier: Apache-2.0
"""Disks that fail as real ones do, to put under a store (or anything else that uses `Disk`).

`StepDisk(stop_at=k)` dies before the k-th operation that changes something, as a process does that
gets SIGKILL: every later operation raises Killed too. `restart()` is the next process: what was
written is still there, synced or not.

`PowerCutDisk(base)` also knows what was synced. `cut(rng)` replaces the files below `base` by one
of the states that a power cut may leave, and is the next boot: unsynced bytes survive wholly, as a
prefix, as zeros or not at all, one write independently of another; each name in each folder is what
it was at the last sync of that folder or at any later moment, independently of all others. So half
a rename may survive, and no order holds across folders or within one.

    disk = PowerCutDisk(base, stop_at=17)
    try:
        work(disk)
    except Killed:
        pass
    abandon(store)              # ends its threads; a real process needs no such thing
    disk.cut(random.Random(1))  # or disk.restart()
    Store.open(base / "store", disk=disk)
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge_server.store import Disk, Store
from edge_server.store.disk import Buffer


class Killed(BaseException):
    """The process ends here: nothing may catch it and go on."""


class StepDisk(Disk):
    """Counts the operations that change something in `steps`; dies before number `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.steps = 0
        self.boots = 1
        self.dead = False
        self._lock = threading.RLock()
        self._open: set[int] = set()

    def restart(self, stop_at: int | None = None) -> None:
        """The next process of the same boot: what the dead one had open is closed."""
        with self._lock:
            for fd in self._open:
                os.close(fd)
            self._open.clear()
            self.stop_at, self.steps, self.dead = stop_at, 0, False

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._alive():
            self.steps += 1
            if self.steps == self.stop_at:
                self.dead = True
                self.died()
                raise Killed(f"at step {self.steps}")
            yield

    def died(self) -> None:
        """Called once, with the lock, for those whose process is to end in earnest."""

    @contextmanager
    def _alive(self) -> Iterator[None]:
        with self._lock:
            if self.dead:
                raise Killed
            yield

    def open(self, path: Path, flags: int) -> int:
        with self._change() if flags & os.O_CREAT else self._alive():
            fd = super().open(path, flags)
            self._open.add(fd)
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            if fd in self._open:  # else a restart closed it
                self._open.remove(fd)
                super().close(fd)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        with self._alive():
            if self.steps + 1 == self.stop_at:
                super().pwrite(fd, memoryview(data)[: len(data) // 2], offset)  # cut short
            with self._change():
                super().pwrite(fd, data, offset)

    def preadv(self, fd: int, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        with self._alive():
            return super().preadv(fd, buffers, offset)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        with self._alive():
            return super().pread(fd, count, offset)

    def truncate(self, fd: int, size: int) -> None:
        with self._change():
            super().truncate(fd, size)

    def allocate(self, fd: int, offset: int, count: int) -> None:
        with self._change():
            pass

    def fdatasync(self, fd: int) -> None:
        with self._change():
            pass  # a process that is killed loses nothing that it wrote

    def fsync_dir(self, path: Path) -> None:
        with self._change():
            pass

    def make_read_only(self, fd: int) -> None:
        with self._change():
            super().make_read_only(fd)

    def mkdir(self, path: Path) -> bool:
        with self._change():
            return super().mkdir(path)

    def link(self, source: Path, path: Path) -> None:
        with self._change():
            super().link(source, path)

    def rename(self, source: Path, path: Path) -> None:
        with self._change():
            super().rename(source, path)

    def unlink(self, path: Path) -> None:
        with self._change():
            super().unlink(path)

    def symlink(self, target: Path, path: Path) -> None:
        with self._change():
            super().symlink(target, path)

    def rmdir(self, path: Path) -> None:
        with self._change():
            super().rmdir(path)

    def names(self, path: Path) -> list[str]:
        with self._alive():
            return super().names(path)

    def lock(self, path: Path, *, wait: bool) -> int | None:
        with self._change():
            fd = super().lock(path, wait=wait)
            if fd is not None:
                self._open.add(fd)
            return fd

    def write_pid(self, fd: int) -> None:
        with self._change():
            super().write_pid(fd)

    def boot_id(self) -> str:
        return f"boot {self.boots}"


@dataclass(eq=False)
class _File:
    """`pending`: (offset, bytes) written and (size, None) cut to since the last sync."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def after_cut(self, rng: random.Random) -> bytes:
        found = bytearray(self.durable)
        for offset, data in self.pending:
            fate = rng.choice(("all", "none", "prefix", "zeros"))
            if fate == "none":
                continue
            if data is None:
                del found[offset:]
                found.extend(bytes(offset - len(found)))
                continue
            if fate == "prefix":
                data = data[: rng.randint(0, len(data))]
            if fate == "zeros":
                data = bytes(len(data))
            found.extend(bytes(max(0, offset + len(data) - len(found))))
            found[offset : offset + len(data)] = data
        return bytes(found)


@dataclass(frozen=True, eq=False)
class _Link:
    """A symbolic link; never half there."""

    target: Path


@dataclass(eq=False)
class _Folder:
    """`history`: what each name led to at the last sync and after each change since."""

    history: dict[str, list[_Node | None]] = field(default_factory=dict)

    def now(self, name: str) -> _Node | None:
        return self.history.get(name, [None])[-1]

    def change(self, name: str, node: _Node | None) -> None:
        self.history.setdefault(name, [None]).append(node)

    def sync(self) -> None:
        self.history = {name: [nodes[-1]] for name, nodes in self.history.items() if nodes[-1]}


_Node = _File | _Link | _Folder


class PowerCutDisk(StepDisk):
    """See the module. All paths are below `base`, which must be there; what is in it is synced."""

    def __init__(self, base: Path, stop_at: int | None = None) -> None:
        super().__init__(stop_at)
        self._base = base
        self._top = self._found(base)
        self._files: dict[int, _File] = {}
        self._mode = "old"

    def cut(self, rng: random.Random, stop_at: int | None = None) -> None:
        """The power goes and comes back."""
        self.restart(stop_at)
        self.boots += 1
        # A third of the cuts lose all that was not synced, some keep all of it.
        self._mode = rng.choice(("old", "any", "any", "any", "new", "old"))
        new = self._base.with_name(self._base.name + ".cut")
        self._write(self._top, new, rng, {})
        shutil.rmtree(self._base)
        new.rename(self._base)
        self._top = self._found(self._base)
        self._files.clear()

    def _write(
        self, folder: _Folder, path: Path, rng: random.Random, written: dict[_File, Path]
    ) -> None:
        path.mkdir()
        for name, nodes in folder.history.items():
            node = {"old": nodes[0], "new": nodes[-1], "any": rng.choice(nodes)}[self._mode]
            if isinstance(node, _Folder):
                self._write(node, path / name, rng, written)
            elif isinstance(node, _Link):
                (path / name).symlink_to(node.target)
            elif node in written:
                (path / name).hardlink_to(written[node])
            elif node is not None:
                (path / name).write_bytes(node.after_cut(rng))
                written[node] = path / name

    def _found(self, path: Path) -> _Folder:
        known: dict[int, _File] = {}

        def look(path: Path) -> _Node:
            if path.is_symlink():
                return _Link(path.readlink())
            if path.is_dir():
                return self._found(path)
            return known.setdefault(path.stat().st_ino, _File(path.read_bytes()))

        return _Folder({entry.name: [look(entry)] for entry in path.iterdir()})

    def _at(self, path: Path) -> _Folder:
        found: _Node | None = self._top
        for part in path.relative_to(self._base).parts:
            assert isinstance(found, _Folder)
            found = found.now(part)
        assert isinstance(found, _Folder)
        return found

    def open(self, path: Path, flags: int) -> int:
        with self._alive():
            fd = super().open(path, flags)
            self._track(fd, path)
            if flags & os.O_TRUNC:
                self._files[fd].pending.append((0, None))
            return fd

    def _track(self, fd: int, path: Path) -> None:
        folder = self._at(path.parent)
        file = folder.now(path.name)
        if file is None:
            file = _File()
            folder.change(path.name, file)
        assert isinstance(file, _File)
        self._files[fd] = file

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        with self._alive():
            if self.steps + 1 != self.stop_at:
                self._files[fd].pending.append((offset, bytes(data)))
            super().pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        with self._alive():
            super().truncate(fd, size)
            self._files[fd].pending.append((size, None))

    def fdatasync(self, fd: int) -> None:
        with self._alive():
            super().fdatasync(fd)
            file = self._files[fd]
            file.durable = Path(f"/proc/self/fd/{fd}").read_bytes()  # `fd` may be write-only
            file.pending.clear()

    def fsync_dir(self, path: Path) -> None:
        with self._alive():
            super().fsync_dir(path)
            self._at(path).sync()

    def mkdir(self, path: Path) -> bool:
        with self._alive():
            made = super().mkdir(path)
            if made:
                self._at(path.parent).change(path.name, _Folder())
            return made

    def link(self, source: Path, path: Path) -> None:
        with self._alive():
            super().link(source, path)
            self._at(path.parent).change(path.name, self._at(source.parent).now(source.name))

    def rename(self, source: Path, path: Path) -> None:
        with self._alive():
            super().rename(source, path)
            self._at(path.parent).change(path.name, self._at(source.parent).now(source.name))
            self._at(source.parent).change(source.name, None)

    def unlink(self, path: Path) -> None:
        with self._alive():
            super().unlink(path)
            folder = self._at(path.parent)
            if folder.now(path.name) is not None:
                folder.change(path.name, None)

    def symlink(self, target: Path, path: Path) -> None:
        with self._alive():
            super().symlink(target, path)
            self._at(path.parent).change(path.name, _Link(target))

    def rmdir(self, path: Path) -> None:
        with self._alive():
            super().rmdir(path)
            folder = self._at(path.parent)
            if folder.now(path.name) is not None:
                folder.change(path.name, None)

    def lock(self, path: Path, *, wait: bool) -> int | None:
        with self._alive():
            fd = super().lock(path, wait=wait)
            if fd is not None:
                self._track(fd, path)
            return fd


def abandon(store: Store | None) -> None:
    """End the threads of a store whose disk is dead; a real process would simply be gone."""
    for partial in list(store._filling.values()) if store else []:
        with suppress(Killed):
            partial.close()

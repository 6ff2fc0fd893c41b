# SPDX-License-Identifier: Apache-2.0
"""Packages as folders that a server loads, and which of them is current.

    deployed/<model>/<digest>/   files of one package, hard links to the store's blobs
    models/<model>               a link to the current one; `models` is a model repository
    previous/<model>             a link to the one before, for a rollback

A folder gets its name when all in it is synced, and a link is replaced by renaming another over it:
at every moment, a power cut's too, `models/<model>` leads to the old package or to the new one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from edge_server.store.disk import REAL_DISK, Disk, read_file, write_file
from edge_server.store.errors import disk_errors
from edge_server.sync.package import Package, parse_package
from registry.digest import hex_of
from registry.errors import NotFound

_RECORD = ".package.json"
_RECORD_LIMIT = 16 << 20
_NEW = ".new-"
_NAME_DIGITS = 16  # of the digest, in a folder's name


@dataclass(frozen=True, slots=True)
class Deployment:
    """A package in a folder."""

    folder: Path
    package: Package

    @property
    def digest(self) -> str:
        """That of the package."""
        return self.package.model.digest


class Deployments:
    """The folders of one node. One owner at a time: that of the store. Raises the store's
    DiskFull, ReadOnlyDisk and DiskFailed."""

    def __init__(
        self, state: Path, blob: Callable[[str], Path | None], disk: Disk = REAL_DISK
    ) -> None:
        """`blob` gives the path of a verified blob of the store."""
        self.models = state / "models"
        self._deployed = state / "deployed"
        self._previous = state / "previous"
        self._blob = blob
        self._disk = disk
        with disk_errors(state):
            for folder in (state, self.models, self._deployed, self._previous):
                if disk.mkdir(folder):
                    disk.fsync_dir(folder.parent)

    def names(self) -> list[str]:
        """The models that have a current package."""
        with disk_errors(self.models):
            return [n for n in self._disk.names(self.models) if not n.startswith(".")]

    def current(self, name: str) -> Deployment | None:
        """What is served, or is to be after a restart."""
        return self._read(self.models / name)

    def previous(self, name: str) -> Deployment | None:
        """What a rollback leads to."""
        return self._read(self._previous / name)

    def deploy(self, package: Package) -> Deployment:
        """The package in a folder; one that is there already and complete is used. NotFound where
        the store lacks one of its blobs."""
        parent = self._deployed / package.model.name
        stem = hex_of(package.model.digest)[:_NAME_DIGITS]
        with disk_errors(parent):
            if self._disk.mkdir(parent):
                self._disk.fsync_dir(self._deployed)
            for number in count():
                folder = parent / (f"{stem}.{number}" if number else stem)
                if self._disk.stat(folder) is None:
                    break
                found = self._complete(folder)
                if found is not None and found.package == package:
                    return found
            new = parent / (_NEW + folder.name)
            self._remove(new)
            self._fill(new, package)
            self._disk.rename(new, folder)
            self._disk.fsync_dir(parent)
        return Deployment(folder, package)

    def switch(self, deployment: Deployment) -> None:
        """Make it the current one; what was current is now the previous one."""
        name = deployment.package.model.name
        with disk_errors(self.models):
            old = self._disk.read_link(self.models / name)
            new = self._relative(deployment.folder)
            if old == new:
                return
            if old is not None:
                self._turn(self._previous / name, old)
            self._turn(self.models / name, new)

    def roll_back(self, name: str) -> Deployment:
        """Make the previous one current; there is no previous one then. NotFound without one."""
        before = self.previous(name)
        if before is None:
            raise NotFound(
                f"there is no package of '{name}' before the one that is current",
                "let the registry desire another one: `tepi registry desire`",
            )
        with disk_errors(self.models):
            self._turn(self.models / name, self._relative(before.folder))
            self._take(self._previous / name)
        return before

    def withdraw(self, name: str) -> None:
        """It is not to be served any more."""
        with disk_errors(self.models):
            self._take(self.models / name)
            self._take(self._previous / name)

    def mend(self) -> list[str]:
        """Link files anew whose blob in the store was replaced since, as it was damaged. The names
        of the models concerned."""
        mended = []
        for link in self._links():
            found = self._read(link)
            if found is None:
                continue
            with disk_errors(found.folder):
                if self._mend(found):
                    mended.append(link.name)
        return sorted(set(mended))

    def clean(self) -> None:
        """Remove folders that no link leads to."""
        with disk_errors(self._deployed):
            kept = {self._disk.read_link(link) for link in self._links()}
            for name in self._disk.names(self._deployed):
                parent = self._deployed / name
                for entry in self._disk.names(parent):
                    if self._relative(parent / entry) not in kept:
                        self._remove(parent / entry)

    # -- beneath ------------------------------------------------------------------------------

    def _links(self) -> Iterator[Path]:
        for folder in (self.models, self._previous):
            for name in self._disk.names(folder):
                if not name.startswith("."):
                    yield folder / name

    def _relative(self, folder: Path) -> Path:
        return Path("..", *folder.relative_to(self._deployed.parent).parts)

    def _read(self, link: Path) -> Deployment | None:
        with disk_errors(link):
            target = self._disk.read_link(link)
            if target is None:
                return None
            return self._complete(self._deployed.parent.joinpath(*target.parts[1:]))

    def _complete(self, folder: Path) -> Deployment | None:
        """The deployment in a folder, if none of its files is missing."""
        data = read_file(self._disk, folder / _RECORD, _RECORD_LIMIT)
        package = parse_package(data) if data is not None else None
        if package is None:
            return None
        for file in package.files:
            found = self._disk.stat(folder / file.path)
            if found is None or found.size != file.size:
                return None
        return Deployment(folder, package)

    def _fill(self, new: Path, package: Package) -> None:
        folders = {new}
        self._disk.mkdir(new)
        for file in package.files:
            path = new / file.path
            for folder in reversed(path.relative_to(new).parents[:-1]):
                if new / folder not in folders:
                    self._disk.mkdir(new / folder)
                    folders.add(new / folder)
            self._disk.link(self._need(file.digest), path)
        write_file(self._disk, new / _RECORD, package.encode())
        for folder in sorted(folders, reverse=True):
            self._disk.fsync_dir(folder)

    def _mend(self, found: Deployment) -> bool:
        changed = False
        for file in found.package.files:
            blob = self._blob(file.digest)
            path = found.folder / file.path
            if blob is None or blob.samefile(path):
                continue
            new = path.with_name(_NEW + path.name)
            self._disk.unlink(new)
            self._disk.link(blob, new)
            self._disk.rename(new, path)
            self._disk.fsync_dir(path.parent)
            changed = True
        return changed

    def _need(self, digest: str) -> Path:
        path = self._blob(digest)
        if path is None:
            raise NotFound(f"the store has no {digest}", "it is fetched at the next attempt")
        return path

    def _turn(self, link: Path, target: Path) -> None:
        new = link.with_name(_NEW + link.name)
        self._disk.unlink(new)
        self._disk.symlink(target, new)
        self._disk.rename(new, link)
        self._disk.fsync_dir(link.parent)

    def _take(self, link: Path) -> None:
        self._disk.unlink(link)
        self._disk.fsync_dir(link.parent)

    def _remove(self, path: Path) -> None:
        """A file or a folder with all in it. Cut short it leaves something for the next time."""
        try:
            self._disk.unlink(path)
            return
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
        for name in self._disk.names(path):
            self._remove(path / name)
        self._disk.rmdir(path)

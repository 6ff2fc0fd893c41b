# SPDX-License-Identifier: Apache-2.0
"""The models on disk and in service: load, reload without a gap, unload, look up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from edge_server import log
from edge_server.card.link import CardLink
from edge_server.card.models import ModelsOnCard
from edge_server.card.states import CardState
from edge_server.config_text import ConfigError
from edge_server.engines.engine import ModelLoadError
from edge_server.loader import Loader, Report
from edge_server.memory import release_free_memory
from edge_server.model_files import (
    Override,
    RepositoryError,
    is_plain,
    model_folders,
    plan,
    write_files,
)
from edge_server.rpc import defect
from edge_server.served import Loaded, ServedVersion
from edge_server.statistics import Counters
from edge_server.status import RequestError, invalid, not_found, unavailable
from wire import model_config_pb2 as config_pb2

T = TypeVar("T")


class State(StrEnum):
    """`state` of RepositoryIndex."""

    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One row of RepositoryIndex."""

    name: str
    version: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """A folder that takes a model's place as a whole: all of its versions, or none.

    `accept` is asked about each version before any is served (raises ModelLoadError), then `commit`
    makes the change last; what it raises is raised by the load. Both run on a worker thread.
    """

    folder: Path
    accept: Callable[[int, Loaded], None]
    commit: Callable[[], None]


@dataclass(slots=True)
class Model:
    """A model that was asked for at least once."""

    name: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    versions: dict[str, ServedVersion] = field(default_factory=dict)
    states: dict[str, tuple[State, str]] = field(default_factory=dict)
    reason: str = ""
    scratch: list[TemporaryDirectory[str]] = field(default_factory=list)


class Repository:
    """Every model by name. Lives on the event loop; files and engines are worked on elsewhere."""

    def __init__(
        self,
        root: Path,
        loader: Loader,
        link: CardLink,
        counters: Counters,
        max_queue_size: int,
        executor: Executor,
    ) -> None:
        self.root = root
        self.counters = counters
        self._loader = loader
        self._link = link
        self._max_queue_size = max_queue_size
        self._executor = executor
        self._models: dict[str, Model] = {}
        self._served: dict[tuple[str, str], ServedVersion] = {}
        self.on_change: Callable[[str, bool], None] = lambda _name, _ready: None
        self.on_publish: Callable[[], None] = lambda: None
        link.serve(ModelsOnCard(self.all_served, self._announce, loader, link))

    # -- looking up ---------------------------------------------------------------------------

    def find(self, name: str, version: str) -> ServedVersion:
        """The version in service; an empty one means the highest. NOT_FOUND, or UNAVAILABLE."""
        served = self._served.get((name, version))
        if served is not None:
            return served
        model = self._models.get(name)
        if model is None:
            if name and name in self._names():
                raise unavailable(f"model '{name}' is not loaded; load it with RepositoryModelLoad")
            known = ", ".join(sorted(self._models)) or "none"
            raise not_found(f"unknown model '{name}': this server has {known}")
        if version and model.states and version not in model.states:
            there = ", ".join(sorted(model.states, key=int))
            raise not_found(f"model '{name}' has no version '{version}': it has {there}")
        rows = [model.states[version]] if version in model.states else [*model.states.values()]
        reasons = {reason or state.lower() for state, reason in rows} or {model.reason}
        raise unavailable(f"model '{name}' is not available: {'; '.join(sorted(reasons))}")

    def versions(self, name: str) -> list[ServedVersion]:
        """All versions in service, in ascending order."""
        model = self._models.get(name)
        return [model.versions[v] for v in sorted(model.versions, key=int)] if model else []

    def all_served(self) -> list[ServedVersion]:
        """Every version of every model in service."""
        return [v for name in sorted(self._models) for v in self.versions(name)]

    def index(self) -> list[IndexEntry]:
        """Every model on disk or in memory, with the state of its versions."""
        rows: list[IndexEntry] = []
        for name in sorted({*self._names(), *self._models}):
            model = self._models.get(name)
            if model is None:
                rows.append(IndexEntry(name, "", State.UNAVAILABLE, "not loaded"))
            elif not model.states:
                reason = model.reason or "unloaded"
                rows.append(IndexEntry(name, "", State.UNAVAILABLE, reason))
            else:
                for version in sorted(model.states, key=int):
                    state, reason = model.states[version]
                    rows.append(IndexEntry(name, version, state, reason))
        return rows

    def _names(self) -> list[str]:
        try:
            return [p.name for p in model_folders(self.root)]
        except RepositoryError:
            return []  # gone since the start: what is loaded goes on

    # -- loading ------------------------------------------------------------------------------

    async def load_all(self, only: tuple[str, ...] | None) -> int:
        """Load the models of the folder, or those named; returns how many could not be."""
        names = sorted(only) if only is not None else self._names()
        failed = 0
        for name in names:
            try:
                await self.load(name, Override())
            except RequestError as error:
                failed += 1
                log.warning("model not loaded", model=name, reason=error.message)
            except Exception:
                failed += 1
                defect(f"load {name}")
        return failed

    async def load(self, name: str, override: Override, release: Release | None = None) -> None:
        """Load or reload: the versions in service answer until the new ones are warm."""
        folder = self.root / name if release is None else release.folder
        if not override.files and (not is_plain(name) or not folder.is_dir()):
            raise not_found(f"failed to load '{name}': the repository has no folder of that name")
        if not is_plain(name):
            raise invalid(f"'{name}' cannot be the name of a model")
        model = self._models.setdefault(name, Model(name))
        async with model.lock:
            scratch = await self._call(lambda: write_files(name, override.files))
            if scratch is not None:
                folder = Path(scratch.name)
                model.scratch.append(scratch)
            try:
                # a link may point elsewhere by the time a card that came back needs the file again
                await self._load_versions(model, folder.resolve(), override, release)
            finally:
                await self._clean(model)
                self._announce(name)

    async def _load_versions(
        self,
        model: Model,
        folder: Path,
        override: Override,
        release: Release | None,
    ) -> None:
        report = Report()
        name = model.name
        try:
            config, numbers = await self._call(lambda: plan(name, folder, override, report))
        except (ConfigError, ModelLoadError, OSError) as error:
            model.reason = str(error)
            report.tell(name)
            raise invalid(f"failed to load '{name}': {error}") from None
        fresh: dict[str, ServedVersion] = {}
        failures: dict[str, str] = {}
        for number in numbers:
            version = str(number)
            if version not in model.versions:
                model.states[version] = (State.LOADING, "")
            start = time.perf_counter_ns()
            try:
                loaded = await self._load_one(name, folder, number, config, report, release)
            except (ConfigError, ModelLoadError) as error:
                failures[version] = str(error)
                continue
            except Exception:
                failures[version] = defect("load")
                continue
            counters = self.counters.of(name, version)
            counters.load_ns = time.perf_counter_ns() - start
            fresh[version] = ServedVersion(
                name,
                version,
                loaded,
                counters,
                self._max_queue_size,
                self._executor,
                self._link.absent,
            )
        report.tell(name)
        if release is not None:
            await self._settle(model, fresh, failures, release)
        await self._swap(model, fresh, failures)
        if failures:
            text = "; ".join(f"version {v}: {why}" for v, why in failures.items())
            model.reason = text
            raise invalid(f"failed to load '{name}': {text}")

    async def _load_one(
        self,
        name: str,
        folder: Path,
        number: int,
        config: config_pb2.ModelConfig,
        report: Report,
        release: Release | None,
    ) -> Loaded:
        card = self._link.card
        loaded = await self._call(
            lambda: self._loader.load(name, folder, number, config, card, report)
        )
        for fault in report.faults:
            self._link.report(fault)
        report.faults.clear()
        for doubt in report.doubts:
            self._link.doubt(doubt)
        report.doubts.clear()
        if release is not None:
            try:
                await self._call(lambda: release.accept(number, loaded))
            except BaseException:
                loaded.retire(self._executor)
                raise
        return loaded

    async def _settle(
        self,
        model: Model,
        fresh: dict[str, ServedVersion],
        failures: dict[str, str],
        release: Release,
    ) -> None:
        """Commit the release, or let go of all of it and raise: what is served stays as it is."""
        try:
            if failures:
                text = "; ".join(f"version {v}: {why}" for v, why in failures.items())
                raise invalid(f"failed to load '{model.name}': {text}")
            await self._call(release.commit)
        except BaseException as error:
            await self._retire(list(fresh.values()))
            model.reason = f"not replaced: {error}"
            states = dict.fromkeys(model.versions, (State.READY, model.reason))
            model.states = states or {v: (State.UNAVAILABLE, w) for v, w in failures.items()}
            raise

    async def _swap(
        self,
        model: Model,
        fresh: dict[str, ServedVersion],
        failures: dict[str, str],
    ) -> None:
        """Put `fresh` in place of what is served; versions that failed keep their old selves."""
        old = model.versions
        kept = {v: old[v] for v in failures if v in old}
        leaving = [served for v, served in old.items() if v not in kept]
        model.versions = fresh | kept
        model.states = dict.fromkeys(fresh, (State.READY, ""))
        for version, why in failures.items():
            state = State.READY if version in kept else State.UNAVAILABLE
            model.states[version] = (state, f"not reloaded: {why}" if version in kept else why)
        model.reason = ""
        if self._link.state is CardState.READY:
            for served in fresh.values():
                served.enter_card()
        self._publish(model)
        for served in fresh.values():
            route = served.route
            log.info(
                "model loaded",
                model=served.name,
                version=served.version,
                device=route.slot.engine.device if route.slot else "none",
                card=route.detail or "in use",
                seconds=round(served.counters.load_ns / 1e9, 3),
            )
        await self._retire(leaving)

    async def unload(self, name: str) -> None:
        """Stop serving: requests under way finish, the memory goes back. NOT_FOUND if unknown."""
        model = self._models.get(name)
        if model is None:
            if name in self._names():
                return
            raise not_found(f"failed to unload '{name}': unknown model")
        async with model.lock:
            leaving = list(model.versions.values())
            model.states = dict.fromkeys(model.versions, (State.UNLOADING, ""))
            model.versions = {}
            self._publish(model)
            await self._retire(leaving)
            model.states = {s.version: (State.UNAVAILABLE, "unloaded") for s in leaving}
            model.reason = "unloaded"
            await self._clean(model)
            await self._call(release_free_memory)
            log.info("model unloaded", model=name)

    async def close(self) -> None:
        """Unload everything; called when no more requests come."""
        for name in [m.name for m in self._models.values() if m.versions]:
            await self.unload(name)

    async def _clean(self, model: Model) -> None:
        """Remove the files that load requests brought and that no version needs any more."""
        folders = [served.path.parents[1] for served in model.versions.values()]
        for scratch in [s for s in model.scratch if Path(s.name) not in folders]:
            model.scratch.remove(scratch)
            await self._call(scratch.cleanup)

    async def _retire(self, leaving: list[ServedVersion]) -> None:
        for served in leaving:
            await served.retire()

    def _publish(self, model: Model) -> None:
        name = model.name
        for key in [key for key in self._served if key[0] == name]:
            del self._served[key]
        for version, served in model.versions.items():
            self._served[name, version] = served
        if model.versions:
            self._served[name, ""] = model.versions[max(model.versions, key=int)]
        self.on_publish()
        self._announce(name)

    def _announce(self, name: str) -> None:
        served = self._served.get((name, ""))
        self.on_change(name, served is not None and served.ready)

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

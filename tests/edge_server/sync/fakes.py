# SPDX-License-Identifier: Apache-2.0
"""A registry, a network and a server that live in Python, around a real store and real folders."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_server.fill.fill import Fill
from edge_server.fill.origins import Origins
from edge_server.store.disk import REAL_DISK, Disk
from edge_server.store.room import StoreLimits
from edge_server.store.store import Store
from edge_server.sync.deployed import Deployment, Deployments
from edge_server.sync.follower import Follower
from edge_server.sync.gather import Gatherer
from edge_server.sync.holds import Holds
from edge_server.sync.models import Commit
from edge_server.sync.package import Package
from edge_server.sync.status import Status
from registry.digest import digest_of
from registry.package.modelpack import File
from registry.trust.desired import Desired, DesiredModel
from tests.edge_server.fill.fake_time import FakeTime


class FakeTrust:
    """Says what it is told to say."""

    source = "fake"

    def __init__(self) -> None:
        self.desired = Desired("stable", 0, ())
        self.error: Exception | None = None
        self.good = False  # what still_good answers

    def want(self, *models: DesiredModel) -> None:
        """One more release."""
        self.desired = Desired("stable", self.desired.release + 1, models)

    def look(self) -> Desired:
        if self.error is not None:
            raise self.error
        return self.desired

    def last(self) -> Desired | None:
        return self.desired if self.desired.release else None

    def still_good(self) -> bool:
        return self.good


class FakeRegistry:
    """Packages by their digest; stands for the gatherer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.packages: dict[str, tuple[Package, dict[str, bytes]]] = {}
        self.errors: list[Exception] = []  # raised one by one by the next fills
        self.fills = 0

    def publish(self, name: str, tag: str, **files: bytes) -> DesiredModel:
        """A package whose files are at 1/<key>, and its entry in a desired state."""
        manifest = repr(sorted(files.items())).encode() + tag.encode()
        model = DesiredModel(name, f"test/{name}", tag, digest_of(manifest), len(manifest))
        found = tuple(
            File(f"1/{key}", digest_of(data), len(data), "model") for key, data in files.items()
        )
        blobs = {digest_of(data): data for data in (*files.values(), manifest)}
        self.packages[model.digest] = (Package(model, "cpu", (model.digest,), found), blobs)
        return model

    def package(self, model: DesiredModel) -> Package:
        return self.packages[model.digest][0]

    def fill(
        self, package: Package, _old: Package | None, _tell: Callable[[Sequence[Fill]], None]
    ) -> None:
        self.fills += 1
        if self.errors:
            raise self.errors.pop(0)
        for digest, data in self.packages[package.model.digest][1].items():
            if self.store.path(digest) is None:
                self.store.add(data, digest)


class FakeModels:
    """A server that loads whatever it is given, unless told to refuse."""

    def __init__(self) -> None:
        self.served: dict[str, bytes] = {}
        self.refusal: Exception | None = None
        self.checked: list[bool] = []

    def replace(self, deployment: Deployment, commit: Commit, *, check: bool = True) -> None:
        self.checked.append(check)
        if self.refusal is not None:
            raise self.refusal
        data = (deployment.folder / "1" / "weights").read_bytes()
        commit()
        self.served[deployment.package.model.name] = data

    def retire(self, name: str) -> None:
        self.served.pop(name, None)


class FakeNode:
    """A follower over a state folder, with everything beneath it that is not disk faked."""

    def __init__(self, state: Path, trust: FakeTrust, disk: Disk = REAL_DISK) -> None:
        self.time = FakeTime()
        self.store = Store.open(state / "store", StoreLimits(), disk, self.time.wall)
        self.registry = FakeRegistry(self.store)
        self.deployments = Deployments(state, self.store.path, disk)
        self.models = FakeModels()
        self.holds = Holds(state, disk)
        self.status = Status(state, "stable", Origins(()), self.time)
        gatherer: Gatherer = self.registry  # type: ignore[assignment]
        self.follower = Follower(
            trust,
            gatherer,
            self.store,
            self.deployments,
            self.models,
            self.holds,
            self.status,
            threading.Event(),
            poll_seconds=60.0,
            time=self.time,
            rng=random.Random(7),
        )

    def close(self) -> None:
        self.store.close()

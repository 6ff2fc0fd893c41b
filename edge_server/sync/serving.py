# SPDX-License-Identifier: Apache-2.0
"""Models that the sync brings, in the server of the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

from edge_server import log
from edge_server.model_files import Override
from edge_server.repository import Release, Repository
from edge_server.status import RequestError
from edge_server.sync.deployed import Deployment
from edge_server.sync.errors import Unfit
from edge_server.sync.golden import Accept, GoldenCheck, accept_all
from edge_server.sync.models import Commit


class ServingModels:
    """See edge_server.sync.models.Models. The repository lives on `loop`, this elsewhere."""

    def __init__(self, repository: Repository, loop: asyncio.AbstractEventLoop) -> None:
        self._repository = repository
        self._loop = loop

    def replace(self, deployment: Deployment, commit: Commit, *, check: bool = True) -> None:
        """As Models.replace; requests under way finish on what they began on."""
        golden = GoldenCheck(deployment) if check else None
        accept: Accept = golden or accept_all
        release = Release(deployment.folder, accept, commit)
        name = deployment.package.model.name
        try:
            self._on_loop(self._repository.load(name, Override(), release))
        except RequestError as error:
            if golden is not None and golden.trouble is not None:
                raise golden.trouble from None
            raise Unfit(error.message) from None

    def retire(self, name: str) -> None:
        """As Models.retire."""
        try:
            self._on_loop(self._repository.unload(name))
        except RequestError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                log.warning("sync: not unloaded", model=name, reason=error.message)

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

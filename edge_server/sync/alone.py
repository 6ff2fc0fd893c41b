# SPDX-License-Identifier: Apache-2.0
"""Models that a sync brings without a server in its process: checked here, served elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.message import Message

from device.errors import CardError
from edge_server import log
from edge_server.client import INFERENCE, CallError, Client
from edge_server.config_text import ConfigError
from edge_server.engines.card import CardLike, OpenSession
from edge_server.engines.engine import ModelLoadError
from edge_server.loader import Card, Loader, Report
from edge_server.model_files import Override, plan
from edge_server.served import OffCard
from edge_server.sync.deployed import Deployment
from edge_server.sync.errors import Unfit
from edge_server.sync.golden import Accept, CardTrouble, GoldenCheck, accept_all
from edge_server.sync.models import Commit
from wire import inference_pb2

_CALL_SECONDS = 300.0  # a server compiles before it answers


class LoneModels:
    """See edge_server.sync.models.Models. `server` is the gRPC address of one that serves the
    models folder and is told of changes; empty where none is."""

    def __init__(
        self,
        open_card: Callable[[], CardLike] | None,
        open_session: OpenSession,
        threads: int,
        server: str = "",
    ) -> None:
        self._open_card = open_card
        self._loader = Loader(threads, open_session)
        self._server = server

    def replace(self, deployment: Deployment, commit: Commit, *, check: bool = True) -> None:
        """As Models.replace; the card is opened for the check and closed after it."""
        golden = GoldenCheck(deployment) if check else None
        accept: Accept = golden or accept_all
        name = deployment.package.model.name
        with ThreadPoolExecutor(1, "tepi-sync-check") as executor:
            handle = self._card()
            try:
                self._check(deployment, accept, handle, executor)
            except (ConfigError, ModelLoadError) as error:
                if golden is not None and golden.trouble is not None:
                    raise golden.trouble from None
                raise Unfit(f"'{name}': {error}") from None
            finally:
                executor.shutdown()  # engines first, then the card they are on
                if handle is not None:
                    handle.close()
        commit()
        request = inference_pb2.RepositoryModelLoadRequest(model_name=name)
        self._call("RepositoryModelLoad", request, inference_pb2.RepositoryModelLoadResponse)

    def retire(self, name: str) -> None:
        """As Models.retire."""
        request = inference_pb2.RepositoryModelUnloadRequest(model_name=name)
        self._call("RepositoryModelUnload", request, inference_pb2.RepositoryModelUnloadResponse)

    def _card(self) -> CardLike | None:
        if self._open_card is None:
            return None
        try:
            return self._open_card()
        except CardError as error:
            raise CardTrouble(f"the card cannot be opened: {error}", error.remedy) from None

    def _check(
        self,
        deployment: Deployment,
        accept: Accept,
        handle: CardLike | None,
        executor: ThreadPoolExecutor,
    ) -> None:
        report = Report()
        name = deployment.package.model.name
        config, numbers = plan(name, deployment.folder, Override(), report)
        card = Card(handle, OffCard("no_card", "the sync was started with --card none"))
        for number in numbers:
            loaded = self._loader.load(name, deployment.folder, number, config, card, report)
            try:
                accept(number, loaded)
            finally:
                loaded.retire(executor)
        report.tell(name)

    def _call(self, method: str, request: Message, answer: type[Message]) -> None:
        if not self._server:
            return
        try:
            with Client(self._server, _CALL_SECONDS) as client:
                client.call(INFERENCE, method, request, answer)
        except CallError as error:
            log.warning("sync: the server was not told", server=self._server, reason=str(error))

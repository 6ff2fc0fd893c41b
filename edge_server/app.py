# SPDX-License-Identifier: Apache-2.0
"""Puts one server together out of its settings, starts it and stops it in order."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from prometheus_client import CollectorRegistry

from edge_server import log
from edge_server.address import Address, AddressError, claim_unix, parse_address
from edge_server.card.control import CardControl
from edge_server.card.controller import ControllerLike, ControllerWatch
from edge_server.card.controller_line import SmpLine
from edge_server.card.controller_metrics import ControllerCollector
from edge_server.card.link import CardLink
from edge_server.card.shadow import Shadow
from edge_server.clock import Clock, LoopClock
from edge_server.engines.card import CardLike, SessionLike
from edge_server.health import Health, add_reflection
from edge_server.identity import NodeIdentity
from edge_server.inference import Inference, Limits
from edge_server.loader import Loader
from edge_server.metrics import ServerCollector
from edge_server.model_files import model_folders
from edge_server.repository import Repository
from edge_server.rpc import handlers
from edge_server.service import UNPARSED, InferenceService, Phase
from edge_server.settings import Settings
from edge_server.statistics import Counters
from edge_server.store.errors import DiskFull, ReadOnlyDisk
from edge_server.sync.metrics import SyncCollector
from edge_server.sync.node import Node, card_abi
from edge_server.sync.serving import ServingModels
from edge_server.web import WebServer
from wire import inference_pb2, tepi_card_pb2

T = TypeVar("T")

_WORKERS = 64
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a port in use must be an error, not a second server on it
)


class CardOptionError(Exception):
    """The card cannot be opened as the operator wants it; the message names option and remedy."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server is built from; tests put other cards and clocks in."""

    open_card: Callable[[Settings], CardLike]
    open_session: Callable[[Path, Any, int], SessionLike]
    clock: Clock
    controller: Callable[[str], ControllerLike] = SmpLine


def product_parts() -> Parts:
    """The card of the product and real time."""
    return Parts(_open_card, _open_session, LoopClock())


def _open_card(settings: Settings) -> CardLike:
    from device.binding import Card

    try:
        card: CardLike = Card.open(settings.card, threads=settings.threads, isa=settings.isa)
    except ValueError as error:
        raise CardOptionError(f"--card {settings.card} --isa {settings.isa}: {error}") from None
    return card


def _open_session(model: Path, card: Any, threads: int) -> SessionLike:
    from device.compiled import PROGRAM_FILE
    from device.session import Session

    program = model.with_name(PROGRAM_FILE)  # compiled where the model was packed
    compiled = program if program.is_file() else None
    session = Session(model, card=card, threads=threads, compiled=compiled)
    if session.not_used:
        log.warning("compiled anew", model=str(model), reason=session.not_used)
    found: SessionLike = session
    return found


class Server:
    """One server: `start`, then `stop`. Lives on one event loop."""

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self.settings = settings
        self.phase = Phase()
        self.counters = Counters()
        self.executor = ThreadPoolExecutor(_WORKERS, thread_name_prefix="tepi-worker")
        open_card = None
        if settings.card != "none":
            open_card = lambda: parts.open_card(settings)  # noqa: E731
        self.link = CardLink(settings.card, open_card, self.executor, parts.clock)
        self.repository = Repository(
            settings.model_repository,
            Loader(settings.threads, parts.open_session),
            self.link,
            self.counters,
            settings.max_queue_size,
            self.executor,
        )
        shadow = Shadow(
            settings.shadow_share,
            settings.shadow_limit,
            settings.shadow_samples,
            self.executor,
            self.link.doubt,
        )
        limits = Limits(settings.inline_limit_us * 1000, settings.card_deadline_ms / 1e3)
        self.controller: ControllerWatch | None = None
        if settings.controller and open_card is not None:
            line = parts.controller(settings.controller)
            self.controller = ControllerWatch(settings.controller, line, self.link, parts.clock)
        self._inference = Inference(self.repository, self.link, self.executor, shadow, limits)
        self._service = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        self._health = Health(self._service.full_name)
        self._closing = AsyncExitStack()
        self._grpc: grpc.aio.Server | None = None
        self.node: Node | None = None
        self.identity: NodeIdentity | None = None
        self.grpc_address = ""
        self.metrics_address = ""

    async def start(self) -> None:
        """Returns when every model that can be loaded is. Raises AddressError,
        RepositoryError, CardOptionError, and what Node raises."""
        try:
            if self.settings.identity is not None:
                self.identity = NodeIdentity(self.settings.identity)
                self.identity.start()
            await self._open_node()
            model_folders(self.settings.model_repository)
            await self._start_web()
            await self._start_grpc()
        except BaseException:
            await self._stop_parts()
            await self._closing.aclose()
            self.executor.shutdown()
            raise
        self.repository.on_change = self._health.model
        try:
            await self.link.open()
        except CardOptionError:
            await self.stop()
            raise
        failed = await self.repository.load_all(self.settings.load_models)
        await self.link.start()
        served = self.repository.all_served()
        if not served and not failed and self.node is None:
            log.warning(
                "the model repository is empty",
                folder=self.settings.model_repository,
                expected="<model>/<version>/model.onnx",
            )
        self.phase.ready = True
        self._health.server(True)
        log.info("ready", grpc=self.grpc_address, models=len(served), failed=failed)
        if self.controller is not None:
            self.controller.start()
        if self.node is not None:
            try:
                await self._call(self.node.start)
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """Not ready first, then the requests under way finish, then everything is let go."""
        if self.phase.stopping.is_set():
            return
        log.info("stopping")
        self.phase.ready = False
        self._health.stop()
        assert self._grpc is not None
        self.phase.stopping.set()
        await self._stop_parts()
        await self._grpc.stop(grace=self.settings.drain_seconds)  # returns with the last request
        if self.controller is not None:
            await self.controller.stop()
        await self.repository.close()
        await self.link.close()
        await self._closing.aclose()
        self.executor.shutdown()
        log.info("stopped")

    async def _open_node(self) -> None:
        """The sync, which holds the models folder; it follows once the server is ready."""
        sync = self.settings.sync
        if sync is None:
            return
        models = ServingModels(self.repository, asyncio.get_running_loop())
        abi = card_abi(self.settings.card)
        try:
            self.node = await self._call(lambda: Node(sync, models, abi))
        except (DiskFull, ReadOnlyDisk) as error:  # what is here can be served all the same
            log.warning("sync is off until the next start", reason=error, remedy=error.remedy)

    async def _stop_parts(self) -> None:
        if self.node is not None:
            await self._call(self.node.stop)
        if self.identity is not None:
            await self._call(self.identity.stop)

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.executor, function)

    async def _start_grpc(self) -> None:
        address = parse_address("--grpc-address", self.settings.grpc_address)
        identity = self.identity
        interceptors = [identity.peers] if identity is not None else []
        server = grpc.aio.server(options=_GRPC_OPTIONS, interceptors=interceptors)
        version = importlib.metadata.version("tepi")
        service = InferenceService(self.repository, self._inference, self.phase, version)
        services = [self._service.full_name, self._health.add_to(server)]
        server.add_generic_rpc_handlers((handlers(self._service, service, UNPARSED),))
        control = tepi_card_pb2.DESCRIPTOR.services_by_name["CardControl"]
        services.append(control.full_name)
        implementation = CardControl(
            self.link,
            self.repository,
            self.settings.card_control,
            self.controller.view if self.controller is not None else None,
        )
        server.add_generic_rpc_handlers((handlers(control, implementation),))
        add_reflection(server, services)
        credentials = identity.server_credentials() if identity is not None else None
        self.grpc_address = _bind(server, address, credentials)
        if address.path:
            self._closing.callback(address.unlink)
        self._grpc = server
        await server.start()

    async def _start_web(self) -> None:
        if not self.settings.metrics_address:
            return
        address = parse_address("--metrics-address", self.settings.metrics_address)
        registry = CollectorRegistry()
        registry.register(ServerCollector(self.counters, self.link, self.repository.all_served))
        if self.node is not None:
            registry.register(SyncCollector(self.node))
        if self.controller is not None:
            registry.register(ControllerCollector(self.controller.view))
        web = WebServer(registry, lambda: self.phase.ready)
        try:
            if address.path:
                claim_unix(address)
                server = await asyncio.start_unix_server(web.serve, address.path)
                self._closing.callback(address.unlink)
                self.metrics_address = address.text
            else:
                server = await asyncio.start_server(web.serve, address.host, address.port)
                port = server.sockets[0].getsockname()[1]
                self.metrics_address = address.with_port(port)
        except OSError as error:
            raise AddressError(address.refused(error.strerror or str(error))) from None
        self._closing.callback(server.close)


def _bind(
    server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None
) -> str:
    """Listen; the address with the port that was taken."""
    if address.path:
        claim_unix(address)
    try:
        if credentials is None:
            port = server.add_insecure_port(address.text)
        else:
            port = server.add_secure_port(address.text, credentials)
    except RuntimeError:
        raise AddressError(address.refused("in use, or not an address of this machine")) from None
    return address.text if address.path else address.with_port(port)

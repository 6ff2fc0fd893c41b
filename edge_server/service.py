# SPDX-License-Identifier: Apache-2.0
"""inference.GRPCInferenceService: one coroutine per method, in the order of inference.proto."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from edge_server import model_config
from edge_server.config_text import ConfigError
from edge_server.inference import Inference
from edge_server.model_files import Override
from edge_server.repository import Repository, State
from edge_server.served import ServedVersion
from edge_server.statistics_message import statistics_message
from edge_server.status import RequestError, invalid, not_found, unimplemented
from edge_server.stream import answer_stream
from wire import inference_pb2 as pb

SERVER_NAME = "tepi"
UNPARSED = frozenset({"ModelInfer"})  # methods that take and return bytes
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
)


@dataclass(slots=True)
class Phase:
    """Whether the server takes requests: not while it loads at start nor once it stops."""

    ready: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


class InferenceService:
    """The methods' implementations; see edge_server.rpc for what calls them."""

    def __init__(
        self, repository: Repository, inference: Inference, phase: Phase, version: str
    ) -> None:
        self._repository = repository
        self._inference = inference
        self._phase = phase
        self._version = version

    async def ServerLive(self, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """The process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """False while models load at start and from the moment that the server is told to stop."""
        return pb.ServerReadyResponse(ready=self._phase.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """False too where the model requires a card that is away."""
        try:
            served = self._repository.find(request.name, request.version)
        except RequestError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=served.ready and self._phase.ready)

    async def ServerMetadata(self, _request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Only extensions that work are listed."""
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=self._version, extensions=EXTENSIONS
        )

    async def ModelMetadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Shapes include the batch dimension as -1 where the model batches."""
        served = self._repository.find(request.name, request.version)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=served.name,
            versions=[v.version for v in self._repository.versions(served.name)],
            platform=model_config.PLATFORM,
            inputs=[
                tensor(name=s.name, datatype=s.datatype.wire, shape=s.shape) for s in served.inputs
            ],
            outputs=[
                tensor(name=s.name, datatype=s.datatype.wire, shape=s.shape) for s in served.outputs
            ],
        )

    async def ModelInfer(self, request: bytes, patience: float | None) -> bytes:
        """See Inference.answer."""
        return await self._inference.answer(request, patience)

    def ModelStreamInfer(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """See edge_server.stream."""
        return answer_stream(requests, self._inference, self._phase.stopping)

    async def ModelConfig(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """The configuration in force, completed from the model."""
        served = self._repository.find(request.name, request.version)
        return pb.ModelConfigResponse(config=served.config)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest
    ) -> pb.ModelStatisticsResponse:
        """Of one version, of all versions of a model, or of every model in service."""
        served: list[ServedVersion]
        if not request.name:
            served = self._repository.all_served()
        elif request.version:
            served = [self._repository.find(request.name, request.version)]
        else:
            self._repository.find(request.name, "")
            served = self._repository.versions(request.name)
        return pb.ModelStatisticsResponse(model_stats=[statistics_message(v) for v in served])

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest
    ) -> pb.RepositoryIndexResponse:
        """What is on disk and in service, version by version."""
        _one_repository(request.repository_name)
        row = pb.RepositoryIndexResponse.ModelIndex
        return pb.RepositoryIndexResponse(
            models=[
                row(name=e.name, version=e.version, state=e.state, reason=e.reason)
                for e in self._repository.index()
                if e.state is State.READY or not request.ready
            ]
        )

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest
    ) -> pb.RepositoryModelLoadResponse:
        """Load or reload; answers when the model serves."""
        _one_repository(request.repository_name)
        await self._repository.load(request.model_name, _override(request))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        """Answers when the last request has finished and the memory is free."""
        _one_repository(request.repository_name)
        await self._repository.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest
    ) -> pb.SystemSharedMemoryStatusResponse:
        """No region is ever registered."""
        _no_region(request.name)
        return pb.SystemSharedMemoryStatusResponse()

    async def SystemSharedMemoryRegister(
        self, _request: pb.SystemSharedMemoryRegisterRequest
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Not offered."""
        raise unimplemented("system shared memory is not offered; send tensors in the request")

    async def SystemSharedMemoryUnregister(
        self, _request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Nothing to do: clients call this before they look at what is offered."""
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest
    ) -> pb.CudaSharedMemoryStatusResponse:
        """No region is ever registered."""
        _no_region(request.name)
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(
        self, _request: pb.CudaSharedMemoryRegisterRequest
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Not offered."""
        raise unimplemented("CUDA shared memory is not offered; send tensors in the request")

    async def CudaSharedMemoryUnregister(
        self, _request: pb.CudaSharedMemoryUnregisterRequest
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Nothing to do, as above."""
        return pb.CudaSharedMemoryUnregisterResponse()

    async def TraceSetting(self, _request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """Not offered."""
        raise unimplemented("request tracing is not offered by this server")

    async def LogSettings(self, _request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """Not offered."""
        raise unimplemented("log settings cannot be changed while the server runs")


def _one_repository(name: str) -> None:
    if name:
        raise unimplemented(f"repository_name '{name}': there is one repository; leave it empty")


def _no_region(name: str) -> None:
    if name:
        raise not_found(f"shared memory region '{name}' is not registered")


def _override(request: pb.RepositoryModelLoadRequest) -> Override:
    """The `config` and `file:VERSION/NAME` parameters."""
    config = None
    files: dict[str, bytes] = {}
    for key, parameter in request.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if key == "config":
            if kind != "string_param":
                raise invalid("parameter 'config' must be a string of JSON")
            try:
                config = model_config.from_json(parameter.string_param, request.model_name)
            except ConfigError as error:
                raise invalid(str(error)) from None
        elif key.startswith("file:"):
            path = key.removeprefix("file:")
            version, _, name = path.partition("/")
            if not (version.isascii() and version.isdecimal()) or not _is_file_name(name):
                raise invalid(f"parameter '{key}': expected file:<version>/<file name>")
            if kind != "bytes_param":
                raise invalid(f"parameter '{key}' must hold the file as bytes")
            files[path] = parameter.bytes_param
        else:
            raise invalid(f"parameter '{key}' is unknown: expected 'config' or 'file:…'")
    if files and config is None:
        raise invalid(f"files for '{request.model_name}' need the parameter 'config' beside them")
    return Override(config, files)


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and json.dumps(name) == f'"{name}"'

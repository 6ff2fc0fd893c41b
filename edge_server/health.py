# SPDX-License-Identifier: Apache-2.0
"""grpc.health.v1 and reflection: the server as "" and by service name, each model by its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_STATUS = health_pb2.HealthCheckResponse


class Health:
    """Readiness by service name, for any number of watchers.

    The servicer that comes with grpcio-health-checking drops the other watchers of a name when one
    of them leaves, hence this one.
    """

    def __init__(self, service_name: str) -> None:
        self._own = ("", service_name)
        self._ready: dict[str, bool] = dict.fromkeys(self._own, False)
        self._changed = asyncio.Event()
        self._stopping = False

    def server(self, ready: bool) -> None:
        """The whole server's readiness."""
        for name in self._own:
            self._ready[name] = ready
        self._tell()

    def model(self, name: str, ready: bool) -> None:
        """One model's readiness."""
        self._ready[name] = ready
        self._tell()

    def stop(self) -> None:
        """Nothing is ready any more; watches end after they have said so."""
        self._ready = dict.fromkeys(self._ready, False)
        self._stopping = True
        self._tell()

    def add_to(self, server: grpc.aio.Server) -> str:
        """Offer the service; returns its name."""
        request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(
                self._check, request.FromString, response.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._watch, request.FromString, response.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_HEALTH, methods),))
        name: str = _HEALTH
        return name

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _check(self, request: Any, context: Any) -> Any:
        ready = self._ready.get(request.service)
        if ready is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no service or model '{request.service}'"
            )
        return _STATUS(status=_STATUS.SERVING if ready else _STATUS.NOT_SERVING)

    async def _watch(self, request: Any, _context: Any) -> AsyncIterator[Any]:
        last: bool | str | None = "not told yet"
        while True:
            changed, ready = self._changed, self._ready.get(request.service)
            if ready != last:
                last = ready
                if ready is None:
                    yield _STATUS(status=_STATUS.SERVICE_UNKNOWN)
                else:
                    yield _STATUS(status=_STATUS.SERVING if ready else _STATUS.NOT_SERVING)
                continue
            if self._stopping:
                return
            await changed.wait()


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Offer reflection as v1alpha and as v1, whose messages are the same on the wire."""
    alpha = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name
    servicer = reflection_aio.ReflectionServicer((*services, alpha, _REFLECTION_V1))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": method}),)
    )

# SPDX-License-Identifier: Apache-2.0
"""gRPC methods out of a protobuf service descriptor and an object with a coroutine per method.

Requests arrive as bytes and are parsed here, so that bytes which are no message get
INVALID_ARGUMENT; errors leave as a status, defects as INTERNAL with an id that the log repeats.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from edge_server import log
from edge_server.status import RequestError, invalid, retry_metadata

Handler = Callable[[Any, Any], Awaitable[Any]]


def handlers(
    service: ServiceDescriptor, implementation: object, unparsed: frozenset[str] = frozenset()
) -> grpc.GenericRpcHandler:
    """Every method of `service`, each answered by the attribute of its name.

    A unary method takes the request message and returns the response message; one named in
    `unparsed` takes bytes, with the seconds that the client still waits (None: for ever), and
    returns bytes. A stream takes an async iterator of request bytes and is an
    async generator of response bytes.
    """
    methods = {}
    for method in service.methods:
        function = getattr(implementation, method.name)
        if method.client_streaming:
            methods[method.name] = grpc.stream_stream_rpc_method_handler(_stream(method, function))
        else:
            methods[method.name] = grpc.unary_unary_rpc_method_handler(
                _unary(method, function, method.name in unparsed)
            )
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _unary(method: MethodDescriptor, function: Callable[..., Awaitable[Any]], raw: bool) -> Handler:
    parse = message_factory.GetMessageClass(method.input_type).FromString

    async def call(data: bytes, context: Any) -> Any:
        try:
            if raw:
                return await function(data, context.time_remaining())
            return (await function(parse(data))).SerializeToString()
        except RequestError as error:
            await context.abort(error.code, error.message, retry_metadata(error))
        except DecodeError:
            refusal = malformed(method)
            await context.abort(refusal.code, refusal.message)
        except Exception:
            await context.abort(grpc.StatusCode.INTERNAL, defect(method.full_name))
        raise AssertionError("abort returned")

    return call


def _stream(
    method: MethodDescriptor,
    function: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]],
) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
    async def call(
        requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        try:
            async for response in function(requests):
                yield response
        except RequestError as error:
            await context.abort(error.code, error.message, retry_metadata(error))
        except (asyncio.CancelledError, grpc.RpcError):
            raise
        except Exception:
            await context.abort(grpc.StatusCode.INTERNAL, defect(method.full_name))

    return call


def malformed(method: MethodDescriptor) -> RequestError:
    """The request's bytes cannot be parsed."""
    return invalid(f"the request is not a valid {method.input_type.full_name} message")


def defect(where: str) -> str:
    """Log the exception being handled; the message for the client, which does not show it."""
    mark = uuid.uuid4().hex[:12]
    log.failure("defect", id=mark, where=where)
    return f"internal error {mark}; the server's log has its particulars under this id"

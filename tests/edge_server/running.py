# SPDX-License-Identifier: Apache-2.0
"""A server inside the test's own process, and calls to it over a real connection."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import message_factory

from edge_server.app import Parts, Server, product_parts
from edge_server.client import CARD_CONTROL, INFERENCE
from edge_server.datatypes import BY_WIRE
from edge_server.engines.engine import Array
from edge_server.settings import Settings
from wire import inference_pb2 as pb

WAIT = 30.0
_METHODS = {m.name: m for service in (INFERENCE, CARD_CONTROL) for m in service.methods}


class Refused(Exception):
    """The server answered with a status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Caller:
    """Calls any method by its name."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    async def raw(self, method: str, data: bytes) -> bytes:
        """Bytes to bytes."""
        descriptor = _METHODS[method]
        function = self.channel.unary_unary(f"/{descriptor.containing_service.full_name}/{method}")
        try:
            answer: bytes = await function(data, timeout=WAIT)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code().name, error.details() or "") from None
        return answer

    async def __call__(self, method: str, **fields: Any) -> Any:
        """Message fields to a message."""
        descriptor = _METHODS[method]
        request = message_factory.GetMessageClass(descriptor.input_type)(**fields)
        data = await self.raw(method, request.SerializeToString())
        return message_factory.GetMessageClass(descriptor.output_type).FromString(data)

    async def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """ModelInfer."""
        data = await self.raw("ModelInfer", request.SerializeToString())
        return pb.ModelInferResponse.FromString(data)

    async def refusal(self, request: pb.ModelInferRequest) -> Refused:
        """The error that ModelInfer must answer with."""
        try:
            await self.infer(request)
        except Refused as error:
            return error
        raise AssertionError("the request was answered")


@asynccontextmanager
async def running(
    repository: Path, parts: Parts | None = None, **settings: Any
) -> AsyncIterator[tuple[Server, Caller]]:
    """A ready server on a free port without a card (unless `card` is given), and a caller."""
    chosen: dict[str, Any] = {
        "card": "none",
        "metrics_address": "",
        "drain_seconds": 10.0,
    } | settings
    server = Server(
        Settings(repository, grpc_address="127.0.0.1:0", **chosen), parts or product_parts()
    )
    await server.start()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    try:
        async with grpc.aio.insecure_channel(server.grpc_address, options=options) as channel:
            yield server, Caller(channel)
    finally:
        await server.stop()


def request(
    model: str, inputs: Mapping[str, Array], outputs: Sequence[str] = (), **fields: Any
) -> pb.ModelInferRequest:
    """A request with raw contents."""
    message = pb.ModelInferRequest(model_name=model, **fields)
    for name, array in inputs.items():
        message.inputs.add(name=name, datatype=wire_type(array), shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    for name in outputs:
        message.outputs.add(name=name)
    return message


def wire_type(array: Array) -> str:
    """The protocol's name of an array's type."""
    return next(t.wire for t in BY_WIRE.values() if t.dtype == array.dtype)


def arrays(response: pb.ModelInferResponse) -> dict[str, Array]:
    """The outputs of fixed-size types by name."""
    return {
        o.name: np.frombuffer(data, BY_WIRE[o.datatype].dtype).reshape(tuple(o.shape))
        for o, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def text(response: pb.ModelInferResponse, parameter: str) -> str:
    """A string parameter of the response; empty where it is not there."""
    return response.parameters[parameter].string_param if parameter in response.parameters else ""


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds; everything else on the loop goes on meanwhile."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)

# SPDX-License-Identifier: Apache-2.0
"""ModelStreamInfer: requests of one stream run side by side and are answered in their order.

Errors travel in-band, the stream goes on. A model here answers each request exactly once, so every
response is also its request's last (`triton_final_response`) and the empty final response that
`triton_enable_empty_final_response` asks decoupled models for is never due.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError

from edge_server.infer_codec import parameter_field, stream_response
from edge_server.inference import Inference
from edge_server.rpc import defect
from edge_server.status import RequestError
from wire import inference_pb2 as pb

_IN_FLIGHT = 64  # requests of one stream under way; further ones are read when the first is done
_FINAL = parameter_field(triton_final_response=True)
_METHOD = "inference.GRPCInferenceService.ModelStreamInfer"


async def answer_stream(
    requests: AsyncIterator[bytes], inference: Inference, stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """Serialized ModelStreamInferResponse messages for serialized ModelInferRequest messages.

    Once `stopping` is set no further request is read; those that were are answered.
    """
    line: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(_IN_FLIGHT)
    under_way: set[asyncio.Task[bytes]] = set()

    async def read() -> None:
        try:
            async for data in requests:
                task = asyncio.create_task(_answer(data, inference))
                under_way.add(task)
                await line.put(task)
        finally:
            await line.put(None)

    async def stop_reading() -> None:
        await stopping.wait()
        reader.cancel()

    reader = asyncio.create_task(read())
    stop = asyncio.create_task(stop_reading())
    try:
        while (task := await line.get()) is not None:
            yield await task
            under_way.discard(task)
        if not stopping.is_set():
            await reader  # raises what reading raised
    finally:
        stop.cancel()
        for left in under_way:
            left.cancel()
        reader.cancel()
        while not line.empty():
            line.get_nowait()  # makes room, where the reader is still to say that it has ended


async def _answer(data: bytes, inference: Inference) -> bytes:
    try:
        return stream_response(await inference.answer(data) + _FINAL)
    except RequestError as error:
        return _error(error.message, data)
    except DecodeError:
        return _error("the request is not a valid inference.ModelInferRequest message", b"")
    except Exception:
        return _error(defect(_METHOD), data)


def _error(message: str, data: bytes) -> bytes:
    """In-band, with the id of the request that it concerns."""
    response = pb.ModelInferResponse(id=pb.ModelInferRequest.FromString(data).id)
    response.parameters["triton_final_response"].bool_param = True
    return pb.ModelStreamInferResponse(
        error_message=message, infer_response=response
    ).SerializeToString()

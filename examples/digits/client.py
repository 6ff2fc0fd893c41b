# SPDX-License-Identifier: Apache-2.0
"""A small asyncio client of the Open Inference Protocol for the digits model."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType

import grpc
import numpy as np
from numpy.typing import NDArray

from wire import inference_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Answer:
    """One classified digit: which image, the digit, how long it took, and who computed it."""

    index: int
    digit: int
    seconds: float
    device: str
    reason: str


class DigitsClient:
    """Classifies [1, 8, 8] float32 images of 0..16 over one gRPC channel."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._infer = self._channel.unary_unary(
            METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )

    async def __aenter__(self) -> "DigitsClient":
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def classify(self, index: int, image: NDArray[np.float32]) -> Answer:
        """One request with one image. Raises ConnectionError with the server's words."""
        request = pb.ModelInferRequest(model_name="digits")
        request.inputs.add(name="image", datatype="FP32", shape=[1, *image.shape])
        request.raw_input_contents.append(image.tobytes())
        started = time.perf_counter()
        try:
            response = await self._infer(request)
        except grpc.aio.AioRpcError as error:
            raise ConnectionError(f"{error.code().name}: {error.details()}") from error
        seconds = time.perf_counter() - started
        probabilities = np.frombuffer(response.raw_output_contents[0], np.float32)
        parameters = response.parameters
        return Answer(
            index,
            int(np.argmax(probabilities)),
            seconds,
            parameters["tepi_device"].string_param,
            parameters["tepi_fallback_reason"].string_param
            if "tepi_fallback_reason" in parameters
            else "",
        )

    async def classify_all(self, images: list[NDArray[np.float32]], in_flight: int) -> list[Answer]:
        """Every image, `in_flight` requests at a time; answers in the order of the images."""
        waiting = iter(enumerate(images))
        answers: list[Answer] = []

        async def worker() -> None:
            for index, image in waiting:
                answers.append(await self.classify(index, image))

        await asyncio.gather(*(worker() for _ in range(in_flight)))
        return sorted(answers, key=lambda answer: answer.index)

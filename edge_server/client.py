# SPDX-License-Identifier: Apache-2.0
"""The commands' side of the wire: unary calls by a method's descriptor, errors in plain words."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from wire import inference_pb2, tepi_card_pb2

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
CARD_CONTROL = tepi_card_pb2.DESCRIPTOR.services_by_name["CardControl"]
M = TypeVar("M", bound=Message)


class CallError(Exception):
    """The server answered with an error or not at all; the message says which and what to do."""


class Client:
    """A connection for a few calls; a context manager."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        unlimited = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        self._channel: Any = grpc.insecure_channel(address, options=unlimited)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._channel.close()

    def call(self, service: ServiceDescriptor, method: str, request: Message, answer: type[M]) -> M:
        """One unary call. Raises CallError."""
        function = self._channel.unary_unary(
            f"/{service.full_name}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            response: M = function(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise CallError(self._explain(error)) from None
        return response

    def _explain(self, error: Any) -> str:
        code, details = error.code(), error.details()
        if code is grpc.StatusCode.UNAVAILABLE and "failed to connect" in details:
            return f"no server answers at {self._address}: start one with `tepi serve`"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{self._address} gave no answer in {self._timeout:g} s (--timeout)"
        return f"{code.name}: {details}"

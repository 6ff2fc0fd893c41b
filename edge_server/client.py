# SPDX-License-Identifier: Apache-2.0
"""The commands' side of the wire: unary calls by a method's descriptor, errors in plain words."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from firmware_bridge.provision.node import node_credentials
from wire import inference_pb2, tepi_card_pb2

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
CARD_CONTROL = tepi_card_pb2.DESCRIPTOR.services_by_name["CardControl"]
M = TypeVar("M", bound=Message)
_SECURE = "grpcs://"


class CallError(Exception):
    """The server answered with an error or not at all; the message says which and what to do."""


def open_channel(address: str) -> Any:
    """A channel to HOST:PORT, unix:PATH, or grpcs://HOST:PORT?identity=DIR[&name=NODE], which shows
    the certificate in that folder and expects one of the same authority, for NODE where the host is
    called otherwise. Raises NoIdentity, CallError."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    if not address.startswith(_SECURE):
        return grpc.insecure_channel(address, options=options)
    parts = urlsplit(address)
    asked = dict(parse_qsl(parts.query))
    if "identity" not in asked:
        raise CallError(f"{address} names no identity: write {_SECURE}HOST:PORT?identity=DIR")
    held = node_credentials(Path(asked["identity"]))
    if "name" in asked:
        options.append(("grpc.ssl_target_name_override", asked["name"]))
    pem = (path.read_bytes() for path in (held.ca_path, held.key_path, held.cert_path))
    return grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(*pem), options=options)


class Client:
    """A connection for a few calls; a context manager. `address` as open_channel takes it."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._channel: Any = open_channel(address)

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
            if self._address.startswith(_SECURE):
                return (
                    f"no connection to {self._address}: no server is there, or it and this "
                    "identity do not trust each other"
                )
            return f"no server answers at {self._address}: start one with `tepi serve`"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{self._address} gave no answer in {self._timeout:g} s (--timeout)"
        return f"{code.name}: {details}"

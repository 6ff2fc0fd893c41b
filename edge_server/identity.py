# SPDX-License-Identifier: Apache-2.0
"""A node's certificate in the server: mutual TLS for gRPC, renewed without a restart.

gRPC checks the client's chain and dates against the authority's root; whether the certificate is a
node's, and not on the list of denied ones, is looked up here for each call.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from edge_server import log
from firmware_bridge.errors import BridgeError
from firmware_bridge.provision.node import Identity, node_credentials
from firmware_bridge.provision.renewal import Enrolment, Renewer
from firmware_bridge.provision.tls import Peers

_CERTIFICATE = "x509_pem_cert"  # of a gRPC call's authentication context
_KNOWN = 1024  # answers kept


class NodeIdentity:
    """The identity in a folder. Raises NoIdentity where there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shown = node_credentials(folder).key_path.parent
        enrolment = Enrolment(Identity(folder), time.time, time.sleep)
        self._renewer = Renewer(enrolment, self._renewed)
        self.peers = PeerCheck(Peers(folder))

    def start(self) -> None:
        """Renew from now on, in a thread."""
        self._renewer.start()

    def stop(self) -> None:
        """Renew no more."""
        self._renewer.close()

    def server_credentials(self) -> grpc.ServerCredentials:
        """Each new connection gets the certificate of its moment; the client must show one."""
        return grpc.dynamic_ssl_server_credentials(self._configuration(), self._changed, True)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        held = node_credentials(self._folder)
        self._shown = held.key_path.parent
        pair = (held.key_path.read_bytes(), held.cert_path.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], held.ca_path.read_bytes())

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks before each handshake; what it has goes on where nothing can be read."""
        try:
            if node_credentials(self._folder).key_path.parent == self._shown:
                return None
            return self._configuration()
        except (BridgeError, OSError) as error:
            log.warning("identity cannot be read", folder=self._folder, reason=error)
            return None

    def _renewed(self) -> None:
        self.peers.forget()
        log.info("identity renewed, or its list of denied ones", folder=self._folder)


class PeerCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets nodes call that are not denied; anybody else gets PERMISSION_DENIED."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._known: dict[bytes, str] = {}  # certificate: what is wrong with it, or empty

    def forget(self) -> None:
        """The list changed."""
        self._known.clear()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            self._stream(handler.stream_stream),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, function: Any) -> Any:
        async def call(request: Any, context: Any) -> Any:
            await self._admit(context)
            return await function(request, context)

        return call

    def _stream(self, function: Any) -> Any:
        async def call(request: Any, context: Any) -> Any:
            await self._admit(context)
            async for response in function(request, context):
                yield response

        return call

    async def _admit(self, context: Any) -> None:
        shown = context.auth_context().get(_CERTIFICATE, [b""])[0]
        why = self._known.get(shown)
        if why is None:
            try:
                self._peers.node(shown)
                why = ""
            except BridgeError as error:
                why = str(error)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[shown] = why
        if why:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)

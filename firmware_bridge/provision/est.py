# SPDX-License-Identifier: Apache-2.0
"""The enrolment service: RFC 7030 over HTTPS on an authority, with aiohttp.

Rules and ledger are synchronous and wait for the disk, so they run in a few threads.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import TypeVar

from aiohttp import hdrs, web
from cryptography.hazmat.primitives.serialization import Encoding

from firmware_bridge.provision import wire
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.attestation import HEADER, Attestation
from firmware_bridge.provision.authority import Authority
from firmware_bridge.provision.errors import (
    BadToken,
    CannotListen,
    LockedOut,
    MissingToken,
    NoCertificate,
    ProvisionError,
)
from firmware_bridge.provision.lockout import SECONDS, Lockout
from firmware_bridge.provision.x509_forms import valid_until

LOGGER = logging.getLogger("tepi.provision")
_THREADS = 4
_UPKEEP_SECONDS = 3600.0
_SHORT_SECONDS = 180 * 86400.0  # of the issuing certificate's life: time to find the root's key
_REMEMBER_SECONDS = 90 * 86400.0  # ended certificates and tokens, for whoever looks into the past
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_T = TypeVar("_T")


def est_app(admission: Admission) -> web.Application:
    """The paths of `wire` over an authority's rules."""
    service = _Service(admission)
    app = web.Application(middlewares=[service.answer], client_max_size=wire.MAX_BODY)
    app.router.add_get(wire.CACERTS, service.cacerts)
    app.router.add_get(wire.CSRATTRS, service.csrattrs)
    app.router.add_post(wire.ENROLL, service.enroll)
    app.router.add_post(wire.REENROLL, service.reenroll)
    app.router.add_get(wire.NONCE, service.nonce)
    app.router.add_get(wire.CRL, service.crl)
    app.router.add_get(wire.WHOAMI, service.whoami)

    async def close(_app: web.Application) -> None:
        service.threads.shutdown()

    app.on_cleanup.append(close)
    return app


class _Service:
    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._authority = admission.authority
        self._lockout = Lockout()
        self.threads = ThreadPoolExecutor(_THREADS, "authority")

    @web.middleware
    async def answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Errors as text with their word (RFC 7030, 4.2.3); the authority's own time on all."""
        date = formatdate(self._authority.clock(), usegmt=True)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers[hdrs.DATE] = date
            raise
        except ProvisionError as error:
            level = logging.ERROR if error.status >= 500 else logging.WARNING
            LOGGER.log(level, "%s %s: %s: %s", request.remote, request.path, error.word, error)
            text = f"{error}\n{error.remedy}\n" if error.remedy else f"{error}\n"
            response = web.Response(status=error.status, text=text)
            response.headers[wire.REFUSAL] = error.word
            if isinstance(error, BadToken | MissingToken):
                response.headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="tepi enrolment"'
            if isinstance(error, LockedOut):
                response.headers[hdrs.RETRY_AFTER] = str(int(SECONDS))
        response.headers[hdrs.DATE] = date
        return response

    async def cacerts(self, _request: web.Request) -> web.Response:
        return _base64(wire.encode_certificates(self._authority.chain), wire.PKCS7)

    async def csrattrs(self, _request: web.Request) -> web.Response:
        return _base64(b64encode(wire.ATTRIBUTES), wire.CSRATTRS_TYPE)

    async def enroll(self, request: web.Request) -> web.Response:
        address, clock = request.remote or "", self._authority.clock
        self._lockout.check(address, clock())
        data = wire.decode_request(await request.read())
        header = request.headers.get(HEADER)
        attestation = None if header is None else Attestation.from_header(header)
        try:
            secret = wire.secret_of(request.headers.get(hdrs.AUTHORIZATION))
            made = await self._run(self._admission.enroll, data, secret, attestation)
        except BadToken:
            self._lockout.failed(address, clock())
            raise
        LOGGER.info("%s enrolled %s", address, made.subject.rfc4514_string())
        return _base64(wire.encode_certificates([made]), wire.PKCS7)

    async def reenroll(self, request: web.Request) -> web.Response:
        data = wire.decode_request(await request.read())
        made = await self._run(self._admission.renew, data, _peer(request))
        LOGGER.info("%s renewed %s", request.remote, made.subject.rfc4514_string())
        return _base64(wire.encode_certificates([made]), wire.PKCS7)

    async def nonce(self, _request: web.Request) -> web.Response:
        return web.json_response({"nonce": b64encode(self._authority.nonce()).decode()})

    async def crl(self, _request: web.Request) -> web.Response:
        made = await self._run(self._authority.crl)
        return web.Response(body=made.public_bytes(Encoding.DER), content_type=wire.CRL_TYPE)

    async def whoami(self, request: web.Request) -> web.Response:
        """The node whose certificate was shown: the handshake that proves a new pair good."""
        peer = _peer(request)
        if peer is None:
            raise NoCertificate("no certificate was shown")
        return web.json_response({"node": await self._run(self._admission.current, peer)})

    async def _run(self, work: Callable[..., _T], *values: object) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, work, *values)


def _base64(body: bytes, kind: str) -> web.Response:
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: kind, **wire.TRANSFER})


def _peer(request: web.Request) -> bytes | None:
    """The DER of the client's certificate, which the handshake has checked against the root."""
    tls = request.transport and request.transport.get_extra_info("ssl_object")
    return tls.getpeercert(binary_form=True) if tls else None


class EstServer:
    """The service on an address, over TLS only (RFC 7030, 3.3)."""

    def __init__(self, admission: Admission, host: str, port: int, names: Sequence[str]) -> None:
        """`names`: DNS names and addresses under which nodes reach it."""
        self._authority: Authority = admission.authority
        self._names = names
        self._runner = web.AppRunner(est_app(admission), access_log=None, shutdown_timeout=5.0)
        self._host, self._wanted = host, port
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.verify_mode = ssl.CERT_OPTIONAL  # a node's first request has none
        self._keeper: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises CannotListen, OSError."""
        self._tls.load_verify_locations(str(self._authority.folder / "root.pem"))
        self._load()
        left = valid_until(self._authority.issuing.certificate) - self._authority.clock()
        if left < _SHORT_SECONDS:
            LOGGER.warning(
                "the issuing certificate ends in %.0f days: `tepi provision init-ca --extend`",
                left / 86400,
            )
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._host, self._wanted, ssl_context=self._tls)
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise CannotListen(
                f"cannot listen: {error.strerror or error}", "give another --listen; port 0 is free"
            ) from None
        self.port = self._runner.addresses[0][1]
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Answers under way have 5 seconds."""
        if self._keeper is not None:
            self._keeper.cancel()
        await self._runner.cleanup()

    def _load(self) -> None:
        """Take the service's certificate, renewed where it is due; new connections get it."""
        chain, key = self._authority.server_identity(self._names)
        self._tls.load_cert_chain(chain, key)

    def _forget_before(self) -> float:
        return self._authority.clock() - _REMEMBER_SECONDS

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            try:
                await asyncio.to_thread(self._load)
                await asyncio.to_thread(self._authority.ledger.prune, self._forget_before())
            except (ProvisionError, OSError) as error:
                LOGGER.error("the hourly upkeep: %s", error)

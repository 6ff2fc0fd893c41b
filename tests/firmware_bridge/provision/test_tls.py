# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS with identities, checked with openssl and with Python's own."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from firmware_bridge.provision import errors
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.node import Identity, NodeCredentials, node_credentials
from firmware_bridge.provision.tls import Peers, TlsContexts, tls_contexts
from tests.firmware_bridge.provision.running import FakeClock


def node(rules: Admission, folder: Path, name: str) -> NodeCredentials:
    """The same name again is a renewal."""
    identity = Identity(folder / name)
    with identity.changing():
        pending = identity.prepare(name)
        made = rules.sign(pending.request)
        chain = [made, rules.authority.issuing.certificate]
        identity.stage(pending, chain, rules.authority.root)
        identity.switch(made)
    return identity.credentials()


def openssl(*words: object, **more: Any) -> str:
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, timeout=20, **more
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_openssl_finds_the_certificate_in_order(rules: Admission, tmp_path: Path) -> None:
    held = node(rules, tmp_path, "node-1")
    for purpose in ("sslserver", "sslclient"):
        openssl(
            "verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", "node-1",
            "-CAfile", held.ca_path, "-untrusted", held.cert_path, held.cert_path,
        )  # fmt: skip
    text = openssl("x509", "-in", held.cert_path, "-noout", "-text")
    for wanted in (
        "URI:urn:tepi:node:node-1, DNS:node-1",
        "X509v3 Key Usage: critical\n                Digital Signature",
        "TLS Web Client Authentication, TLS Web Server Authentication",
        "NIST CURVE: P-256",
        "CA:FALSE",
        "ecdsa-with-SHA256",
    ):
        assert wanted in text
    day = 86400
    openssl("x509", "-in", held.cert_path, "-noout", "-checkend", 7 * day - 60)
    ended = subprocess.run(
        ["openssl", "x509", "-in", held.cert_path, "-noout", "-checkend", str(7 * day + 60)],
        capture_output=True,
    )
    assert ended.returncode == 1


def test_openssl_rejects_a_denied_certificate(rules: Admission, tmp_path: Path) -> None:
    held = node(rules, tmp_path, "node-1")

    def verify() -> subprocess.CompletedProcess[str]:
        (tmp_path / "crl").write_bytes(rules.authority.crl().public_bytes(forms.PEM))
        return subprocess.run(
            ["openssl", "verify", "-crl_check", "-CRLfile", tmp_path / "crl", "-CAfile",
             held.ca_path, "-untrusted", held.cert_path, held.cert_path],
            capture_output=True, text=True,
        )  # fmt: skip

    assert verify().returncode == 0
    rules.deny("node", "node-1", "stolen")
    assert "certificate revoked" in verify().stderr


def test_openssl_as_client_and_our_server(
    rules: Admission, tmp_path: Path, clock: FakeClock
) -> None:
    server, client = node(rules, tmp_path, "server"), node(rules, tmp_path, "client")
    with listening(tls_contexts(tmp_path / "server", clock)) as port:
        shown = openssl(
            "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", server.ca_path, "-cert",
            client.cert_path, "-cert_chain", client.cert_path, "-key", client.key_path,
            "-verify_return_error", "-verify_hostname", "server", "-ign_eof", input="",
        )  # fmt: skip
    assert "Verify return code: 0 (ok)" in shown and "hello client" in shown


def test_openssl_as_server_and_our_client(
    rules: Admission, tmp_path: Path, clock: FakeClock
) -> None:
    server = node(rules, tmp_path, "server")
    node(rules, tmp_path, "client")
    with subprocess.Popen(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-cert",
         server.cert_path, "-cert_chain", server.cert_path, "-key", server.key_path, "-CAfile",
         server.ca_path, "-Verify", "2", "-verify_return_error", "-rev"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = next(each for each in process.stdout if each.startswith("ACCEPT"))
            port = int(line.rpartition(":")[2])
            context = tls_contexts(tmp_path / "client", clock).client()
            with (
                socket.create_connection(("127.0.0.1", port), 10) as plain,
                context.wrap_socket(plain, server_hostname="server") as tls,
            ):
                tls.sendall(b"tepi\n")
                assert tls.recv(100) == b"ipet\n"
        finally:
            process.kill()


@contextmanager
def listening(contexts: TlsContexts) -> Iterator[int]:
    """A server with one context for its whole life; greets each client by its name."""
    context = contexts.server()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with plain:
                    plain.settimeout(10)
                    try:
                        with context.wrap_socket(plain, server_side=True) as tls:
                            shown = tls.getpeercert(binary_form=True)
                            assert shown is not None
                            name = forms.node_of(x509.load_der_x509_certificate(shown))
                            tls.sendall(f"hello {name}\n".encode())
                            tls.unwrap()
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def greeted(port: int, context: ssl.SSLContext) -> tuple[bytes, int]:
    """What the server says, and its certificate's serial number. Raises OSError."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="server") as tls,
    ):
        said = tls.recv(100)
        shown = tls.getpeercert(binary_form=True)
        assert shown is not None
        return said, x509.load_der_x509_certificate(shown).serial_number


def test_a_server_that_lives_long_follows_renewals_and_denials(
    rules: Admission, tmp_path: Path, clock: FakeClock
) -> None:
    node(rules, tmp_path, "server")
    node(rules, tmp_path, "client")
    clients = tls_contexts(tmp_path / "client", clock)
    with listening(tls_contexts(tmp_path / "server", clock)) as port:
        said, first = greeted(port, clients.client())
        assert said == b"hello client\n"
        node(rules, tmp_path, "server")
        said, second = greeted(port, clients.client())
        assert said == b"hello client\n" and second != first
        rules.deny("node", "client", "stolen")
        assert Identity(tmp_path / "server").set_crl(rules.authority.crl())
        with pytest.raises(OSError, match=r"(?i)revoked"):
            greeted(port, clients.client())
        rules.lift("node", "client")
        clock.now += 1
        assert Identity(tmp_path / "server").set_crl(rules.authority.crl())
        assert greeted(port, clients.client())[0] == b"hello client\n"


async def test_asyncio_servers_follow_as_well(
    rules: Admission, tmp_path: Path, clock: FakeClock
) -> None:
    node(rules, tmp_path, "server")
    node(rules, tmp_path, "client")
    clients = tls_contexts(tmp_path / "client", clock).client()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    context = tls_contexts(tmp_path / "server", clock).server()
    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = running.sockets[0].getsockname()[1]

    async def serial() -> int:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=clients, server_hostname="server"
        )
        writer.write(b"tepi\n")
        assert await reader.read() == b"tepi\n"
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        return x509.load_der_x509_certificate(shown).serial_number

    async with running:
        first = await serial()
        node(rules, tmp_path, "server")
        assert await serial() != first


def test_a_list_that_is_over_does_not_stop_a_node(
    rules: Admission, tmp_path: Path, clock: FakeClock
) -> None:
    node(rules, tmp_path, "server")
    node(rules, tmp_path, "client")
    ca, now = rules.authority, clock.now
    old = forms.make_crl(ca.issuing, [], (now - 200, now - 100))
    assert Identity(tmp_path / "server").set_crl(old)
    with listening(tls_contexts(tmp_path / "server", clock)) as port:
        assert greeted(port, tls_contexts(tmp_path / "client", clock).client())[0]


def test_strangers(rules: Admission, tmp_path: Path, clock: FakeClock) -> None:
    """No certificate, and one of another authority."""
    node(rules, tmp_path, "server")
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    key = forms.new_key()
    own = forms.make_authority(key, forms.common_name("node-1"), None, (0.0, 2**32))
    (tmp_path / "own.pem").write_bytes(forms.pem_of(own) + forms.key_pem(key))
    with listening(tls_contexts(tmp_path / "server", clock)) as port:
        with pytest.raises(OSError):
            greeted(port, nobody)
        nobody.load_cert_chain(tmp_path / "own.pem")
        with pytest.raises(OSError):
            greeted(port, nobody)
    with pytest.raises(errors.NoIdentity):
        tls_contexts(tmp_path / "nowhere", clock)


def test_grpc_takes_the_same_files(rules: Admission, tmp_path: Path) -> None:
    """Mutual TLS of gRPC, and who calls: a denied node is told so."""
    server, client = node(rules, tmp_path, "server"), node(rules, tmp_path, "client")
    peers = Peers(tmp_path / "server")

    def who(_request: bytes, context: grpc.ServicerContext) -> bytes:
        (shown,) = context.auth_context()["x509_pem_cert"]
        try:
            return peers.node(shown).encode()
        except errors.Denied as error:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
            raise

    handler = grpc.method_handlers_generic_handler(
        "Test", {"Who": grpc.unary_unary_rpc_method_handler(who)}
    )
    running = grpc.server(futures.ThreadPoolExecutor(1), handlers=[handler])
    port = running.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials(
            [(server.key_path.read_bytes(), server.cert_path.read_bytes())],
            server.ca_path.read_bytes(),
            require_client_auth=True,
        ),
    )
    running.start()
    trusted = grpc.ssl_channel_credentials(
        client.ca_path.read_bytes(), client.key_path.read_bytes(), client.cert_path.read_bytes()
    )
    name = [("grpc.ssl_target_name_override", "server")]
    try:
        with grpc.secure_channel(f"127.0.0.1:{port}", trusted, name) as channel:
            call = channel.unary_unary("/Test/Who")
            assert call(b"", timeout=10) == b"client"
            rules.deny("node", "client", "stolen")
            Identity(tmp_path / "server").set_crl(rules.authority.crl())
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=10)
            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    finally:
        running.stop(None).wait()


def test_who_a_peer_is(rules: Admission, tmp_path: Path) -> None:
    held = node_credentials(node(rules, tmp_path, "node-1").crl_path.parent)
    peers = Peers(tmp_path / "node-1")
    assert peers.node(held.cert_path.read_bytes()) == "node-1"
    for wrong in (b"", forms.der_of(rules.authority.root)):
        with pytest.raises(errors.WrongCertificate):
            peers.node(wrong)

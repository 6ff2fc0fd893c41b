# SPDX-License-Identifier: Apache-2.0
"""TLS: an authority of one's own, a stranger's certificate, certificates of clients, and ways that
would lead off it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.remote import errors
from registry.remote.client import Remote
from registry.remote.credentials import Credentials
from tests.registry.remote.certificates import Identity, identity
from tests.registry.remote.scripted_server import Answer, scripted

DATA = b"x" * 100_000
DIGEST = digest_of(DATA)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """What the registry shows."""
    return identity(tmp_path_factory.mktemp("mine"))


def context(mine: Identity, clients: Path | None = None) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(mine.certificate_file, mine.key_file)
    if clients is not None:
        found.verify_mode = ssl.CERT_REQUIRED
        found.load_verify_locations(clients)
    return found


def test_an_authority_of_ones_own(mine: Identity) -> None:
    with (
        scripted(lambda _asked: Answer(200, DATA), context(mine)) as server,
        Remote(server.address, ca=mine.certificate_file) as remote,
    ):
        assert remote.base == f"https://{server.address}"
        assert remote.read_blob("a", DIGEST, 1 << 20) == DATA


def test_a_strangers_certificate_is_refused_and_names_the_option(
    mine: Identity, tmp_path: Path
) -> None:
    other = identity(tmp_path, "other")
    with scripted(lambda _asked: Answer(200, DATA), context(mine)) as server:
        for ca in (None, other.certificate_file):
            with Remote(f"https://{server.address}", ca=ca) as remote:
                with pytest.raises(errors.Untrusted, match="TLS failed") as caught:
                    remote.ping()
                assert "--ca-file" in caught.value.remedy
    assert server.asked == []


def test_a_certificate_of_the_client(mine: Identity, tmp_path: Path) -> None:
    client = identity(tmp_path, "client")
    pair = (client.certificate_file, client.key_file)
    tls = context(mine, client.certificate_file)
    with (
        scripted(lambda _asked: Answer(200, DATA), tls) as server,
        Remote(server.address, ca=mine.certificate_file, client_certificate=pair) as remote,
    ):
        assert remote.read_blob("a", DIGEST, 1 << 20) == DATA


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    with pytest.raises(errors.Untrusted, match=str(bad)):
        Remote("reg.example", ca=bad)


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_off_tls_is_refused(mine: Identity, status: int) -> None:
    away = Answer(status, b"", {"Location": "http://127.0.0.1:9/blob"})
    with (
        scripted(lambda _asked: away, context(mine)) as server,
        Remote(server.address, ca=mine.certificate_file) as remote,
        pytest.raises(errors.Untrusted, match="away from TLS") as caught,
    ):
        remote.open_blob("a", DIGEST)
    assert "X-Forwarded-Proto" in caught.value.remedy


def test_a_token_server_off_tls_gets_no_password(mine: Identity) -> None:
    with scripted(lambda _asked: Answer(200, b'{"token":"x"}')) as thief:
        ask = Answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{thief.address}/"'})
        with scripted(lambda _asked: ask, context(mine)) as server:
            me = Credentials("me", "secret")
            with (
                Remote(server.address, me, ca=mine.certificate_file) as remote,
                pytest.raises(errors.Untrusted, match="token server"),
            ):
                remote.ping()
        assert thief.asked == []

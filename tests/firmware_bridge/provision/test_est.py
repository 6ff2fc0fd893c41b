# SPDX-License-Identifier: Apache-2.0
"""The service and its client over TLS: RFC 7030's shapes, named refusals, nothing lost."""

from __future__ import annotations

import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from firmware_bridge.provision import client as client_module
from firmware_bridge.provision import errors, est, wire
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.attestation import Attestation
from firmware_bridge.provision.authority import DAY
from firmware_bridge.provision.client import EstClient, Pair, bootstrap
from firmware_bridge.provision.errors import ProvisionError
from firmware_bridge.provision.lockout import TRIES
from tests.firmware_bridge.provision.cards import Card, Vendor
from tests.firmware_bridge.provision.running import FakeClock, Service, authority, no_pause, service

HOUR = 3600.0
NODES, THREADS = 1000, 4


@pytest.fixture
def served(rules: Admission) -> Iterator[Service]:
    with service(rules) as running:
        yield running


def pair(folder: Path, key: bytes, certificate: x509.Certificate, served: Service) -> Pair:
    """Files for a client's handshake."""
    found = Pair(folder / "cert.pem", folder / "key.pem")
    found.chain.write_bytes(forms.pem_of(certificate, served.authority.issuing.certificate))
    found.key.write_bytes(key)
    return found


def test_enrolment_and_renewal(served: Service, rules: Admission, tmp_path: Path) -> None:
    token, key = rules.new_token("node-1", None, HOUR), forms.new_key()
    with served.client() as est_client:
        assert est_client.cacerts() == served.authority.chain
        made = est_client.enroll(forms.make_request(key, "node-1"), token.secret)
    shown = pair(tmp_path, forms.key_pem(key), made, served)
    with served.client(pair=shown) as est_client:
        assert est_client.whoami() == "node-1"
        new = est_client.reenroll(forms.make_request(forms.new_key(), "node-1"))
        assert forms.node_of(new) == "node-1" and new != made
        rules.deny("certificate", forms.serial_text(made), "")
        assert [each.serial_number for each in est_client.crl()] == [made.serial_number]
        with pytest.raises(errors.Denied):
            est_client.whoami()
    with served.client() as est_client, pytest.raises(errors.NoCertificate):
        est_client.reenroll(forms.make_request(key, "node-1"))


def test_a_card_vouches(served: Service, rules: Admission, vendor: Vendor) -> None:
    rules.allow([("TC0001", None)])
    card, key = Card(vendor, "TC0001"), forms.new_key()
    spki = forms.digest(forms.spki_of(key.public_key()))
    with served.client() as est_client:
        nonce = est_client.nonce()
        attestation = Attestation(nonce, *card.attest(nonce, spki))
        assert est_client.enroll(forms.make_request(key, "node-1"), None, attestation)
        other = forms.make_request(forms.new_key(), "node-1")
        with pytest.raises(errors.ForgedAttestation):
            est_client.enroll(other, None, attestation)


def test_shapes_of_rfc_7030(served: Service, rules: Admission, tmp_path: Path) -> None:
    """As another EST client sees them: types, base64, PKCS#7 that openssl reads."""
    context = ssl.create_default_context(cadata=served.root.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with urllib.request.urlopen(served.url + wire.CACERTS, context=context) as answer:
        assert answer.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
        assert answer.headers["Content-Transfer-Encoding"] == "base64"
        body = answer.read()
    (tmp_path / "p7").write_bytes(b64decode(body))
    shown = subprocess.run(
        ["openssl", "pkcs7", "-inform", "DER", "-in", tmp_path / "p7", "-print_certs", "-noout"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.count("subject=") == 2
    with urllib.request.urlopen(served.url + wire.CSRATTRS, context=context) as answer:
        (tmp_path / "attributes").write_bytes(b64decode(answer.read()))
    parsed = subprocess.run(
        ["openssl", "asn1parse", "-inform", "DER", "-in", tmp_path / "attributes"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "id-ecPublicKey" in parsed and "prime256v1" in parsed and "ecdsa-with-SHA256" in parsed
    secret = rules.new_token("node-1", None, HOUR).secret
    headers = {"Content-Type": wire.PKCS10, "Authorization": f"Bearer {secret}"}
    data = wire.encode_request(forms.make_request(forms.new_key(), "node-1"))
    asked = urllib.request.Request(served.url + wire.ENROLL, data, headers)
    with urllib.request.urlopen(asked, context=context) as answer:
        assert len(wire.decode_certificates(answer.read())) == 1  # 4.2.3
    asked = urllib.request.Request(served.url + wire.ENROLL, data)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, context=context)
    assert refused.value.code == 401 and "Basic" in refused.value.headers["WWW-Authenticate"]
    assert "nothing vouches for node node-1" in refused.value.read().decode()
    refused.value.close()


def test_many_wrong_tokens_lock_an_address_out(
    served: Service, rules: Admission, clock: FakeClock
) -> None:
    token = rules.new_token("node-1", None, HOUR)
    wanted = forms.make_request(forms.new_key(), "node-1")
    with served.client() as est_client:
        for _ in range(TRIES):
            with pytest.raises(errors.BadToken):
                est_client.enroll(wanted, "guess")
        with pytest.raises(errors.LockedOut):
            est_client.enroll(wanted, token.secret)
        clock.now += 61
        assert est_client.enroll(wanted, token.secret)


def test_hostile_bodies_and_headers(served: Service, rules: Admission) -> None:
    token = rules.new_token("node-1", None, HOUR)
    with served.client() as est_client:
        with pytest.raises(errors.BadRequest):
            est_client.enroll(b"\0" * 20000, token.secret)
        with pytest.raises(errors.ForgedAttestation):
            est_client.enroll(b"", token.secret, Attestation(b"", b"\0" * 5000, b""))
        with pytest.raises(errors.BadAnswer, match="413"):
            est_client.enroll(b"\0" * 100000, token.secret)
        with pytest.raises(errors.BadRequest):
            est_client._ask("POST", wire.ENROLL, b"*not base64*")


@pytest.mark.parametrize("apart", [-400.0, 400.0, 86400.0 * 365])
def test_clock_skew(served: Service, clock: FakeClock, apart: float) -> None:
    skewed = served.client(FakeClock(clock.now + apart))
    with skewed as est_client, pytest.raises(errors.ClockSkew) as caught:
        est_client.cacerts()
    text = str(caught.value)
    assert forms.when(clock.now + apart) in text and forms.when(int(clock.now)) in text


@pytest.mark.parametrize(("apart", "words"), [(10 * DAY, "has not begun"), (-40 * DAY, "is over")])
def test_clock_skew_that_keeps_tls_from_starting(tmp_path: Path, apart: float, words: str) -> None:
    """The authority lives ten days from now, or forty days ago: its certificate is out of time
    here."""
    clock = FakeClock()
    clock.now += apart
    with (
        authority(tmp_path, clock) as made,
        service(Admission(made)) as running,
        running.client(FakeClock()) as est_client,
        pytest.raises(errors.ClockSkew) as caught,
    ):
        est_client.cacerts()
    text = str(caught.value)
    assert words in text and text.count("UTC") == 3


def test_an_imposter_in_the_authoritys_place(served: Service, tmp_path: Path) -> None:
    with authority(tmp_path / "other") as other:
        theirs = other.root
    stranger = EstClient(served.url, forms.pem_of(theirs), served.authority.clock, None, no_pause)
    with stranger, pytest.raises(errors.Untrusted):
        stranger.cacerts()
    right = forms.digest(forms.der_of(served.authority.root))
    assert bootstrap(served.url, right, no_pause) == served.root
    with pytest.raises(errors.Untrusted):
        bootstrap(served.url, forms.digest(forms.der_of(theirs)), no_pause)


def test_nobody_answers() -> None:
    with pytest.raises(errors.Unreachable):
        bootstrap("https://127.0.0.1:1", b"", no_pause)
    with pytest.raises(errors.Untrusted, match="not https"):
        client_module.check_url("http://ca.example")


def test_a_thousand_enrolments_and_renewals_with_lost_answers(
    rules: Admission, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every seventh answer is lost behind the authority's commit: the line breaks, the node asks
    again. In the end each node has one enrolment and one renewal, and each token was used once."""
    dropped = Counter[str]()
    count = iter(range(10**9))
    product = est.est_app

    @web.middleware
    async def lossy(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        response = await handler(request)
        if request.method == "POST" and next(count) % 7 == 0 and request.transport is not None:
            dropped[request.path] += 1
            request.transport.abort()
        return response

    def with_loss(admission: Admission) -> web.Application:
        app = product(admission)
        app.middlewares.insert(0, lossy)
        return app

    monkeypatch.setattr(est, "est_app", with_loss)
    tokens = [rules.new_token(f"node-{n}", None, HOUR) for n in range(NODES)]
    made: dict[str, tuple[x509.Certificate, x509.Certificate]] = {}
    failed: list[ProvisionError] = []

    def live(served: Service, numbers: range, folder: Path) -> None:
        folder.mkdir()
        with served.client() as unknown:
            for number in numbers:
                node, key = f"node-{number}", forms.new_key()
                wanted = forms.make_request(key, node)
                try:
                    first = unknown.enroll(wanted, tokens[number].secret)
                    shown = pair(folder, forms.key_pem(key), first, served)
                    with served.client(pair=shown) as known:
                        second = known.reenroll(forms.make_request(forms.new_key(), node))
                    made[node] = (first, second)
                except ProvisionError as error:
                    failed.append(error)

    with service(rules) as served:
        threads = [
            threading.Thread(
                target=live, args=(served, range(n, NODES, THREADS), tmp_path / f"thread-{n}")
            )
            for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    assert min(dropped[wire.ENROLL], dropped[wire.REENROLL]) > 100
    rows = rules.authority.ledger.rows("SELECT node, how, serial FROM certificates")
    assert Counter(row["how"] for row in rows) == {"token": NODES, "renewal": NODES}
    given = {forms.serial_text(each) for both in made.values() for each in both}
    assert given == {row["serial"] for row in rows} and len(given) == 2 * NODES
    (used,) = rules.authority.ledger.rows("SELECT count(*) FROM tokens WHERE used IS NOT NULL")
    assert used[0] == NODES

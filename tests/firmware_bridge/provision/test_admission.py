# SPDX-License-Identifier: Apache-2.0
"""Who gets a certificate; failures are named after what an attacker or an accident does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from firmware_bridge.provision import errors
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.attestation import Attestation
from firmware_bridge.provision.authority import DAY, Authority
from firmware_bridge.provision.errors import ProvisionError
from tests.firmware_bridge.provision.cards import Card, Vendor
from tests.firmware_bridge.provision.running import FakeClock

HOUR = 3600.0


def request(node: str = "node-1", key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    return forms.make_request(key or forms.new_key(), node)


def vouched(
    rules: Admission,
    card: Card,
    node: str = "node-1",
    key: ec.EllipticCurvePrivateKey | None = None,
) -> tuple[bytes, Attestation]:
    """A request, and what the card says of its key."""
    key = key or forms.new_key()
    nonce = rules.authority.nonce()
    spki = forms.digest(forms.spki_of(key.public_key()))
    return forms.make_request(key, node), Attestation(nonce, *card.attest(nonce, spki))


def enrolled(rules: Admission, node: str = "node-1") -> x509.Certificate:
    token = rules.new_token(node, None, HOUR)
    return rules.enroll(request(node), token.secret, None)


def refusal(kind: type[ProvisionError], call: Callable[[], Any]) -> str:
    """The message; each refusal says what to do."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


def test_a_token_gives_a_certificate_for_seven_days(rules: Admission, clock: FakeClock) -> None:
    token = rules.new_token("node-1", None, HOUR, ["10.0.0.7", "node-1.example"])
    made = rules.enroll(request(), token.secret, None)
    assert forms.node_of(made) == "node-1"
    assert forms.valid_from(made) == int(clock.now - 300)
    assert forms.valid_until(made) == int(clock.now + 7 * DAY)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [
        "urn:tepi:node:node-1", "node-1", "10.0.0.7", "node-1.example"
    ]  # fmt: skip


def test_an_answer_that_was_lost_is_given_again(rules: Admission) -> None:
    token, wanted = rules.new_token("node-1", None, HOUR), request()
    first = rules.enroll(wanted, token.secret, None)
    assert rules.enroll(wanted, token.secret, None) == first


def test_reused_token(rules: Admission) -> None:
    token = rules.new_token("node-1", None, HOUR)
    rules.enroll(request(), token.secret, None)
    text = refusal(errors.ReusedToken, lambda: rules.enroll(request(), token.secret, None))
    assert "by node node-1" in text


def test_a_token_raced_by_many_keys_gives_one_certificate(rules: Admission) -> None:
    token = rules.new_token("node-1", None, HOUR)
    wanted = [request() for _ in range(8)]
    got: list[x509.Certificate | ProvisionError] = []

    def ask(data: bytes) -> None:
        try:
            got.append(rules.enroll(data, token.secret, None))
        except ProvisionError as error:
            got.append(error)

    threads = [threading.Thread(target=ask, args=(data,)) for data in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([each for each in got if isinstance(each, x509.Certificate)]) == 1
    assert len([each for each in got if isinstance(each, errors.ReusedToken)]) == 7


def test_a_crash_before_the_answer_loses_neither_token_nor_certificate(
    ca: Authority, rules: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The use of a token and its certificate are one transaction: after a fault between the two the
    token is unused, after a fault behind it the same key gets the same certificate."""
    token, wanted = rules.new_token("node-1", None, HOUR), request()

    def crash(_certificate: x509.Certificate) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forms, "serial_text", crash)
        with pytest.raises(KeyboardInterrupt):
            rules.enroll(wanted, token.secret, None)
    assert not ca.ledger.rows("SELECT * FROM certificates")
    made = rules.enroll(wanted, token.secret, None)
    with Authority(ca.folder, ca.clock) as again:
        assert Admission(again).enroll(wanted, token.secret, None) == made


def test_expired_token(rules: Admission, clock: FakeClock) -> None:
    token = rules.new_token("node-1", None, HOUR)
    clock.now += HOUR
    text = refusal(errors.ExpiredToken, lambda: rules.enroll(request(), token.secret, None))
    assert text.count("UTC") == 2


def test_invented_token(rules: Admission) -> None:
    refusal(errors.BadToken, lambda: rules.enroll(request(), "x" * 43, None))


def test_token_of_another_node(rules: Admission) -> None:
    token = rules.new_token("node-2", None, HOUR)
    refusal(errors.TokenForAnother, lambda: rules.enroll(request(), token.secret, None))


def test_no_token_and_no_card(rules: Admission) -> None:
    refusal(errors.MissingToken, lambda: rules.enroll(request(), None, None))


def test_the_ledger_holds_no_token(ca: Authority, rules: Admission) -> None:
    token = rules.new_token("node-1", None, HOUR)
    files = b"".join(path.read_bytes() for path in ca.folder.glob("authority.db*"))
    assert token.secret.encode() not in files


def test_a_card_on_the_list_is_enough(rules: Admission, vendor: Vendor) -> None:
    card = Card(vendor, "TC0001")
    rules.allow([("TC0001", None)])
    key = forms.new_key()
    made = rules.enroll(vouched(rules, card, key=key)[0], None, vouched(rules, card, key=key)[1])
    assert forms.node_of(made) == "node-1"
    rules.enroll(*_swap(vouched(rules, card)))  # the same card, the same node, a new key
    text = refusal(errors.NodeTaken, lambda: rules.enroll(*_swap(vouched(rules, card, "node-2"))))
    assert "belongs to node node-1" in text


def _swap(pair: tuple[bytes, Attestation]) -> tuple[bytes, None, Attestation]:
    return pair[0], None, pair[1]


def test_serial_not_on_the_list(rules: Admission, vendor: Vendor) -> None:
    call = _swap(vouched(rules, Card(vendor, "TC0009")))
    assert "TC0009" in refusal(errors.CardNotListed, lambda: rules.enroll(*call))


def test_a_listed_card_cannot_take_the_name_of_another_node(
    rules: Admission, vendor: Vendor
) -> None:
    enrolled(rules, "node-1")
    rules.allow([("TC0002", None)])
    call = _swap(vouched(rules, Card(vendor, "TC0002"), "node-1"))
    refusal(errors.NodeTaken, lambda: rules.enroll(*call))


def test_token_of_a_card(rules: Admission, vendor: Vendor) -> None:
    token = rules.new_token(None, "TC0003", HOUR)
    rules.allow([("TC0004", None)])
    refusal(errors.MissingAttestation, lambda: rules.enroll(request(), token.secret, None))
    data, other = vouched(rules, Card(vendor, "TC0004"))
    refusal(errors.TokenForAnother, lambda: rules.enroll(data, token.secret, other))
    data, own = vouched(rules, Card(vendor, "TC0003"))
    assert rules.enroll(data, token.secret, own)


def test_a_service_that_requires_cards(ca: Authority) -> None:
    rules = Admission(ca, require_card=True)
    token = rules.new_token("node-1", None, HOUR)
    refusal(errors.MissingAttestation, lambda: rules.enroll(request(), token.secret, None))


def test_forged_attestation(rules: Admission, vendor: Vendor) -> None:
    """A wrong key, a wrong nonce, a wrong node's key, another vendor, damaged bytes."""
    card = Card(vendor, "TC0001")
    rules.allow([("TC0001", None)])
    data, good = vouched(rules, card)
    imposter = Card(vendor, "TC0001")
    nonce = rules.authority.nonce()
    spki = forms.read_request(data).spki
    forged = {
        "wrong key": replace(good, signature=imposter.attest(good.nonce, spki)[0]),
        "wrong nonce": replace(good, nonce=nonce),
        "another node's key": vouched(rules, card)[1],
        "another vendor": Attestation(nonce, *Card(Vendor("vendor"), "TC0001").attest(nonce, spki)),
        "no signature": replace(good, signature=b""),
        "no certificate": replace(good, certificate=b"\0"),
        "the vendor's own certificate": replace(
            good, certificate=forms.der_of(vendor.signer.certificate)
        ),
    }
    for name, attestation in forged.items():
        with pytest.raises(errors.ForgedAttestation):
            rules.enroll(data, None, attestation)
            pytest.fail(f"taken: {name}")
    assert rules.enroll(data, None, good)


def test_stale_nonce(rules: Admission, clock: FakeClock, vendor: Vendor) -> None:
    rules.allow([("TC0001", None)])
    data, good = vouched(rules, Card(vendor, "TC0001"))
    clock.now += 301
    refusal(errors.StaleNonce, lambda: rules.enroll(data, None, good))
    invented = replace(good, nonce=b"n" * 40)
    refusal(errors.StaleNonce, lambda: rules.enroll(data, None, invented))


@pytest.mark.parametrize("kind", ["node", "card", "certificate"])
def test_denied(rules: Admission, vendor: Vendor, kind: str) -> None:
    rules.allow([("TC0001", None)])
    card = Card(vendor, "TC0001")
    made = rules.enroll(*_swap(vouched(rules, card)))
    value = {"node": "node-1", "card": "TC0001", "certificate": forms.serial_text(made)}[kind]
    rules.deny(kind, value, "stolen")
    renewal = request()
    text = refusal(errors.Denied, lambda: rules.renew(renewal, forms.der_of(made)))
    assert "stolen" in text
    if kind != "certificate":
        refusal(errors.Denied, lambda: rules.enroll(*_swap(vouched(rules, card))))
    assert [each.serial_number for each in rules.authority.crl()] == [made.serial_number]
    assert rules.lift(kind, value)
    assert rules.renew(renewal, forms.der_of(made))
    assert not list(rules.authority.crl())


def test_renewal_to_a_new_key_and_a_lost_answer(rules: Admission, clock: FakeClock) -> None:
    old, wanted = enrolled(rules), request()
    clock.now += 5 * DAY
    new = rules.renew(wanted, forms.der_of(old))
    assert forms.valid_until(new) == int(clock.now + 7 * DAY)
    assert rules.renew(wanted, forms.der_of(old)) == new
    assert rules.renew(request(), forms.der_of(new)) != new


def test_renewal_as_another_node(rules: Admission) -> None:
    old = forms.der_of(enrolled(rules))
    refusal(errors.IdentityChanged, lambda: rules.renew(request("node-2"), old))


def test_renewal_with_a_certificate_that_was_never_given(rules: Admission, ca: Authority) -> None:
    wanted = forms.read_request(request())
    rogue = ca.certificate(wanted, (), ca.clock())  # signed, and not in the ledger
    refusal(errors.NoCertificate, lambda: rules.renew(request(), forms.der_of(rogue)))
    refusal(errors.NoCertificate, lambda: rules.renew(request(), None))


def test_renewal_out_of_time(rules: Admission, clock: FakeClock) -> None:
    old, start = forms.der_of(enrolled(rules)), clock.now
    clock.now = start + 7 * DAY + 1
    assert "UTC" in refusal(errors.OutOfTime, lambda: rules.renew(request(), old))
    clock.now = start - 600  # the authority's clock was set back
    refusal(errors.OutOfTime, lambda: rules.renew(request(), old))


def test_no_certificate_outlives_its_authority(rules: Admission, clock: FakeClock) -> None:
    ends = forms.valid_until(rules.authority.issuing.certificate)
    clock.now = ends - DAY
    assert forms.valid_until(enrolled(rules)) == ends
    clock.now = ends
    refusal(errors.Unavailable, lambda: enrolled(rules))


def test_bad_requests(rules: Admission) -> None:
    token = rules.new_token("node-1", None, HOUR)
    name = forms.common_name("node-1")
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    big = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = request()
    bad = {
        "nothing": b"",
        "no request": b"\x30\x03\x02\x01\x01",
        "too large": b"\0" * (forms.MAX_REQUEST + 1),
        "a signature of another key": good[:-1] + bytes([good[-1] ^ 1]),
        "RSA": builder.sign(big, hashes.SHA256()).public_bytes(forms.DER),
        "P-384": builder.sign(
            ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()
        ).public_bytes(forms.DER),
        "a name with a slash": x509.CertificateSigningRequestBuilder()
        .subject_name(forms.common_name("../root"))
        .sign(forms.new_key(), hashes.SHA256())
        .public_bytes(forms.DER),
    }
    for what, data in bad.items():
        with pytest.raises(errors.BadRequest):
            rules.enroll(data, token.secret, None)
            pytest.fail(f"taken: {what}")
    assert rules.enroll(good, token.secret, None)


def test_damaged_requests_are_refused_by_name(rules: Admission) -> None:
    good = request()
    token = rules.new_token("node-1", None, HOUR)
    for position in range(len(good)):
        damaged = good[:position] + bytes([good[position] ^ 0x41]) + good[position + 1 :]
        with pytest.raises(ProvisionError):
            rules.enroll(damaged, token.secret, None)


def test_the_ledger_forgets_what_ended_long_ago_and_nothing_else(
    rules: Admission, clock: FakeClock
) -> None:
    token = rules.new_token("node-1", None, 365 * DAY)
    old = rules.enroll(request(), token.secret, None)
    clock.now += 6 * DAY
    new = rules.renew(request(), forms.der_of(old))
    clock.now += 100 * DAY
    assert rules.authority.ledger.prune(clock.now - 90 * DAY) == 1
    rows = rules.authority.ledger.rows("SELECT serial FROM certificates")
    assert [row["serial"] for row in rows] == [forms.serial_text(new)]
    refusal(errors.BadToken, lambda: rules.enroll(request(), token.secret, None))

# SPDX-License-Identifier: Apache-2.0
"""Enrolment and renewal of a node against a running authority, and when they happen."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.provision import errors
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.authority import DAY
from firmware_bridge.provision.client import EstClient
from firmware_bridge.provision.errors import ProvisionError
from firmware_bridge.provision.node import Identity
from firmware_bridge.provision.renewal import Enrolment, Renewer, due_at, renew_at, retry_after
from tests.firmware_bridge.provision.cards import Card, Vendor
from tests.firmware_bridge.provision.running import FakeClock, Service, no_pause, service

HOUR = 3600.0


@pytest.fixture
def served(rules: Admission) -> Iterator[Service]:
    with service(rules) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock) -> Enrolment:
    return Enrolment(Identity(tmp_path / "identity"), clock, no_pause)


def enroll(node: Enrolment, served: Service) -> None:
    secret = served.admission.new_token("node-1", None, HOUR).secret
    node.enroll(served.url, served.root, "node-1", secret, None)


@given(st.floats(0, 4e9), st.floats(60, 1e9), st.randoms(use_true_random=False))
def test_renewal_is_due_around_two_thirds(starts: float, life: float, rng: random.Random) -> None:
    share = (renew_at(starts, starts + life, rng) - starts) / life
    assert 0.61 < share < 0.72


@given(st.integers(1, 10**6), st.randoms(use_true_random=False))
def test_tries_are_a_minute_to_an_hour_apart(failures: int, rng: random.Random) -> None:
    assert 30 <= retry_after(failures, rng) <= 3600


def test_a_card_vouches_and_the_node_renews(
    node: Enrolment, served: Service, vendor: Vendor, clock: FakeClock
) -> None:
    served.admission.allow([("TC0001", "node-1")])
    first = node.enroll(served.url, served.root, "node-1", None, Card(vendor, "TC0001"))
    assert node.identity.status().authority == served.url
    assert due_at(first) == due_at(node.identity.certificate())
    second = node.renew()
    assert second == node.identity.certificate()
    assert first.public_key() != second.public_key()
    (row,) = served.authority.ledger.rows(
        "SELECT card FROM certificates WHERE serial = ?", forms.serial_text(second)
    )
    assert row["card"] == "TC0001"


def test_an_answer_lost_and_the_node_restarted(
    node: Enrolment, served: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority has given the certificate; the node dies before it has it, and asks anew."""
    secret = served.admission.new_token("node-1", None, HOUR).secret
    product = EstClient.enroll
    given: list[object] = []

    def lost(self: EstClient, *values: object) -> None:
        given.append(product(self, *values))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EstClient, "enroll", lost)
        with pytest.raises(KeyboardInterrupt):
            node.enroll(served.url, served.root, "node-1", secret, None)
    again = Enrolment(Identity(node.identity.folder), node.clock, no_pause)
    assert [again.enroll(served.url, served.root, "node-1", secret, None)] == given


def test_the_old_pair_stays_where_the_new_one_is_refused(
    node: Enrolment, served: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(node, served)
    before = node.identity.certificate()

    def refused(_self: EstClient) -> str:
        raise errors.NoCertificate("unknown here")

    with monkeypatch.context() as patch:
        patch.setattr(EstClient, "whoami", refused)
        with pytest.raises(errors.NoCertificate):
            node.renew()
    assert node.identity.certificate() == before
    assert node.identity.pending() is None  # the next renewal makes another key
    assert node.renew() != before


def test_the_new_pair_is_taken_where_nobody_answers_to_try_it(
    node: Enrolment, served: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(node, served)

    def silent(_self: EstClient) -> str:
        raise errors.Unreachable("gone")

    monkeypatch.setattr(EstClient, "whoami", silent)
    assert node.renew() == node.identity.certificate()


def test_the_renewer_renews_when_due_and_tells(
    node: Enrolment, served: Service, clock: FakeClock
) -> None:
    enroll(node, served)
    told: list[float] = []
    renewer = Renewer(node, lambda: told.append(clock.now), random.Random(1))
    first = node.identity.certificate()
    for _ in range(200):
        clock.now += min(renewer.step(), HOUR)
        if node.identity.certificate() != first:
            break
    assert 4 * DAY < clock.now - forms.valid_from(first) < 6 * DAY
    assert node.identity.credentials().crl_path.exists() and told


def test_an_authority_that_is_away_and_comes_back(
    node: Enrolment, rules: Admission, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with service(rules) as served:
        enroll(node, served)
    first = node.identity.certificate()
    clock.now = due_at(first)
    renewer = Renewer(node, rng=random.Random(1))
    for _ in range(5):
        wait = renewer.step()
        assert 1 <= wait <= HOUR
        clock.now += wait
    assert "not renewed" in caplog.text and node.identity.certificate() == first
    with service(rules) as served:
        node.identity.set_authority(served.url)
        clock.now += HOUR
        renewer.step()
    assert node.identity.certificate() != first


def test_a_denied_node_is_not_renewed(
    node: Enrolment, served: Service, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    enroll(node, served)
    served.admission.deny("node", "node-1", "stolen")
    clock.now = due_at(node.identity.certificate())
    Renewer(node).step()
    assert "stolen" in caplog.text


@pytest.mark.parametrize("kind", [errors.OutOfTime, errors.NoIdentity])
def test_nodes_that_cannot_renew(
    node: Enrolment, served: Service, clock: FakeClock, kind: type[ProvisionError]
) -> None:
    """One whose certificate has ended, and one whose certificates are carried by hand."""
    enroll(node, served)
    if kind is errors.OutOfTime:
        clock.now += 8 * DAY
    else:
        (node.identity.folder / "authority").unlink()
    with pytest.raises(kind):
        node.renew()

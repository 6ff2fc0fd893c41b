# SPDX-License-Identifier: Apache-2.0
"""The authority's folder over its years, and what hostile bytes do to the readers of the wire."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.provision import errors, wire
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.attestation import Attestation, check_attestation
from firmware_bridge.provision.authority import DAY, Authority, extend
from firmware_bridge.provision.errors import ProvisionError
from firmware_bridge.provision.lockout import SECONDS, TRIES, Lockout
from firmware_bridge.provision.tokens import Token
from tests.firmware_bridge.provision.cards import Vendor
from tests.firmware_bridge.provision.running import FakeClock, authority


def test_extended_after_years_it_goes_on(ca: Authority, clock: FakeClock, tmp_path: Path) -> None:
    """Old and new certificates of the issuing key verify what it signs."""
    before = ca.issuing.certificate
    clock.now += 1000 * DAY
    extend(ca.folder, ca.folder / "root.key", clock)
    with Authority(ca.folder, clock) as again:
        after = again.issuing.certificate
        assert forms.valid_until(after) > forms.valid_until(before) + 900 * DAY
        made = Admission(again).sign(forms.make_request(forms.new_key(), "node-1"))
        for issuing in (before, after):
            made.verify_directly_issued_by(issuing)
            issuing.verify_directly_issued_by(again.root)
        assert again.crl().is_signature_valid(before.public_key())  # type: ignore[arg-type]
    (tmp_path / "other.key").write_bytes(forms.key_pem(forms.new_key()))
    with pytest.raises(errors.BadAuthority, match="is not the key of"):
        extend(ca.folder, tmp_path / "other.key", clock)


def test_the_services_own_certificate(ca: Authority, clock: FakeClock) -> None:
    """Kept while it is fresh and fits; made anew for other names, late, or after a torn write."""

    def serial(*names: str) -> int:
        chain, key = ca.server_identity(names)
        first = x509.load_pem_x509_certificates(chain.read_bytes())[0]
        assert first.public_key() == forms.load_key(key.read_bytes()).public_key()
        return first.serial_number

    first = serial("localhost", "127.0.0.1")
    assert serial("127.0.0.1", "localhost") == first
    second = serial("ca.example")
    clock.now += 21 * DAY
    third = serial("ca.example")
    (ca.folder / "server.key").write_bytes(forms.key_pem(forms.new_key()))
    fourth = serial("ca.example")
    assert len({first, second, third, fourth}) == 4


def test_a_creation_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    with authority(tmp_path) as made:
        folder, root = made.folder, made.root
    (folder / "issuing.key").unlink()  # the last file of a creation
    with pytest.raises(errors.BadAuthority, match="is no authority"):
        Authority(folder, FakeClock())
    with authority(tmp_path) as made:
        assert made.root != root


def test_damaged_files_are_named(ca: Authority) -> None:
    (ca.folder / "issuing.pem").write_bytes(forms.pem_of(ca.root))
    with pytest.raises(errors.BadAuthority, match="is not the key of"):
        Authority(ca.folder, ca.clock)
    (ca.folder / "issuing.pem").write_bytes(b"")
    with pytest.raises(errors.BadAuthority, match=r"issuing\.pem is damaged"):
        Authority(ca.folder, ca.clock)


def test_who_guesses_from_many_addresses_of_one_network() -> None:
    lockout = Lockout()
    for number in range(TRIES):
        lockout.failed(f"2001:db8::{number}", 0.0)
    with pytest.raises(errors.LockedOut):
        lockout.check("2001:db8::ffff", 1.0)
    lockout.check("2001:db8:0:1::1", 1.0)
    lockout.check("2001:db8::ffff", SECONDS)
    for number in range(30000):
        lockout.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(lockout._failures) == 10000


@given(st.binary(max_size=600))
def test_hostile_bytes_on_the_wire(data: bytes) -> None:
    """Nothing but named errors, whatever comes."""
    text = data.decode("latin-1")
    vendors = [VENDOR.signer.certificate]
    for read in (
        lambda: forms.read_request(data),
        lambda: wire.decode_request(data),
        lambda: wire.decode_certificates(data),
        lambda: wire.secret_of(text),
        lambda: wire.secret_of(f"Basic {text}"),
        lambda: Attestation.from_header(text),
        lambda: check_attestation(Attestation(data, data, data), data, vendors, 0.0),
        lambda: Token.read(text),
    ):
        try:
            read()
        except ProvisionError:
            continue


VENDOR = Vendor()

# SPDX-License-Identifier: Apache-2.0
"""A node's identity on its disk: killed between any two changes, it is whole."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from firmware_bridge.provision import errors
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.durable import Disk
from firmware_bridge.provision.node import Identity, node_credentials

NODE = "node-1"


class DoomedDisk(Disk):
    """Kills the process, without any warning, at its change number `fatal`; before it, or when
    half of a file is written."""

    def __init__(self, fatal: int) -> None:
        self._left = fatal

    def make(self, folder: Path, mode: int = 0o755) -> None:
        self._count()
        super().make(folder, mode)

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        if self._left == 0:
            path.with_name(f".{path.name}.new").write_bytes(data[: len(data) // 2])
        self._count()
        super().write(path, data, mode)

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)

    def link(self, name: Path, target: str) -> None:
        self._count()
        super().link(name, target)

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def _count(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def advance(rules: Admission, folder: Path, disk: Disk | None = None) -> x509.Certificate:
    """The changes on a node's disk of one renewal; the authority is at hand."""
    identity = Identity(folder, disk or Disk())
    with identity.changing():
        pending = identity.prepare(NODE)
        made = rules.sign(pending.request)
        identity.stage(pending, [made, rules.authority.issuing.certificate], rules.authority.root)
        identity.switch(made)
    return made


def check_whole(folder: Path) -> None:
    """The current key and certificate belong together, and the root stands behind them."""
    held = node_credentials(folder)
    key = forms.load_key(held.key_path.read_bytes())
    certificate = x509.load_pem_x509_certificates(held.cert_path.read_bytes())[0]
    assert certificate.public_key() == key.public_key()
    assert held.key_path.stat().st_mode & 0o777 == 0o600
    subprocess.run(
        ["openssl", "verify", "-CAfile", held.ca_path, "-untrusted", held.cert_path,
         held.cert_path],
        check=True, capture_output=True,
    )  # fmt: skip


def killed(rules: Admission, folder: Path, fatal: int) -> bool:
    """Do a renewal in a child that dies at its change number `fatal`; whether it came so far."""
    data = folder.parent / "answer"
    child = os.fork()
    if child == 0:  # the ledger's connection stays the parent's: the child is handed an answer
        identity = Identity(folder, DoomedDisk(fatal))
        try:
            with identity.changing():
                pending = identity.prepare(NODE)
                made = rules.authority.certificate(
                    forms.read_request(pending.request), (), rules.authority.clock()
                )
                chain = [made, rules.authority.issuing.certificate]
                identity.stage(pending, chain, rules.authority.root)
                identity.switch(made)
                data.write_bytes(forms.pem_of(made))
        except BaseException:
            os._exit(9)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def test_killed_between_any_two_changes_of_a_renewal(rules: Admission, tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    advance(rules, folder)
    fatal = 0
    while killed(rules, folder, fatal):
        check_whole(folder)
        fatal += 1
    assert fatal > 15  # the last child lived: each change of it was deadly once
    check_whole(folder)
    made = advance(rules, folder)
    assert Identity(folder).certificate() == made
    kept = {path.name for path in (folder / "pairs").iterdir()}
    assert len(kept) == 2 and forms.serial_text(made) in kept  # nothing is left over
    assert not [*folder.glob(".*"), *folder.glob("pending*")]


def test_killed_between_any_two_changes_of_an_enrolment(rules: Admission, tmp_path: Path) -> None:
    """There is no identity, or a whole one; and the key, once written, is the one asked for."""
    for fatal in range(40):
        folder = tmp_path / f"identity-{fatal}"
        folder.mkdir()
        if not killed(rules, folder, fatal):
            break
        waits = Identity(folder).pending()
        try:
            node_credentials(folder)
        except errors.NoIdentity:
            if waits is not None:
                assert Identity(folder).prepare(NODE).key == waits.key
        else:
            check_whole(folder)
        advance(rules, folder)
        check_whole(folder)
    else:
        pytest.fail("the child never lived")


def test_readers_keep_a_whole_pair_over_a_renewal(rules: Admission, tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    first = advance(rules, folder)
    held = node_credentials(folder)
    advance(rules, folder)
    assert x509.load_pem_x509_certificates(held.cert_path.read_bytes())[0] == first
    assert forms.load_key(held.key_path.read_bytes()).public_key() == first.public_key()
    advance(rules, folder)
    assert not held.cert_path.exists()


def test_two_processes_that_change_an_identity(tmp_path: Path) -> None:
    identity = Identity(tmp_path / "identity")
    with identity.changing(), pytest.raises(errors.IdentityBusy, match=str(os.getpid())):
        identity.changing().__enter__()


def test_certificates_that_do_not_belong_here(rules: Admission, tmp_path: Path) -> None:
    """For another key, for another node, under another root."""
    identity = Identity(tmp_path / "identity")
    ca = rules.authority
    with identity.changing():
        pending = identity.prepare(NODE)
        stranger = rules.sign(forms.make_request(forms.new_key(), NODE))
        with pytest.raises(errors.WrongCertificate, match="not for the key"):
            identity.stage(pending, [stranger, ca.issuing.certificate], ca.root)
        key = forms.load_key(pending.key)
        other = rules.sign(forms.make_request(key, "node-2"))
        with pytest.raises(errors.WrongCertificate, match="node-2"):
            identity.stage(pending, [other, ca.issuing.certificate], ca.root)
        made = rules.sign(pending.request)
        for chain, root in (([made], ca.root), ([made, ca.issuing.certificate], made)):
            with pytest.raises(errors.WrongCertificate, match="not signed by"):
                identity.stage(pending, chain, root)
    with pytest.raises(errors.NoIdentity):
        identity.credentials()


def test_a_list_of_denied_certificates_is_not_replaced_by_an_older_or_foreign_one(
    rules: Admission, tmp_path: Path
) -> None:
    folder, ca = tmp_path / "identity", rules.authority
    advance(rules, folder)
    identity = Identity(folder)
    now = ca.clock()
    old = forms.make_crl(ca.issuing, [], (now - 100, now + 1000))
    new = forms.make_crl(ca.issuing, [(7, now)], (now, now + 1000))
    key = forms.new_key()
    foreign = forms.make_crl(forms.Signer(ca.issuing.certificate, key), [], (now, now + 1000))
    assert identity.set_crl(new) and not identity.set_crl(old)
    with pytest.raises(errors.WrongCertificate):
        identity.set_crl(foreign)
    assert len(list(x509.load_pem_x509_crl((folder / "crl.pem").read_bytes()))) == 1

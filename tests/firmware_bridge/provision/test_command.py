# SPDX-License-Identifier: Apache-2.0
"""`tepi provision` as it is typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tepi
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.authority import Authority
from tests.firmware_bridge.provision.cards import Vendor
from tests.firmware_bridge.provision.running import FakeClock, Service, service


class Typed:
    """Runs commands; what they print is taken for the next check."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, code: int = 0) -> str:
        """Standard output where the code is 0, else the error output."""
        found = tepi.main(["provision", *map(str, words)])
        out, err = self._capsys.readouterr()
        assert found == code, (words, found, out, err)
        return out if code == 0 else err

    def json(self, *words: object) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys)


@pytest.fixture
def folder(tmp_path: Path, typed: Typed) -> Path:
    """Of an authority that the command made."""
    typed("init-ca", tmp_path / "ca", "--name", "Acme")
    return tmp_path / "ca"


@pytest.fixture
def served(folder: Path) -> Iterator[Service]:
    with Authority(folder, FakeClock()) as made, service(Admission(made)) as running:
        yield running


def test_the_life_of_a_node(typed: Typed, folder: Path, served: Service, tmp_path: Path) -> None:
    identity = ("--identity", tmp_path / "identity")
    (tmp_path / "token").write_text(typed("token", folder, "--node", "n-1", "--also", "10.0.0.1"))
    enroll = ("enroll", served.url, "--token", f"@{tmp_path / 'token'}", "--node", "n-1")
    made = typed.json(*enroll, *identity)
    assert made["node"] == "n-1" and made["renew_at"] < made["ends"]
    assert "was used at" in typed(*enroll, "--identity", tmp_path / "thief", code=1)
    assert typed.json("renew", *identity)["serial"] == made["serial"]  # it is not due
    renewed = typed.json("renew", "--force", *identity)
    assert renewed["serial"] != made["serial"]
    said = typed("status", *identity)
    assert "node n-1: the certificate holds" in said and "10.0.0.1" in said and served.url in said
    assert typed.json("status", *identity)["serial"] == renewed["serial"]
    shown = typed("status", "--authority", folder)
    assert "n-1" in shown and renewed["serial"] in shown and "renewal" in shown
    typed("deny", folder, "--certificate", renewed["serial"].upper(), "--reason", "lost")
    assert ": lost" in typed("renew", "--force", *identity, code=1)
    assert typed.json("status", "--authority", folder)["nodes"][0]["denied"] == 1
    typed("deny", folder, "--certificate", renewed["serial"], "--lift")
    typed("renew", "--force", *identity)


def test_air_gap(typed: Typed, folder: Path, tmp_path: Path) -> None:
    identity = ("--identity", tmp_path / "identity")
    csr, pem = tmp_path / "csr", tmp_path / "pem"
    for _ in range(2):  # a first certificate, and the next
        typed("export-csr", csr, "--node", "n-1", *identity)
        before = csr.read_bytes()
        typed("export-csr", csr, *identity, "--node", "n-1")
        assert len(csr.read_bytes()) == pytest.approx(len(before), abs=8)
        signed = typed.json("sign-csr", folder, csr, pem, "--life", "30d")
        taken = typed.json("import-cert", pem, *identity)
        assert taken["serial"] == signed["serial"]
    assert "no key waits" in typed("import-cert", pem, *identity, code=1)
    assert "carried by hand" in typed("renew", "--force", *identity, code=1)
    typed("export-csr", csr, *identity)
    typed("init-ca", tmp_path / "other")
    typed("sign-csr", tmp_path / "other", csr, pem)
    assert "not signed by" in typed("import-cert", pem, *identity, code=1)


def test_lists_of_cards(typed: Typed, folder: Path, tmp_path: Path, vendor: Vendor) -> None:
    cards = tmp_path / "cards.csv"
    cards.write_text("# of the delivery\nTC0001\nTC0002, n-2\n\n")
    assert typed.json("token", folder, "--allow", cards) == {"allowed": 2}
    found = typed.json("status", "--authority", folder)["cards"]
    assert found == [{"serial": "TC0001", "node": None}, {"serial": "TC0002", "node": "n-2"}]
    assert "TC0002" in typed("status", "--authority", folder)
    cards.write_text("a,b,c\n")
    assert "cards.csv:1" in typed("token", folder, "--allow", cards, code=1)
    made = typed.json("init-ca", folder, "--card-ca", vendor.file(tmp_path))
    assert made["card_authorities"] == 1


def test_keys_are_readable_by_nobody_else(folder: Path, typed: Typed) -> None:
    for name in ("root.key", "issuing.key", "authority.db"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    (folder / "issuing.key").chmod(0o644)
    assert "chmod 600" in typed("token", folder, "--node", "n-1", code=1)


def test_the_root_key_may_be_taken_away(folder: Path, typed: Typed, tmp_path: Path) -> None:
    (folder / "root.key").rename(tmp_path / "safe")
    assert typed("token", folder, "--node", "n-1").startswith("tepi1.")
    assert "until" in typed("init-ca", folder, "--extend", tmp_path / "safe")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["enroll", "https://127.0.0.1:1"], 2, "--token"),
        (["enroll", "https://127.0.0.1:1", "--token", "x"], 1, "not a token"),
        (["enroll", "https://127.0.0.1:1", "--port", "/dev/null"], 2, "--ca"),
        (["status", "--identity", "nowhere"], 1, "tepi provision enroll"),
        (["renew", "--identity", "nowhere"], 1, "tepi provision enroll"),
        (["token", "nowhere", "--node", "n-1"], 1, "tepi provision init-ca"),
        (["token", "ca"], 2, "--node"),
        (["token", "ca", "--node", "N_1"], 1, "small letters"),
        (["token", "ca", "--node", "n-1", "--life", "soon"], 2, "30m"),
        (["deny", "ca"], 2, "--certificate"),
        (["deny", "ca", "--node", "n-1", "--lift"], 1, "is not denied"),
        (["init-ca", "ca"], 1, "already"),
        (["init-ca", "new", "--card-ca", __file__], 1, "no certificate"),
        (["sign-csr", "ca", __file__, "out"], 1, "not a certificate request"),
        (["serve", "ca", "--listen", "nowhere"], 2, "HOST:PORT"),
        (["serve", "ca", "--listen", "192.0.2.1:0"], 1, "cannot listen"),
    ],
)
def test_wrong_use_says_what_to_do(
    typed: Typed,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    assert message in typed(*words, code=code)


def test_a_copy_of_an_identity_is_stopped_by_denying_its_certificates(
    typed: Typed, folder: Path, served: Service, tmp_path: Path
) -> None:
    token = typed("token", folder, "--node", "n-1").strip()
    typed("enroll", served.url, "--token", token, "--node", "n-1", "--identity", tmp_path / "id")
    shutil.copytree(tmp_path / "id", tmp_path / "copy", symlinks=True)
    typed("deny", folder, "--node", "n-1")
    for each in ("id", "copy"):
        assert "denied" in typed("renew", "--force", "--identity", tmp_path / each, code=1)

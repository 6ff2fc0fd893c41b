# SPDX-License-Identifier: Apache-2.0
"""The commands as a person meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

import tepi
from registry.digest import digest_of
from registry.oci import Manifest
from registry.origin.storage import Storage
from registry.package.layout import Layout
from registry.trust.client import TrustClient
from registry.trust.sources import FolderSource
from tests.registry.trust.conftest import Serve

DIGEST = digest_of(b"index")


class Shell:
    """Runs commands in a folder; `out` and `err` are those of the last one."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, text: str, code: int = 0) -> str:
        found = tepi.main(["registry", *text.split()])
        self.out, self.err = self._capsys.readouterr()
        assert found == code, self.out + self.err
        return self.out

    def json(self, text: str) -> Any:
        return json.loads(self(f"{text} --json"))


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture
def made(shell: Shell) -> Shell:
    shell("init reg --keys keys")
    shell(f"sign reg vision/digits:1.0@{DIGEST} --size 5 --keys keys")
    shell("desire reg canary vision/digits:1.0")
    return shell


def _layout(path: Path) -> Layout:
    layout = Layout(path, create=True)
    blob = layout.add(b"model", "application/octet-stream")
    layout.tag("2.0", layout.add_document(Manifest(blob, (blob,))))
    return layout


def test_init_says_what_to_keep_where(shell: Shell) -> None:
    said = shell("init reg --keys keys")
    assert "move each root, targets key to a place of its own" in said
    assert "reg/tuf/metadata/1.root.json" in said
    assert sorted(p.name.partition("-")[0] for p in Path("keys").iterdir()) == [
        *["root"] * 3,
        "targets",
    ]
    shell("init reg --keys keys", 1)
    assert "holds a registry already" in shell.err


def test_init_with_thresholds_and_expiry(shell: Shell) -> None:
    found = shell.json(
        "init reg --keys keys --root-keys 1 --root-threshold 1 --expiry timestamp=6h "
        "--online-keys online"
    )
    assert found["root"] == "reg/tuf/metadata/1.root.json"
    assert len(list(Path("online").iterdir())) == 3
    left = shell.json("status reg --online-keys online")["roles"]["timestamp"]["left"]
    assert 0 < left <= 6 * 3600
    shell("init other --keys keys --root-keys 1 --root-threshold 2", 1)
    assert "cannot have 1 keys" in shell.err
    shell("init other --keys keys --expiry leaf=1d", 2)
    shell("init other --keys keys --expiry root=1y", 2)
    assert "write 30m, 12h, 7d" in shell.err


def test_encrypted_keys(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["secret", "secret"]
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: answers.pop(0))
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda _prompt: answers.pop(0))
    shell("init reg --keys keys --root-keys 1 --root-threshold 1 --passphrase")
    assert b"ENCRYPTED" in next(Path("keys").glob("targets-*")).read_bytes()
    answers = ["wrong", "secret"]
    shell(f"sign reg a:1@{DIGEST} --size 5 --keys keys")
    answers = ["wrong"] * 3
    shell(f"sign reg a:2@{DIGEST} --size 5 --keys keys", 1)
    assert "the passphrase is wrong" in shell.err


def test_a_node_follows(made: Shell, tmp_path: Path) -> None:
    node = TrustClient(tmp_path / "node", Path("reg/tuf/metadata/1.root.json"))
    trusted = node.refresh([FolderSource(Path("reg"))], "canary")
    assert trusted.desired("canary").models[0].digest == DIGEST


def test_sign_from_a_layout_from_storage_and_by_digest(made: Shell) -> None:
    layout = _layout(Path("layout"))
    entry = layout.resolve("2.0")
    found = made.json("sign reg vision/digits:2.0 --layout layout --keys keys")
    assert found["packages"] == [f"vision/digits:2.0@{entry.digest}"]
    assert found["changes"][0]["published"] is True
    storage = Storage(Path("reg"))
    blob = storage.blob_path(digest_of(b"model"))
    blob.write_bytes(b"model")
    data = layout.read(entry.digest, 1 << 20)
    storage.put_manifest("vision/words", "2.0", data, entry.media_type)
    made("sign reg vision/words:2.0 --keys keys")
    assert entry.digest in made.out
    made("sign reg vision/words:9 --keys keys", 1)
    assert "push it first, or say where it is" in made.err
    made(f"sign reg vision/other:2.0@{DIGEST} --layout layout --keys keys", 1)
    assert "check which of the two you mean to sign" in made.err


@pytest.mark.parametrize(
    "words",
    [
        "sign",
        "sign reg",
        "sign reg a:1",
        "sign reg a:1 --layout l --size 5 --keys keys",
        "sign reg a:1 --pending {file}",
        "desire reg canary",
        "rotate reg timestamp",
        "rotate reg timestamp --keep-keys --keys keys",
        "rotate reg leaf --keys keys",
        "revoke reg --keys keys",
        "revoke reg a:1",
        "revoke reg a:1 --key 12345678 --keys keys",
        "export reg --to usb --layout layout",
    ],
)
def test_wrong_usage(shell: Shell, words: str) -> None:
    Path("file").write_text("{}")
    shell(words.format(file="file"), 2)


def test_a_change_that_two_holders_sign(shell: Shell) -> None:
    shell("init reg --keys keys --targets-keys 2 --targets-threshold 2")
    for number, path in enumerate(sorted(Path("keys").glob("targets-*"))):
        Path(f"holder{number}").mkdir()
        path.rename(Path(f"holder{number}") / path.name)
    said = shell(f"sign reg a:1@{DIGEST} --size 5 --keys holder0")
    assert "has 1 of 2 signatures" in said
    assert "tepi registry sign --pending targets.json" in said
    assert "waits for 1 signatures" in shell("status reg")
    Path("carried.json").write_bytes(Path("reg/tuf/pending/targets.json").read_bytes())
    said = shell("sign --pending carried.json --keys holder1")
    assert f"a:1 {DIGEST} 5 bytes" in said
    assert "bring it back" in said
    assert "published version 2 of targets" in shell("sign reg --pending carried.json")
    assert not Path("reg/tuf/pending/targets.json").exists()
    shell("sign reg --pending carried.json", 1)
    assert "it was published already" in shell.err
    shell("sign --pending carried.json --keys nobody", 1)
    assert "no key of role targets" in shell.err


def test_rotate_and_revoke(made: Shell) -> None:
    found = made.json("rotate reg timestamp --keys keys")
    change = found["changes"][0]
    assert (change["role"], change["published"], change["threshold"]) == ("root", True, 2)
    made("rotate reg root --keys keys", 1)
    assert "say which: --key" in made.err
    keys = made.json("status reg")["roles"]["root"]["keys"]
    made(f"rotate reg root --key {keys[0][:8]} --keys keys")
    assert "new key of root" in made.out
    made(f"revoke reg --key {keys[1]} --keys keys")
    assert "published version 4 of root" in made.out
    made("rotate reg targets --keep-keys --keys keys")
    made("revoke reg vision/digits:1.0 --keys keys", 1)
    assert "--force" in made.err
    made("revoke reg vision/digits:1.0 --force --keys keys")
    status = made.json("status reg")
    assert status["packages"] == []
    assert status["rings"]["canary"] == {"release": 2, "models": []}


def test_a_holder_makes_the_key_elsewhere(made: Shell) -> None:
    """The private half is never on the registry's machine."""
    private = Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path("holder.pub").write_bytes(pem)
    old = made.json("status reg")["roles"]["root"]["keys"][0]
    found = made.json(f"rotate reg root --key {old[:8]} --public holder.pub --keys keys")
    (new,) = found["new_keys"]
    assert old not in made.json("status reg")["roles"]["root"]["keys"]
    assert not list(Path("keys").glob(f"root-{new[:8]}*"))
    (waits,) = made.json("status reg")["pending"] or [None]
    assert waits is None  # two of the old keys signed it, as they did themselves
    home = Path("home")
    home.mkdir()
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home / f"root-{new[:8]}.pem").write_bytes(key)
    one = sorted(Path("keys").glob("root-*"))
    for path in one[1:]:
        path.unlink()
    made("rotate reg timestamp --keys keys --keys home")
    made(f"rotate reg root --key {new[:8]} --public holder.pub --keys keys", 1)
    assert "is a key of this registry already" in made.err
    Path("holder.pub").write_text("nonsense")
    made(f"rotate reg root --key {new[:8]} --public holder.pub --keys keys", 1)
    assert "is not a public key" in made.err


def test_refresh_and_expiry_of_the_desired_state(made: Shell) -> None:
    assert "nothing expires soon" in made("refresh reg")
    assert made.json("refresh reg --within 2d")["signed"] == ["timestamp"]
    made("desire reg canary --expiry 1h")
    assert made.json("status reg")["roles"]["desired"]["left"] <= 3600


def test_status_of_what_nodes_would_refuse(made: Shell) -> None:
    assert "canary, release 1: digits = vision/digits:1.0" in made("status reg")
    next(Path("reg/keys").glob("snapshot-*")).unlink()
    made("status reg", 1)
    assert "lacks the key" in made.err
    made("status nowhere", 1)
    assert "tepi registry init" in made.err


def test_status_of_mirrors(made: Shell, serve: Serve, tmp_path: Path) -> None:
    url = serve(tmp_path / "reg")
    assert f"mirror {url}: up to date" in made(f"status reg --mirror {url}")
    made("export reg --to mirror")
    made("desire reg north vision/digits:1.0")
    old = serve(tmp_path / "mirror")
    found = made.json(f"status reg --mirror {old}")
    assert found["mirrors"][old]["behind"] == ["timestamp", "snapshot", "desired"]
    made(f"status reg --mirror {url}nothing", 1)
    assert "NoSource" in made.err


def test_export(made: Shell) -> None:
    layout = _layout(Path("layout"))
    made("sign reg vision/digits:2.0 --layout layout --keys keys")
    made("desire reg canary vision/digits:2.0")
    assert "1 packages, 2 blobs" in made(
        "export reg --to usb --ring canary --packages --layout layout"
    )
    found = made.json("export reg --to usb --packages --layout layout")
    assert (found["rings"], found["copied"]) == (["canary"], 0)
    assert layout.resolve("2.0").digest == found["models"][0]["digest"]


@pytest.mark.parametrize(
    "name", ["init", "sign", "desire", "refresh", "rotate", "revoke", "export", "status"]
)
def test_help_has_examples_and_says_what_each_option_does(shell: Shell, name: str) -> None:
    said = shell(f"{name} --help")
    assert "Examples:" in said
    assert "--json" in said

# SPDX-License-Identifier: Apache-2.0
"""An authority, a card and a node, all of them real processes: the card vouches for the node."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tepi
from firmware_bridge.provision import x509_forms as forms
from firmware_bridge.provision.admission import Admission
from firmware_bridge.provision.authority import Authority
from firmware_bridge.provision.client import EstClient
from firmware_bridge.provision.errors import Unreachable

ROOT = Path(tepi.__file__).parent
TEPI = [sys.executable, str(ROOT / "tepi.py")]


def run(*words: object, code: int = 0) -> str:
    """Standard output, or the error output of a command that is to fail."""
    done = subprocess.run(
        [*TEPI, *map(str, words)], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@contextmanager
def running(log: Path, *words: object) -> Iterator[dict[str, Any]]:
    """A service; its ready line. It must stop in order on SIGTERM."""
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*TEPI, *map(str, words), "--json"],
            stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, log.read_text()


def test_a_card_vouches_for_a_node(tmp_path: Path) -> None:
    vendor, ca, link = tmp_path / "vendor", tmp_path / "ca", tmp_path / "card"
    run("card", "mcu", "--make-vendor", vendor)
    run("provision", "init-ca", ca, "--card-ca", vendor / "card-ca.crt")
    enroll = ("--port", link, "--ca", ca / "root.pem", "--node", "shop-17")
    card = ("--flash", tmp_path / "flash", "--vendor", vendor, "--serial", "TC0017")
    with (
        running(tmp_path / "mcu.log", "card", "mcu", *card, "--link", link),
        running(
            tmp_path / "ca.log", "provision", "serve", ca, "--listen", "127.0.0.1:0",
            "--require-card",
        ) as ready,
    ):  # fmt: skip
        identity = ("--identity", tmp_path / "identity")
        refused = run("provision", "enroll", ready["address"], *enroll, *identity, code=1)
        assert "TC0017 is genuine, and not on the list" in refused
        token = run("provision", "token", ca, "--node", "shop-18").strip()
        alone = ("--token", token, "--node", "shop-18", "--identity", tmp_path / "other")
        refused = run("provision", "enroll", ready["address"], *alone, code=1)
        assert "a card must vouch" in refused
        run("provision", "token", ca, "--card", "TC0017")
        made = json.loads(
            run("provision", "enroll", ready["address"], *enroll, *identity, "--json")
        )
        assert made["node"] == "shop-17"
        run("provision", "renew", "--force", *identity)
        renew_in_a_loop(tmp_path / "identity")
        (row,) = json.loads(run("provision", "status", "--authority", ca, "--json"))["nodes"]
        assert (row["node"], row["card"], row["how"]) == ("shop-17", "TC0017", "renewal")
    pair = tmp_path / "identity" / "current"
    subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", ca / "root.pem", "-untrusted",
         pair / "cert.pem", pair / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


def renew_in_a_loop(identity: Path) -> None:
    """`renew --loop`, which renews at once for --force, and stops in order on SIGTERM."""
    before = (identity / "current").resolve()
    words = ("provision", "renew", "--loop", "--force", "--identity", str(identity))
    with subprocess.Popen([*TEPI, *words], stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert "renewed until" in line
    assert (identity / "current").resolve() != before


class Address:
    """Where the authority answers now; it moves with each restart."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._url, self._number = "", 0

    def set(self, url: str) -> None:
        with self._moved:
            self._url, self._number = url, self._number + 1
            self._moved.notify_all()

    def after(self, number: int) -> tuple[str, int]:
        """An address newer than this number's."""
        with self._moved:
            assert self._moved.wait_for(lambda: self._number > number, 60)
            return self._url, self._number


def test_an_authority_killed_in_the_middle_of_enrolments_loses_none(tmp_path: Path) -> None:
    """kill -9 three times while nodes enroll; each node has one certificate, each token one use."""
    nodes, threads, kills = 120, 4, 3
    ca = tmp_path / "ca"
    done: dict[str, str] = {}
    progress = threading.Condition()
    with Authority.create(ca, time.time) as authority:
        rules = Admission(authority)
        secrets = [rules.new_token(f"node-{n}", None, 3600.0).secret for n in range(nodes)]
        root = forms.pem_of(authority.root)
    address = Address()

    def enroll(numbers: range) -> None:
        url, at = address.after(0)
        for number in numbers:
            request = forms.make_request(forms.new_key(), f"node-{number}")
            while True:
                try:
                    with EstClient(url, root, time.time) as client:
                        made = client.enroll(request, secrets[number])
                    break
                except Unreachable:
                    url, at = address.after(at)
            with progress:
                done[f"node-{number}"] = forms.serial_text(made)
                progress.notify_all()

    workers = [
        threading.Thread(target=enroll, args=(range(n, nodes, threads),)) for n in range(threads)
    ]
    for worker in workers:
        worker.start()
    command = [*TEPI, "provision", "serve", str(ca), "--listen", "127.0.0.1:0", "--json"]
    for life in range(kills + 1):
        with (
            (tmp_path / f"log-{life}").open("w") as log,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
            ) as process,
        ):
            assert process.stdout is not None
            address.set(json.loads(process.stdout.readline())["address"])
            wanted = nodes if life == kills else nodes // (kills + 1) * (life + 1)
            with progress:
                end = time.monotonic() + 60
                while len(done) < wanted:
                    assert progress.wait(end - time.monotonic()), len(done)
            process.kill()
    for worker in workers:
        worker.join()
    with Authority(ca, time.time) as authority:
        rows = authority.ledger.rows("SELECT node, serial FROM certificates")
        used = authority.ledger.rows("SELECT certificate FROM tokens WHERE used IS NOT NULL")
    assert {row["node"]: row["serial"] for row in rows} == done
    assert Counter(row["node"] for row in rows) == Counter(done.keys())
    assert {row["certificate"] for row in used} == set(done.values())

# SPDX-License-Identifier: Apache-2.0
"""`tepi registry serve` as a process."""

from __future__ import annotations

import io
import json
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

import tepi
from registry.origin.command import serve
from tests.registry.origin.test_sending import write_certificate

ROOT = Path(tepi.__file__).parent
LISTEN = ("--listen", "127.0.0.1:0", "--json")


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """The address, and the file with its log; it must stop in order."""
    log = folder.parent / "log"
    command = [sys.executable, str(ROOT / "tepi.py"), "registry", "serve", str(folder)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, *LISTEN, *options], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"], log
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_it_serves_logs_and_stops_on_sigterm(tmp_path: Path) -> None:
    with serving(tmp_path / "registry", "--gc") as (address, log):
        with urllib.request.urlopen(f"{address}/v2/") as answer:
            assert answer.status == 200
        second = CliRunner().invoke(serve, [str(tmp_path / "registry"), *LISTEN])
        assert "is served by process" in str(second.exception)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"], line["bytes"]) == ("GET", "/v2/", 200, 2)


def test_users_and_tls(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    added = CliRunner().invoke(
        serve, [str(folder), "--add-user", "ci", "--rights", "push"], input="correct horse\n"
    )
    assert added.exit_code == 0, added.output
    certificate, key = write_certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(certificate))
    with serving(folder, "--tls-cert", str(certificate), "--tls-key", str(key)) as (address, _):
        url = address.replace("127.0.0.1", "localhost") + "/v2/"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, context=trusted)
        assert refused.value.code == 401
        refused.value.close()
        word = b64encode(b"ci:correct horse").decode()
        asked = urllib.request.Request(url, headers={"Authorization": f"Basic {word}"})
        with urllib.request.urlopen(asked, context=trusted) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--listen", "nowhere"], 2, "HOST:PORT"),
        (["--listen", "192.0.2.1:0"], 1, "cannot listen"),
        (["--tls-cert", __file__], 2, "--tls-cert and --tls-key"),
        (["--tls-cert", __file__, "--tls-key", __file__], 1, "do not make a certificate"),
        (["--add-user", "a:b"], 1, "cannot be a user"),
        (["--add-user", "ci"], 1, "less than 8"),
    ],
)
def test_wrong_use_says_what_to_do(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    assert tepi.main(["registry", "serve", str(tmp_path / "r"), *options]) == code
    assert message in capsys.readouterr().err

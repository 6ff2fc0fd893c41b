# SPDX-License-Identifier: Apache-2.0
"""What an operator sees: exit codes and messages of `tepi`, metrics, and an orderly stop."""

import json
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server_process import TEPI, Served, serving


def tepi(*words: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run([TEPI, *words], capture_output=True, text=True, timeout=60)


def serve(repository: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`tepi serve` where it is expected to refuse."""
    free = ["--grpc-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0"]
    return tepi("serve", f"--model-repository={repository}", *free, *options)


def test_missing_repository(tmp_path: Path) -> None:
    done = serve(tmp_path / "nowhere")
    assert done.returncode == 1
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Traceback" not in done.stderr


def test_repository_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = serve(tmp_path / "file")
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr


def test_empty_repository_serves_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert server.grpc
    assert "empty" in server.log


def test_one_bad_model_does_not_stop_the_others(digits_repository: Path, tmp_path: Path) -> None:
    (tmp_path / "digits").symlink_to(digits_repository / "digits")
    broken = tmp_path / "broken/1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"this is no model")
    with serving(tmp_path) as server:
        answered = tepi("infer", "digits", "--random", "--address", server.grpc)
        refused = tepi("infer", "broken", "--random", "--address", server.grpc)
    assert answered.returncode == 0, answered.stderr
    assert refused.returncode == 1
    assert "broken" in refused.stderr


@pytest.mark.parametrize("option", ["--grpc-address", "--metrics-address"])
def test_port_in_use(digits_repository: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve(digits_repository, f"{option}={address}")
    assert done.returncode == 1
    assert address in done.stderr
    assert option in done.stderr
    assert "Traceback" not in done.stderr


def test_serves_on_a_unix_socket(digits_repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "tepi.sock"
    with serving(digits_repository, f"--grpc-address=unix:{path}"):
        answered = tepi("infer", "digits", "--random", "--address", f"unix:{path}")
    assert answered.returncode == 0, answered.stderr
    assert not path.exists()


def test_infer_without_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    done = tepi("infer", "digits", "--random", "--address", address)
    assert done.returncode == 1
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_card_control_is_off_unless_asked_for(digits_repository: Path) -> None:
    with serving(digits_repository) as server:
        done = tepi("card", "detach", "--address", server.grpc)
    assert done.returncode == 1
    assert "--card-control" in done.stderr


def metric(served: Served, name: str, *labels: str) -> float:
    """Sum of a metric's samples whose labels hold all these texts."""
    with urllib.request.urlopen(f"http://{served.metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    found = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(x.rsplit(" ", 1)[1]) for x in found if all(text in x for text in labels))


def test_a_lost_card_shows_in_status_metrics_and_answers(served: Served) -> None:
    digits = 'model="digits"'

    def infer() -> str:
        done = tepi("infer", "digits", "--random", "--address", served.grpc)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(verb: str) -> dict[str, object]:
        done = tepi("card", verb, "--json", "--address", served.grpc)
        assert done.returncode == 0, done.stderr
        status: dict[str, object] = json.loads(done.stdout)
        return status

    assert state("info")["state"] == "CARD_STATE_READY"
    assert "on card" in infer()
    before = metric(served, "nv_inference_request_success", digits)
    fallbacks = metric(served, "tepi_fallback_total", digits)
    assert state("detach")["state"] == "CARD_STATE_ABSENT"
    assert "on onnxruntime" in infer()
    assert metric(served, "tepi_fallback_total", digits) == fallbacks + 1
    assert metric(served, "nv_inference_request_success", digits) == before + 1
    assert metric(served, "nv_inference_request_failure", digits) == 0
    assert state("attach")["state"] == "CARD_STATE_READY"
    assert "on card" in infer()


def test_the_commands_of_a_technician(served: Served) -> None:
    def card(*words: str) -> Any:
        done = tepi("card", *words, "--json", "--address", served.grpc)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (row,) = card("list")
    assert row["bus"] == "inproc" and row["state"] == "ready" and row["memory"] > 0
    info = card("info")
    assert info["isa"] == row["isa"] and int(info["registers"]["workers"]) >= 1
    digits = next(m for m in info["models"] if m["name"] == "digits")
    assert digits["state"] == "ready" and digits["device"] == "card"
    assert isinstance(card("log"), list)
    for level in ("1", "2", "3"):
        checks = {c["name"]: c for c in card("diag", "--level", level)}
        assert all(c["passed"] for c in checks.values()), checks
        assert {"state", "registers", "heartbeat", "fault log", "round trip"} <= set(checks)
        assert ("answers of digits/1" in checks) == (level != "1")
        assert ("reset" in checks) == (level == "3")
    before = int(card("info")["resets"])
    assert int(card("reset")["resets"]) == before + 1
    done = tepi("card", "top", "--count", "1", "--interval", "0.1", "--address", served.grpc)
    assert done.returncode == 0 and "digits/1" in done.stdout and "ready" in done.stdout
    seen = card("top", "--count", "1", "--interval", "0.1")
    assert seen["state"] == "ready" and seen["models"][0]["model"] == "digits/1"


def test_a_card_that_is_away_is_told_by_exit_codes(served: Served) -> None:
    where = ("--address", served.grpc)
    assert tepi("card", "detach", *where).returncode == 0
    try:
        away = tepi("card", "info", *where)
        assert away.returncode == 1 and "absent (the card was detached)" in away.stdout
        checked = tepi("card", "diag", *where)
        assert checked.returncode == 1 and "FAILED" in checked.stdout
    finally:
        assert tepi("card", "attach", *where).returncode == 0
    assert tepi("card", "info", "--address", "127.0.0.1:1").returncode == 1

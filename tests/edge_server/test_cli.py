# SPDX-License-Identifier: Apache-2.0
"""`tepi serve`, `tepi infer` and `tepi card` as a shell sees them: exit codes, words, signals."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.device.compiler.running import card_of
from tests.edge_server import onnx_models as models

TEPI = [sys.executable, "-c", "import sys, tepi; sys.exit(tepi.main())"]
ROOT = Path(__file__).resolve().parents[2]


def tepi(
    *words: str, given: bytes = b"", under: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """One command to its end; `under` is the command that runs it."""
    command = [*under, *TEPI, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, input=given)


@contextmanager
def serving(repository: Path, *options: str) -> Iterator[dict[str, Any]]:
    """A server process; yields its ready line. It must end with 0 on SIGTERM."""
    words = ["serve", "--model-repository", str(repository), "--json", *options]
    if "--grpc-address" not in options:
        words += ["--grpc-address", "127.0.0.1:0"]
    words += ["--metrics-address", "127.0.0.1:0", "--card", "none"]
    with subprocess.Popen(
        [*TEPI, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, process.communicate()[1].decode()
            yield json.loads(line)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=30)
            assert process.returncode == 0, log.decode()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a few models."""
    repository = tmp_path_factory.mktemp("models")
    models.put(repository, "scale", models.scale(2))
    models.put(repository, "add", models.add())
    models.put(repository, "words", models.identity(TensorProto.STRING))
    with serving(repository) as ready:
        yield ready["grpc"]


def infer(address: str, *words: str, given: bytes = b"") -> Any:
    """`tepi infer --json`, which must succeed."""
    done = tepi("infer", *words, "--address", address, "--json", given=given)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_infer_takes_json_files_and_standard_input(server: str, tmp_path: Path) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)
    np.save(tmp_path / "a.npy", a)
    np.savez(tmp_path / "ab.npz", a=a, b=b)
    with (tmp_path / "b.npy").open("wb") as file:
        np.save(file, b)
    given = (tmp_path / "b.npy").read_bytes()
    for inputs in (
        ["--input", "a=[[0,1,2],[3,4,5]]", "--input", "b=[[1,1,1],[1,1,1]]"],
        ["--input", f"a=@{tmp_path}/a.npy", "--input", "b=@-"],
        ["--input", f"a=@{tmp_path}/ab.npz", "--input", f"b=@{tmp_path}/ab.npz"],
    ):
        answer = infer(server, "add", *inputs, "--output", "sum", given=given)
        (output,) = answer["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("sum", "FP32", [2, 3])
        assert output["data"] == (a + b).tolist()
        assert answer["parameters"]["tepi_device"] == "onnxruntime"
        assert answer["latency_ms"] > 0
    answer = infer(server, "words", "--input", 'x=["a","tepí"]')
    assert answer["outputs"][0]["data"] == ["a", "tepí"]


def test_infer_prints_a_table(server: str) -> None:
    done = tepi("infer", "scale", "--random", "--address", server)
    first, second = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert first.startswith("scale/1 on onnxruntime (no_card), ") and first.endswith(" ms")
    assert second.startswith("y  FP32 [2]  ")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nope", "--random"], 1, "NOT_FOUND: unknown model 'nope'"),
        (["scale", "--random", "--model-version", "3"], 1, "no version '3'"),
        (["scale", "--input", "x=[1,2,3]"], 1, "expected [2]"),
        (["scale", "--random", "--output", "z"], 1, "unknown output 'z'"),
        (["scale"], 2, "input 'x' (FP32 [2]) is missing"),
        (["scale", "--input", "x"], 2, "not NAME=VALUE"),
        (["scale", "--input", "z=1"], 2, "'z' is no input"),
        (["scale", "--input", "x=@/nowhere.npy"], 2, "/nowhere.npy"),
        (["scale", "--input", "x=[1,"], 2, "--input 'x'"),
        (["scale", "--input", 'x=["a","b"]'], 2, "expected FP32"),
        (["scale", "--random", "--timeout", "0"], 2, "--timeout"),
    ],
)
def test_infer_says_what_is_wrong(server: str, words: list[str], code: int, said: str) -> None:
    done = tepi("infer", *words, "--address", server)
    assert (done.returncode, said in done.stderr.decode()) == (code, True), done.stderr.decode()
    assert b"Traceback" not in done.stderr and not done.stdout


def test_card_of_a_server_without_control(server: str) -> None:
    for verb in ("reset", "detach", "attach"):
        done = tepi("card", verb, "--address", server)
        assert done.returncode == 1 and b"--card-control" in done.stderr
    assert tepi("card", "list", "--address", server).returncode == 0


def test_card_info_of_a_server_without_card(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    with serving(tmp_path, "--card-control") as ready:
        done = tepi("card", "info", "--address", ready["grpc"])
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(b"card none: none")
        assert b"scale/1: ready, onnxruntime" in done.stdout
        done = tepi("card", "detach", "--address", ready["grpc"])
        assert done.returncode == 1 and b"--card none" in done.stderr


def test_serve_says_why_it_cannot(tmp_path: Path) -> None:
    models.put(tmp_path / "models", "scale", models.scale(2))
    (tmp_path / "plain").write_text("no socket")
    there = str(tmp_path / "models")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"127.0.0.1:{taken.getsockname()[1]}"
        for words, code, said in (
            (["--model-repository", f"{tmp_path}/no"], 1, "does not exist; create it"),
            (["--model-repository", f"{tmp_path}/plain"], 1, "is not a folder"),
            (["--model-repository", there, "--grpc-address", port], 1, f"cannot listen on {port}"),
            (["--model-repository", there, "--grpc-address", "nine"], 1, "neither HOST:PORT nor"),
            (
                ["--model-repository", there, "--grpc-address", f"unix:{tmp_path}/plain"],
                1,
                "a file that is no socket is there",
            ),
            (["--model-repository", there, "--card", "gpu"], 2, "'gpu'"),
            (["--model-repository", there, "--load-model", "scale"], 2, "explicit"),
            ([], 2, "--model-repository"),
        ):
            free = [] if "--grpc-address" in words else ["--grpc-address", "127.0.0.1:0"]
            done = tepi("serve", *words, *free, "--metrics-address", "127.0.0.1:0")
            assert done.returncode == code, (words, done)
            assert said in done.stderr.decode(), (words, done.stderr.decode())
            assert b"Traceback" not in done.stderr


def test_serve_says_that_the_machine_lacks_an_instruction_set(tmp_path: Path) -> None:
    lacking = next((isa for isa in ("amxint8", "avx512vnni", "avx2") if not card_of(isa)), None)
    if lacking is None:
        pytest.skip("this machine has every instruction set")
    free = ("--grpc-address", "127.0.0.1:0", "--metrics-address", "")
    done = tepi("serve", "--model-repository", str(tmp_path), *free, "--isa", lacking)
    assert done.returncode == 1
    assert f"--isa {lacking}: this machine lacks" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_serve_says_that_a_repository_is_not_readable(tmp_path: Path) -> None:
    powers = "-dac_override,-dac_read_search"  # with these root reads every folder
    plain = ("setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}")
    tmp_path.chmod(0)
    done = tepi("serve", "--model-repository", str(tmp_path), under=() if os.geteuid() else plain)
    tmp_path.chmod(0o700)
    assert done.returncode == 1 and b"cannot be read" in done.stderr


def test_a_unix_socket_in_use_is_refused_and_a_stale_one_replaced(tmp_path: Path) -> None:
    models.put(tmp_path / "models", "scale", models.scale(2))
    address = f"unix:{tmp_path}/s"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(f"{tmp_path}/s")
    with serving(tmp_path / "models", "--grpc-address", address) as ready:
        assert ready["grpc"] == address
        assert infer(address, "scale", "--random")["model"] == "scale"
        words = ["--model-repository", f"{tmp_path}/models", "--grpc-address", address]
        done = tepi("serve", *words, "--metrics-address", "127.0.0.1:0", "--card", "none")
        assert done.returncode == 1 and b"in use" in done.stderr
        assert infer(address, "scale", "--random")["model"] == "scale"
    assert not (tmp_path / "s").exists()


def test_explicit_mode_loads_what_is_named(tmp_path: Path) -> None:
    models.put(tmp_path, "scale", models.scale(2))
    models.put(tmp_path, "add", models.add())
    options = ["--model-control-mode", "explicit", "--load-model", "add"]
    with serving(tmp_path, *options) as ready:
        assert ready["models"] == ["add/1"]


def test_help_names_examples_and_exit_codes() -> None:
    for command in ("serve", "infer"):
        done = tepi(command, "--help")
        assert done.returncode == 0 and b"Examples:" in done.stdout

# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry as a process of a test: on a free port, with a folder of its own: for
anyone, for one account, or for who has a token."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

USER = "publisher"
PASSWORD = "s3cret"
# bcrypt of PASSWORD, the only form that docker-registry takes.
_HTPASSWD = f"{USER}:$2b$04$HPcqzP8A6hWTBOTjwOKSMOPNgpqmRIyeDiI9X7By5YGAJQEbWlH8q\n"
_PROGRAMS = {"docker-registry": "docker-registry", "skopeo": "skopeo"}
_READY_SECONDS = 20.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class DockerRegistry:
    """A registry that answers at `address` (HOST:PORT) and keeps its blobs below `folder`."""

    address: str
    folder: Path
    process: subprocess.Popen[bytes]
    log: Path

    def requests(self, part: str = "") -> list[str]:
        """The lines of its access log that hold `part`."""
        text = self.log.read_text(errors="replace")
        return [line for line in text.splitlines() if ' HTTP/1.1" ' in line and part in line]


def need(program: str) -> str:
    """The path of docker-registry or skopeo; the test is skipped where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}: apt-get install {_PROGRAMS.get(program, program)}")
    return found


def skopeo(*words: str, timeout: float = 120.0) -> str:
    """Run skopeo, without a policy of signatures; returns what it printed."""
    command = [need("skopeo"), "--insecure-policy", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
    return done.stdout


@contextmanager
def docker_registry(
    folder: Path, *, password: bool = False, token: dict[str, str] | None = None
) -> Iterator[DockerRegistry]:
    """A ready registry with a folder of its own; ended when the block ends. `password` makes it
    ask for USER and PASSWORD; `token` is docker-registry's own section `auth: token`."""
    program = need("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    auth: dict[str, Any] = {}
    if password:
        (folder / "htpasswd").write_text(_HTPASSWD)
        auth = {"auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}}
    if token is not None:
        auth = {"auth": {"token": token}}
    for _ in range(3):  # another process may take the free port before the registry does
        with _started(program, folder, auth) as found:
            if found is not None:
                yield found
                return
    pytest.fail(f"docker-registry does not start: {(folder / 'log').read_text()}")


@contextmanager
def _started(program: str, folder: Path, auth: dict[str, Any]) -> Iterator[DockerRegistry | None]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": address, "secret": "of no account"},
        **auth,
    }
    configuration = folder / "config.yml"
    configuration.write_text(json.dumps(settings))  # JSON is YAML
    log = folder / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen([program, "serve", str(configuration)], stdout=out, stderr=out) as process,
    ):
        try:
            ready = _answers(address, process)
            yield DockerRegistry(address, folder, process, log) if ready else None
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    """Ask until it answers; False once it has ended instead."""
    pause = threading.Event()
    for _ in range(int(_READY_SECONDS / 0.05)):
        if process.poll() is not None:
            return False
        connection = http.client.HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            return True
        except OSError:
            pause.wait(0.05)
        finally:
            connection.close()
    return False

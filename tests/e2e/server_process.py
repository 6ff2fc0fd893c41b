# SPDX-License-Identifier: Apache-2.0
"""A real `tepi serve` process, as e2e tests start and stop it."""

import json
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

TEPI = Path(sys.executable).with_name("tepi")
READY_SECONDS = 60.0


@dataclass
class Served:
    """A ready server: where it listens, what it has said so far, and its process."""

    process: subprocess.Popen[str]
    repository: Path
    lines: list[str] = field(default_factory=list)
    grpc: str = ""
    metrics: str = ""
    ready: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Collect the log until it ends; learns the addresses from the ready line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("{"):
                said = json.loads(line)
                self.grpc, self.metrics = said["grpc"], said["metrics"]
                self.ready.set()
        self.ready.set()

    @property
    def log(self) -> str:
        """Everything the server printed."""
        return "\n".join(self.lines)


def start(repository: Path, *options: str) -> tuple[Served, threading.Thread]:
    """Start it on free ports and wait until it is ready; returns it and the reader of its log."""
    command = [str(TEPI), "serve", f"--model-repository={repository}", "--grpc-address=127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--metrics-address=127.0.0.1:0", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    served = Served(process, repository)
    reader = threading.Thread(target=served.read)
    reader.start()
    if not served.ready.wait(READY_SECONDS) or not served.grpc:
        process.kill()
        reader.join()
        raise AssertionError(f"it did not become ready; it said:\n{served.log}")
    return served, reader


def stop(served: Served, reader: threading.Thread) -> None:
    """Stop it with SIGTERM; it must exit with 0 and never have printed a traceback."""
    served.process.send_signal(signal.SIGTERM)
    try:
        code = served.process.wait(timeout=20)
    finally:
        served.process.kill()
        reader.join()
        assert served.process.stdout is not None
        served.process.stdout.close()
    assert code == 0, f"the server exited with {code}; it said:\n{served.log}"
    assert "Traceback" not in served.log

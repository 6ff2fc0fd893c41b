# SPDX-License-Identifier: Apache-2.0
"""A real `tepi serve` process, as e2e tests start and stop it."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TEPI = Path(sys.executable).with_name("tepi")
ISA = "auto"  # of the servers' cards
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


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


@contextmanager
def serving(repository: Path, *options: str) -> Iterator[Served]:
    """A server on free ports, ready; afterwards SIGTERM must end it with 0 and no traceback.
    `repository` may be a file of sync settings instead."""
    what = "--sync" if repository.suffix == ".toml" else "--model-repository"
    free = ["--grpc-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0", f"--isa={ISA}"]
    with subprocess.Popen(
        [str(TEPI), "serve", f"{what}={repository}", *free, "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        served = Served(process, repository)
        reader = threading.Thread(target=served.read)
        reader.start()
        try:
            assert served.ready.wait(READY_SECONDS), f"not ready in time; it said:\n{served.log}"
            assert served.grpc, f"it ended instead of becoming ready; it said:\n{served.log}"
            yield served
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_SECONDS)
        finally:
            process.kill()
            reader.join()
    assert code == 0, f"the server exited with {code}; it said:\n{served.log}"
    assert "Traceback" not in served.log, served.log

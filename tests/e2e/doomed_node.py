# SPDX-License-Identifier: Apache-2.0
"""A node's sync in processes that die: killed at an operation of the disk or at a moment, or cut
off with all that was not synced lost. `Doomed` starts one process that has everything imported and
forks one child for each attempt, as the machine has no time to import onnxruntime 200 times.

python -m tests.e2e.doomed_node SETTINGS LOG      (orders as JSON lines on standard input)
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from edge_server import log
from edge_server.app import product_parts
from edge_server.fill.source import Answer
from edge_server.settings import Settings
from edge_server.store.disk import REAL_DISK, Disk
from edge_server.sync.alone import LoneModels
from edge_server.sync.node import Node, card_abi
from edge_server.sync.settings import OriginSettings, SyncSettings, read_settings
from registry.remote.client import Remote
from tests.edge_server.store.power_cut import PowerCutDisk, StepDisk

BLOCK = 1 << 19  # of the doomed stores: a power cut costs a partial blob no more than this
_NUMBERS = itertools.count()
CUT = 77  # exit code of a child that was cut off


class Order(NamedTuple):
    """How the next child ends: "run" to the end, "kill" or "cut" at operation `step`, or "time":
    killed after `seconds`."""

    how: str
    step: int = 0
    seconds: float = 0.0
    seed: int = 0


class Outcome(NamedTuple):
    """`code` is 0 where all became current, negative for a signal. `steps`: operations so far, of
    a child that was not interrupted."""

    code: int
    steps: int


class Request(NamedTuple):
    """A range of a blob that a child asked for, the bytes of it that came before it died, and those
    of the last piece."""

    digest: str
    first: int
    got: int = 0
    last: int = 0


class KilledDisk(StepDisk):
    """SIGKILL before operation `stop_at`, a write half done."""

    def died(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class CutDisk(PowerCutDisk):
    """A power cut before operation `stop_at`."""

    def __init__(self, base: Path, stop_at: int, seed: int) -> None:
        super().__init__(base, stop_at)
        self._rng = random.Random(seed)

    def died(self) -> None:
        self.cut(self._rng)  # with the disk's lock: nothing goes on meanwhile
        os._exit(CUT)


@dataclass(frozen=True, slots=True)
class _Settings(SyncSettings):
    """Trust is kept by its own room, not through the disk that is cut."""

    @property
    def trust(self) -> Path:
        return self.state.with_name("trust")


class _Counted:
    """An origin's remote; each blob request and each piece that comes is a line of the log."""

    def __init__(self, remote: Remote, log_fd: int) -> None:
        self._remote = remote
        self._fd = log_fd

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)

    def open_blob(
        self, name: str, digest: str, first: int = 0, last: int | None = None, etag: str = ""
    ) -> Answer:
        mark = f"{os.getpid()}.{next(_NUMBERS)}"
        os.write(self._fd, f"{mark} {digest} {first}\n".encode())
        answer = self._remote.open_blob(name, digest, first, last, etag)
        return _CountedAnswer(answer, self._fd, mark)


class _CountedAnswer:
    def __init__(self, answer: Answer, log_fd: int, mark: str) -> None:
        self._answer = answer
        self._fd = log_fd
        self._mark = mark

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)

    def readinto(self, buffer: memoryview) -> int:
        count = self._answer.readinto(buffer)
        os.write(self._fd, f"{self._mark} {count}\n".encode())
        return count


class _Node(Node):
    """A node whose origins are counted."""

    def __init__(self, settings: SyncSettings, disk: Disk, log_fd: int) -> None:
        self._log_fd = log_fd
        parts = product_parts()
        serving = Settings(settings.models)
        models = LoneModels(lambda: parts.open_card(serving), parts.open_session, 1)
        super().__init__(settings, models, card_abi("inproc"), disk=disk, block=BLOCK)

    def _remote(
        self, entry: OriginSettings, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Remote:
        counted: Any = _Counted(super()._remote(entry, timeout, headers), self._log_fd)
        found: Remote = counted
        return found


def _child(order: Order, settings: SyncSettings, log_fd: int, result_fd: int) -> int:
    """One process of the node: what it exits with where nothing ends it before."""
    disk: Disk = REAL_DISK
    counted = StepDisk()
    if order.how == "run":
        disk = counted
    elif order.how == "kill":
        disk = KilledDisk(order.step)
    elif order.how == "cut":
        disk = CutDisk(settings.state, order.step, order.seed)
    elif order.how == "time":
        signal.setitimer(signal.ITIMER_REAL, order.seconds)  # SIGALRM, which nobody handles
    node = _Node(settings, disk, log_fd)
    try:
        node.start(follow=False)
        good = node.once()
    finally:
        node.stop()
    os.write(result_fd, str(counted.steps).encode())
    return 0 if good else 1


def _serve(settings: SyncSettings, log_fd: int) -> None:
    """Fork a child for each order; its outcome is a line."""
    for line in sys.stdin:
        order = Order(*json.loads(line))
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os._exit(_child(order, settings, log_fd, writer))
        os.close(writer)
        with os.fdopen(reader, "rb") as results:
            steps = int(results.read() or b"0")
        _, status = os.waitpid(pid, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), steps]), flush=True)


def main() -> None:
    """See the module."""
    log.configure("text")
    found = read_settings(Path(sys.argv[1]))
    values = {field.name: getattr(found, field.name) for field in fields(SyncSettings)}
    log_fd = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _serve(_Settings(**values), log_fd)


class Doomed:
    """The test's side: orders go out, outcomes come back."""

    def __init__(self, process: subprocess.Popen[str], requests: Path) -> None:
        self._process = process
        self._requests = requests

    def order(self, order: Order) -> Outcome:
        """One child, from its birth to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Outcome(*json.loads(self._process.stdout.readline()))

    def requests(self) -> list[Request]:
        """What the children since the last call asked the origin for."""
        found: dict[str, Request] = {}
        for line in self._requests.read_text().splitlines() if self._requests.exists() else ():
            mark, *words = line.split()
            if len(words) == 2:
                found[mark] = Request(words[0], int(words[1]))
            elif int(words[0]):
                count = int(words[0])
                found[mark] = found[mark]._replace(got=found[mark].got + count, last=count)
        self._requests.write_bytes(b"")
        return list(found.values())


@contextmanager
def doomed(settings: Path) -> Iterator[Doomed]:
    """The process that forks the children."""
    requests = settings.with_name("requests")
    command = [sys.executable, "-m", "tests.e2e.doomed_node", str(settings), str(requests)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Doomed(process, requests)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


if __name__ == "__main__":
    main()

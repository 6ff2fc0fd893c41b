# SPDX-License-Identifier: Apache-2.0
"""A real `tepi card serve` process, as tests start, kill and stop it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TEPI = Path(sys.executable).with_name("tepi")
ISA = "auto"  # of the cards
STOP_SECONDS = 20.0


@dataclass
class CardProcess:
    """A card that listens."""

    process: subprocess.Popen[str]
    socket: Path

    @property
    def name(self) -> str:
        """As Card.open and --card take it."""
        return f"vfio-user:{self.socket}"

    @property
    def descriptors(self) -> list[str]:
        """What the process has open; one may close while it is looked at."""
        found = []
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(str(entry.readlink()))
        return sorted(found)

    @property
    def shared_mappings(self) -> int:
        """How often it has a client's memory mapped."""
        maps = Path(f"/proc/{self.process.pid}/maps").read_text(encoding="utf-8")
        return maps.count("/memfd:tepi-dma")

    def kill(self) -> None:
        """As the kernel would when it is out of memory."""
        self.process.kill()
        self.process.wait()


@contextmanager
def card_process(socket: Path, *options: str) -> Iterator[CardProcess]:
    """A card that listens at `socket`; unless it was killed SIGTERM must end it with 0."""
    with subprocess.Popen(
        [str(TEPI), "card", "serve", f"--socket={socket}", f"--isa={ISA}", "--json", *options],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line and json.loads(line)["ready"], f"not ready; it said {line!r}"
            yield CardProcess(process, socket)
            if process.poll() is None:
                process.terminate()
                assert process.wait(STOP_SECONDS) == 0
                assert not socket.exists()
        finally:
            process.kill()

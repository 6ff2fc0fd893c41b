# SPDX-License-Identifier: Apache-2.0
"""Runs `tepi` as a person would: the server as a process of its own, and single commands."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

TEPI = Path(sys.executable).with_name("tepi")
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServerProcess:
    """A running `tepi serve` with card control on, listening where the system let it."""

    def __init__(self, process: Process, address: str, log: "asyncio.Task[None]") -> None:
        self.address = address
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, repository: Path) -> "ServerProcess":
        """Start it and wait for its ready line; raises ConnectionError with what it printed."""
        process = await asyncio.create_subprocess_exec(
            str(TEPI),
            "serve",
            f"--model-repository={repository}",
            "--grpc-address=127.0.0.1:0",
            "--metrics-address=127.0.0.1:0",
            "--card-control",
            "--json",
            stdout=PIPE,
            stderr=STDOUT,
        )
        assert process.stdout is not None
        seen: list[str] = []
        try:
            async with asyncio.timeout(READY_SECONDS):
                async for line in process.stdout:
                    seen.append(line.decode(errors="replace").rstrip())
                    if seen[-1].startswith("{"):
                        log = asyncio.create_task(cls._drain(process))
                        return cls(process, json.loads(seen[-1])["grpc"], log)
        except TimeoutError:
            process.kill()
        await process.wait()
        raise ConnectionError("tepi serve did not become ready; it said:\n" + "\n".join(seen))

    @staticmethod
    async def _drain(process: Process) -> None:
        assert process.stdout is not None
        async for _line in process.stdout:
            pass

    async def stop(self) -> int:
        """Ask it to stop (SIGTERM) and return its exit code; killed after STOP_SECONDS."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
        await self._log
        return await self._process.wait()


async def tepi(*words: str) -> str:
    """Run one tepi command and return what it printed; ConnectionError if it failed."""
    process = await asyncio.create_subprocess_exec(str(TEPI), *words, stdout=PIPE, stderr=STDOUT)
    printed, _ = await process.communicate()
    text = printed.decode(errors="replace").strip()
    if process.returncode != 0:
        raise ConnectionError(f"`tepi {' '.join(words)}` failed: {text}")
    return text

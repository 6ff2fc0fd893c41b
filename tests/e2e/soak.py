# SPDX-License-Identifier: Apache-2.0
"""Steady load while the card fails in every way it can, in random order from a printed seed.

    make soak                                         10 minutes
    python -m tests.e2e.soak --minutes 1 --seed 7

A card process and a server process, kept apart by vfio-user. Clients compare every answer with
onnxruntime's to the byte. It exits 0 where no request failed, no answer was wrong, the card came
back after each fault, and neither process grew.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from device.control import ask
from device.host import open_session
from edge_server.card.command import as_dict
from edge_server.client import CARD_CONTROL, Client
from tests.e2e.server_process import TEPI, Served, serving
from wire import inference_pb2 as pb
from wire import tepi_card_pb2 as card_pb

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples/digits"
CLIENTS = 4
WARM_SECONDS = 5.0
BACK_SECONDS = 60.0
GIVEN_UP_SECONDS = 240.0  # five resets of 5 s, with pauses of up to 30 s
GROWTH_MIB = 24.0
DEADLINE_MS = 250.0


@dataclass
class Load:
    """Clients that never stop asking, and what came of it."""

    address: str
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    devices: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    def client(self, number: int, images: Any, expected: Any) -> None:
        """One client: a request at a time, each image in turn."""
        with grpc.insecure_channel(self.address) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            at = number
            while not self.stop.is_set():
                at = (at + CLIENTS) % len(images)
                start = time.perf_counter()
                try:
                    answer = infer(_request(images[at]), timeout=10)
                except grpc.RpcError as error:
                    with self.lock:
                        self.failures.append(f"{error.code().name}: {error.details()}")
                    continue
                self._judge(at, answer, expected[at], (time.perf_counter() - start) * 1e3)

    def _judge(self, at: int, answer: pb.ModelInferResponse, expected: bytes, ms: float) -> None:
        said = {name: value.string_param for name, value in answer.parameters.items()}
        with self.lock:
            self.latencies_ms.append(ms)
            self.devices[said["tepi_device"]] += 1
            if reason := said.get("tepi_fallback_reason"):
                self.reasons[reason] += 1
            if answer.raw_output_contents[0] != expected:
                self.wrong.append(f"image {at} on {said['tepi_device']}")


def _request(image: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="digits")
    request.inputs.add(name="image", datatype="FP32", shape=image.shape)
    request.raw_input_contents.append(image.tobytes())
    return request


class CardProcess:
    """`tepi card serve`, started again where it was killed."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "card.sock"
        self.control = folder / "card.control"
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it listens."""
        words = ["card", "serve", f"--socket={self.socket}", f"--control={self.control}"]
        self._process = subprocess.Popen(
            [str(TEPI), *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "ready" in line, f"the card process said {line!r}"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """At once, and its end awaited."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass
class Process:
    """What a process holds."""

    rss_mib: float
    fds: int

    @classmethod
    def of(cls, pid: int) -> "Process":
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        kib = next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS:"))
        return cls(kib / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())))


@dataclass
class Report:
    """What the soak found."""

    faults: Counter[str] = field(default_factory=Counter)
    slow: list[str] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)

    def print(self, load: Load) -> bool:
        """True where all is well."""
        total = sum(load.devices.values())
        ms = np.percentile(load.latencies_ms or [0.0], (50, 99, 99.9, 100))
        print(f"{total} requests: " + ", ".join(f"{n} on {d}" for d, n in load.devices.items()))
        print("fallbacks: " + (", ".join(f"{n} {r}" for r, n in load.reasons.items()) or "none"))
        faults = ", ".join(f"{n} {fault}" for fault, n in sorted(self.faults.items()))
        print(f"faults: {faults or 'none'}")
        print("latency ms: p50 {:.2f}, p99 {:.2f}, p99.9 {:.2f}, most {:.2f}".format(*ms))
        late = [value - DEADLINE_MS for value in load.latencies_ms if value >= DEADLINE_MS]
        if late:
            over = float(np.percentile(late, 99))
            print(
                f"{len(late)} requests waited for the card until its deadline of "
                f"{DEADLINE_MS:.0f} ms, and {over:.1f} ms more (p99; {max(late):.1f} at most)"
            )
        if self.back_s:
            worst, usual = max(self.back_s), float(np.median(self.back_s))
            print(f"card back in service after {usual:.2f} s in the median, {worst:.2f} s at most")
        found = [
            *(f"request failed: {text}" for text in load.failures[:10]),
            *(f"wrong answer: {text}" for text in load.wrong[:10]),
            *self.slow,
            *self.grown,
        ]
        for text in found:
            print(f"FAILED {text}")
        print(f"{len(load.failures)} failed requests, {len(load.wrong)} wrong answers")
        return not found and total > 0


HANG = {"kind": "HANG"}
FATAL: dict[str, dict[str, Any]] = {
    "hang": {"plan": [HANG]},
    "wrong generation": {"plan": [{"kind": "WRONG_GENERATION", "trigger": "execute", "after": 20}]},
    "corrupt completion": {
        "plan": [{"kind": "CORRUPT_COMPLETION", "trigger": "execute", "after": 20}]
    },
    "thermal shutdown": {"plan": [{"kind": "THERMAL_SHUTDOWN"}]},
    "firmware assert": {"plan": [{"kind": "FIRMWARE_ASSERT", "count": 7}]},
    "two bits flip": {"plan": [{"kind": "BIT_FLIP", "trigger": "execute", "after": 1, "count": 2}]},
    "removal": {"remove_s": 0.5},
    "reset fails once": {"plan": [{"kind": "RESET_FAILS", "count": 1}, HANG]},
}
PASSING: dict[str, dict[str, Any]] = {
    "a bit flips": {"plan": [{"kind": "BIT_FLIP", "trigger": "execute", "after": 1, "count": 1}]},
    "slow": {"plan": [{"kind": "SLOW", "factor": 1000, "count": 40}]},
    "DMA error": {"plan": [{"kind": "DMA_ERROR", "count": 6}]},
    "thermal throttle": {"plan": [{"kind": "THERMAL_THROTTLE", "factor": 4}]},
}
FOR_EVER: dict[str, Any] = {"plan": [{"kind": "RESET_FAILS", "count": 0}, HANG]}


class Agitator:
    """Chooses what goes wrong next, and waits until the card is back."""

    def __init__(self, card: CardProcess, served: Served, chance: random.Random) -> None:
        self._card = card
        self._served = served
        self._chance = chance
        self._kinds: dict[str, Callable[[], None]] = {
            "kill -9": self._kill,
            "operator reset": self._reset,
            "reset fails for ever": self._fail_for_ever,
        }
        for kind, request in (FATAL | PASSING).items():
            self._kinds[kind] = partial(ask, card.control, request)
        self._names = sorted(self._kinds)

    def one(self, report: Report) -> None:
        """A fault of any kind."""
        self.suffer(self._chance.choice(self._names), report)

    def suffer(self, name: str, report: Report) -> None:
        """One fault, from its cause to the card's return."""
        report.faults[name] += 1
        start = time.perf_counter()
        before = self._status()
        try:
            self._kinds[name]()
            if name in PASSING:
                time.sleep(self._chance.uniform(0.2, 1.0))
            self._await(
                lambda now: (
                    now["state"] == "CARD_STATE_READY"
                    and all(model["device"] == "card" for model in now["models"])
                    and (name not in FATAL or int(now["losses"]) > int(before["losses"]))
                )
            )
        except TimeoutError as error:
            report.slow.append(f"{name}: {error}")
        else:
            report.back_s.append(time.perf_counter() - start)

    def _await(
        self, reached: Callable[[dict[str, Any]], bool], seconds: float = BACK_SECONDS
    ) -> None:
        end = time.perf_counter() + seconds
        while not reached(now := self._status()):
            if time.perf_counter() > end:
                raise TimeoutError(f"after {seconds:.0f} s {now['state']}, {now['reason']}")
            time.sleep(0.05)

    def _kill(self) -> None:
        self._card.kill()
        time.sleep(self._chance.uniform(0.0, 0.5))
        self._card.start()

    def _reset(self) -> None:
        words = ("card", "reset", f"--address={self._served.grpc}")
        subprocess.run([str(TEPI), *words], check=True, capture_output=True, timeout=60)

    def _fail_for_ever(self) -> None:
        """Until the server gives up; then somebody mends the card and resets it."""
        ask(self._card.control, FOR_EVER)
        self._await(lambda now: now["state"] == "CARD_STATE_FAILED", GIVEN_UP_SECONDS)
        words = ("card", "reset", f"--address={self._served.grpc}")
        done = subprocess.run([str(TEPI), *words], capture_output=True, timeout=60)
        assert done.returncode == 1, "a reset that failed was said to be done"
        ask(self._card.control, {"plan": []})
        self._await(lambda now: now["state"] in ("CARD_STATE_FAILED", "CARD_STATE_READY"))
        self._reset()

    def _status(self) -> dict[str, Any]:
        with Client(self._served.grpc, 20.0) as client:
            return as_dict(
                client.call(CARD_CONTROL, "Status", card_pb.CardStatusRequest(), card_pb.CardStatus)
            )


@contextmanager
def loaded(address: str) -> Iterator[Load]:
    """Clients at work, all with answers that onnxruntime gave beforehand."""
    with np.load(DIGITS / "held-out.npz") as file:
        images = file["images"].astype(np.float32)[:64, None, None]
    session = open_session(str(DIGITS / "model_repository/digits/1/model.onnx"))
    expected = [session.run(None, {"image": image})[0].tobytes() for image in images]
    load = Load(address)
    threads = [
        threading.Thread(target=load.client, args=(number, images, expected))
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()


def soak(minutes: float, seed: int, faults: int | None = None) -> bool:
    """For so many minutes, or so many faults; prints a report, true where all is well."""
    report = Report()
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as name:
        card = CardProcess(Path(name))
        card.start()
        options = (f"--card=vfio-user:{card.socket}", "--card-control", "--shadow-share=0.05")
        with (
            serving(DIGITS / "model_repository", *options) as served,
            loaded(served.grpc) as load,
        ):
            time.sleep(WARM_SECONDS)
            before = Process.of(served.process.pid)
            agitator = Agitator(card, served, random.Random(seed))
            end = time.monotonic() + minutes * 60
            done = 0
            while time.monotonic() < end and (faults is None or done < faults):
                agitator.one(report)
                done += 1
            time.sleep(1.0)
            after = Process.of(served.process.pid)
        card.kill(signal.SIGTERM)
    print(
        f"server: {before.rss_mib:.1f} MiB and {before.fds} fds, then {after.rss_mib:.1f} MiB",
        end="",
    )
    print(f" and {after.fds} fds")
    if after.rss_mib - before.rss_mib > GROWTH_MIB:
        report.grown.append(f"the server grew by {after.rss_mib - before.rss_mib:.1f} MiB")
    if after.fds > before.fds + 8:
        report.grown.append(f"the server holds {after.fds - before.fds} more files")
    return report.print(load)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    return 0 if soak(arguments.minutes, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())

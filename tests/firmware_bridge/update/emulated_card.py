# SPDX-License-Identifier: Apache-2.0
"""An emulated controller at the end of a line in memory, a clock that only the test moves, and
hands to cut the power, pull the plug or kill the tool at a chosen moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from firmware_bridge.client import Controller as Client
from firmware_bridge.controller.controller import Controller
from firmware_bridge.controller.flash import Cut, Flash, Operation, PowerCut
from firmware_bridge.controller.injected import Injected
from firmware_bridge.errors import BridgeError, CardVanished, NoPort
from firmware_bridge.history import History
from firmware_bridge.image import parse_image
from firmware_bridge.update.checks import Demands, Package
from firmware_bridge.update.flow import Update
from firmware_bridge.update.hooks import HostVersions, Server
from firmware_bridge.update.line import Line
from firmware_bridge.update.steps import Step
from tests.firmware_bridge.controller.bench_board import NOW, VENDOR, blank

KEYS = [VENDOR.image_key.public_key()]
HOST = HostVersions(driver="0.1.0", abi=1)
PORT = "/dev/card0"
WHOLE = [
    Step.INSPECT,
    Step.CHECK,
    Step.UPLOAD,
    Step.DRAIN,
    Step.TEST,
    Step.RESET,
    Step.WAIT,
    Step.COMPARE,
    Step.TAKE_BACK,
    Step.HEALTH,
    Step.CONFIRM,
]
"""The steps of a run in which all goes well."""


class Killed(BaseException):
    """The tool is killed: no handler of its may run after it, other than the interpreter's own."""


class EmulatedCard:
    """A card, its power and its port."""

    def __init__(self, path: Path, injected: Injected | None = None) -> None:
        blank(path).close()
        self.path = path
        self.now = 100.0
        self.injected = injected
        self.plugged = True
        self.load = 0.0
        self.cuts: set[int] = set()  # flash operations, from now on, in which the power goes
        self.cut_share = 0.5  # of the operation that is done by then
        self.power_cuts = 0
        self.operations = 0
        self._start()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes on the card as well."""
        self.now += seconds
        self._survive(lambda: self.mcu.tick(self.now))

    def connect(self, _: str) -> Client:
        if not self.plugged:
            raise NoPort(f"{PORT}: no such port")
        return Client(Wire(self), clock=self.clock, sequence=0)

    def cut_power(self) -> None:
        """And give it back at once; everything that is not in flash is gone."""
        self.power_cuts += 1
        self.flash.close()
        self._start()

    def _start(self) -> None:
        while True:
            self.flash = Flash(self.path)
            self.flash.before = self._before
            try:
                self.mcu = self._booted()
                return
            except PowerCut:
                self.power_cuts += 1
                self.flash.close()

    def _booted(self) -> Controller:
        return Controller(
            self.flash,
            KEYS,
            wall=lambda: NOW + self.now,
            now=self.now,
            load=lambda: self.load,
            injected=self.injected,
        )

    def _before(self, operation: Operation) -> Cut | None:
        self.operations += 1
        if self.operations in self.cuts:
            return Cut(int(operation.size * self.cut_share), self.operations)
        return None

    def _survive(self, act: Callable[[], None]) -> None:
        try:
            act()
        except PowerCut:
            self.cut_power()

    def transfer(self, outgoing: bytes, timeout: float) -> bytes:
        """What the card sends until `timeout`; a power cut loses it."""
        if not self.plugged:
            raise CardVanished(
                f"{PORT}: it is gone", "look at the cable, then run the same command again"
            )
        answers = b""
        if outgoing:
            try:
                answers = self.mcu.receive(outgoing, self.now)
            except PowerCut:
                self.cut_power()
        if not answers:
            self.sleep(timeout)
        return answers

    @property
    def running(self) -> str:
        """The version of what runs; empty in recovery."""
        return str(self.mcu.image.version) if self.mcu.image else ""


class Wire:
    """The host's end of the line."""

    def __init__(self, card: EmulatedCard) -> None:
        self.url = PORT
        self.bytes_per_second: float | None = None
        self._card = card

    def transfer(self, outgoing: bytes | memoryview, timeout: float) -> tuple[int, bytes]:
        return len(outgoing), self._card.transfer(bytes(outgoing), timeout)

    def close(self) -> None:
        pass


class Diary:
    """Writes down what an update tells; `kill_at` kills the tool there."""

    def __init__(self, kill_at: Step | None = None) -> None:
        self.kill_at = kill_at
        self.steps: list[Step] = []
        self.texts: list[str] = []
        self.most = 0

    def step(self, card: str, step: Step, text: str) -> None:
        if text:
            self.texts.append(f"{card}: {step}: {text}")
            return
        self.steps.append(step)
        if step is self.kill_at:
            raise Killed

    def progress(self, card: str, done: int, total: int) -> None:
        self.most = max(self.most, done)
        assert done <= total


class FakeServer:
    """A server that says what it was asked to do; `ill` is its diagnosis, `refusals` how often it
    does not get the card back."""

    address = "unix:/run/tepi.sock"

    def __init__(self, ill: str = "", refusals: int = 0) -> None:
        self.ill = ill
        self.refusals = refusals
        self.calls: list[str] = []

    def drain(self) -> None:
        self.calls.append("drain")

    def take_back(self) -> None:
        self.calls.append("take back")
        if self.refusals:
            self.refusals -= 1
            raise BridgeError("the card does not answer on its bus")

    def diagnose(self) -> str:
        self.calls.append("diagnose")
        return self.ill


def package(data: bytes) -> Package:
    from hashlib import sha256

    return Package(Path("firmware.bin"), data, parse_image(data), sha256(data).digest())


def updating(
    card: EmulatedCard,
    data: bytes,
    history: History,
    told: Diary | None = None,
    *,
    server: Server | None = None,
    confirm: bool = True,
    **demands: bool,
) -> Update:
    """One run of the tool for the card."""
    line = Line(PORT, card.connect, clock=card.clock, sleep=card.sleep)
    wanted = Demands(KEYS, HOST, **demands)
    found = Diary() if told is None else told
    return Update(line, package(data), wanted, history, found, server=server, confirm=confirm)

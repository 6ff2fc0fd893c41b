# SPDX-License-Identifier: Apache-2.0
"""`tepi card flash` against `tepi card mcu`, each a process of its own: the tool killed at every
step, the controller killed in the middle of its flash operations; the same command again finishes.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firmware_bridge.controller.identity import factory_image
from firmware_bridge.controller.vendor import Vendor
from firmware_bridge.update.steps import Step
from tests.e2e.server_process import TEPI, serving

READY_SECONDS = 30.0
SERIAL = "TC1-E2E"
STEPS = [
    Step.CHECK,
    Step.UPLOAD,
    Step.DRAIN,
    Step.TEST,
    Step.RESET,
    Step.WAIT,
    Step.COMPARE,
    Step.HEALTH,
    Step.CONFIRM,
]


@dataclass
class Board:
    """A controller's process; while `powered`, it is started again whenever it dies."""

    folder: Path
    load: Path | None = None  # a file with the card's load, 0 to 1
    powered: bool = True
    faults: dict[str, int] = field(default_factory=dict)  # of the next start only
    process: subprocess.Popen[str] | None = None
    starts: int = 0
    ready: int = 0  # the last start that has become ready
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def port(self) -> str:
        return str(self.folder / "card.mcu")

    @property
    def vendor(self) -> Path:
        return self.folder / "vendor"

    def live(self) -> None:
        """Until the power is taken away for good."""
        while self.powered:
            words = ["--flash", str(self.folder / "card.flash"), "--vendor", str(self.vendor)]
            words += ["--link", self.port, "--serial", SERIAL, "--json"]
            if self.load is not None:
                words += ["--load", str(self.load)]
            if self.faults:
                path = self.folder / "faults.json"
                path.write_text(json.dumps(self.faults), encoding="utf-8")
                words += ["--faults", str(path)]
                self.faults = {}
            with subprocess.Popen(
                [str(TEPI), "card", "mcu", *words], stdout=subprocess.PIPE, text=True
            ) as process:
                with self.changed:
                    self.process = process
                    self.starts += 1
                assert process.stdout is not None
                if process.stdout.readline():
                    with self.changed:
                        self.ready = self.starts
                        self.changed.notify_all()

    def wait(self, after: int) -> None:
        """Until a start later than the one with the number `after` is ready."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.ready > after, READY_SECONDS)

    def restart(self, **faults: int) -> int:
        """Cut the power, give it back; the controller is to suffer those faults. The number of the
        start."""
        with self.changed:
            self.faults, before, process = faults, self.starts, self.process
        assert process is not None
        process.kill()
        self.wait(before)
        return before + 1

    def tepi(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        return subprocess.run(
            [str(TEPI), "card", *words], capture_output=True, text=True, timeout=120
        )

    def flash(self, image: Path) -> list[str]:
        """The words of the command that flashes this card."""
        history = self.folder / "history"
        return [
            "flash", str(image), f"--port={self.port}", f"--image-key={self.vendor}",
            f"--history={history}", "--back-seconds=30",
        ]  # fmt: skip

    def running(self) -> dict[str, object]:
        """The active slot."""
        found = self.tepi("versions", f"--port={self.port}", "--json")
        assert found.returncode == 0, found.stderr
        slots = json.loads(found.stdout)["slots"]
        (active,) = [slot for slot in slots if slot["active"]]
        return dict(active)

    def image(self, version: str, counter: int = 1, size: int = 40_000) -> Path:
        """A signed image file."""
        body = version.encode().ljust(8) * (size // 8)
        data = factory_image(Vendor.read(self.vendor), version, counter, body=body)
        path = self.folder / f"{version}.bin"
        path.write_bytes(data)
        return path


@contextmanager
def board(folder: Path, load: Path | None = None) -> Iterator[Board]:
    made = Board(folder, load)
    assert made.tepi("mcu", "--make-vendor", str(made.vendor)).returncode == 0
    thread = threading.Thread(target=made.live)
    thread.start()
    try:
        made.wait(0)
        yield made
    finally:
        made.powered = False
        while thread.is_alive():  # one that was just being started is told as well
            if made.process is not None:
                made.process.terminate()
            thread.join(1)


def kill_at(words: list[str], step: Step) -> None:
    """Run `tepi card …` and kill -9 it when it says that it begins a step."""
    with subprocess.Popen(
        [str(TEPI), "card", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as tool:
        assert tool.stderr is not None
        said = []
        for line in tool.stderr:
            said.append(line)
            if line.rstrip().endswith(f": {step}"):
                tool.kill()
                break
        else:
            pytest.fail(f"it never came to {step}; it said: {said}")


def test_tool_killed_at_every_step(tmp_path: Path) -> None:
    with board(tmp_path) as card:
        for number, step in enumerate(STEPS, 1):
            words = card.flash(card.image(f"1.{number}.0"))
            kill_at(words, step)
            again = card.tepi(*words)
            assert again.returncode == 0, (step, again.stderr)
            active = card.running()
            assert (active["version"], active["confirmed"]) == (f"1.{number}.0", True), step
        told = card.tepi(
            "history", f"--history={tmp_path / 'history'}", f"--card={SERIAL}", "--json"
        )
        done = [
            line["version"] for line in json.loads(told.stdout) if line["outcome"] == "confirmed"
        ]
        assert done[-1] == f"1.{len(STEPS)}.0"
        assert card.starts == 1


@pytest.mark.parametrize("cuts", [(2, 9, 16), (23, 31, 40), (55, 71, 90)])
def test_controller_killed_in_mid_operation(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    """The power goes in a flash operation of the upload, the marking, the swap or the confirm."""
    with board(tmp_path) as card:
        for number, cut in enumerate(cuts, 1):
            version = f"1.{number}.0"
            words = card.flash(card.image(version))
            start = card.restart(cut_at=cut, cut_done=8)
            first = card.tepi(*words)
            if first.returncode != 0:
                assert SERIAL in first.stderr or card.port in first.stderr
                card.wait(start)
                second = card.tepi(*words)
                assert second.returncode == 0, (cut, first.stderr, second.stderr)
            assert card.starts == start + 1, "the power was cut once"
            assert card.running()["version"] == version, cut


def test_server_drains_its_card_and_has_it_back(tmp_path: Path, digits_repository: Path) -> None:
    """A server that also looks at the controller's readings, through the same port."""
    with board(tmp_path) as card:
        watch = f"--controller={card.port}"
        with serving(digits_repository, "--card-control", watch) as served:
            done = card.tepi(*card.flash(card.image("1.1.0")), f"--server={served.grpc}")
            assert done.returncode == 0, done.stderr
            assert "driver" in done.stderr and "not known here" not in done.stderr
            state = card.tepi("info", f"--address={served.grpc}", "--json")
            assert json.loads(state.stdout)["state"] == "CARD_STATE_READY", state.stdout
            infer = ["infer", "digits", "--random", "--address", served.grpc]
            answered = subprocess.run([str(TEPI), *infer], capture_output=True, timeout=60)
            assert answered.returncode == 0
        rested = [line for line in served.lines if "resting" in line]
        assert rested and "its firmware is being changed" in "".join(rested)
        assert card.running()["version"] == "1.1.0"


def test_refused_with_a_message_and_a_code_of_its_own(tmp_path: Path) -> None:
    with board(tmp_path) as card:
        image = card.image("1.1.0")
        stranger = tmp_path / "stranger"
        assert card.tepi("mcu", "--make-vendor", str(stranger)).returncode == 0
        words = [*card.flash(image)[:3], f"--image-key={stranger}", f"--history={tmp_path}"]
        refused = card.tepi(*words)
        assert refused.returncode == 10, refused.stderr
        assert SERIAL in refused.stderr and "not trusted here" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert card.running()["version"] == "1.0.0"
    gone = card.tepi(*card.flash(image))
    assert gone.returncode == 1, gone.stderr
    assert card.port in gone.stderr

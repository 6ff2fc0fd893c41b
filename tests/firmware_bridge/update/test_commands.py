# SPDX-License-Identifier: Apache-2.0
"""`tepi card …` against emulated controllers behind ptys: what is refused and with which exit code,
and what each command prints."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from firmware_bridge.controller.injected import Injected
from firmware_bridge.controller.vendor import Vendor
from firmware_bridge.errors import BridgeError
from firmware_bridge.image import sign_image
from firmware_bridge.port import Port
from firmware_bridge.update import command, flash_command, options
from firmware_bridge.update.change_commands import reset_controller
from tests.firmware_bridge.controller.bench_board import NOW, firmware
from tests.firmware_bridge.update.pty_card import PtyCard, card_on_pty, vendor_folder

SERIAL = "TC1-0042"
Run = Callable[..., Result]


@pytest.fixture
def card(tmp_path: Path) -> Iterator[PtyCard]:
    with card_on_pty(tmp_path, SERIAL) as found:
        yield found


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    return vendor_folder(tmp_path / "vendor")


@pytest.fixture
def run(tmp_path: Path, vendor: Path) -> Run:
    """Run a command with the history and the vendor's keys in the test's folder."""

    def invoke(name: str, *words: str) -> Result:
        attribute = getattr(command, name)
        own = [f"--history={tmp_path / 'history'}"] if _takes(attribute, "history_folder") else []
        own += [f"--image-key={vendor}"] if _takes(attribute, "keys") else []
        return CliRunner().invoke(attribute, [*words, *own])

    return invoke


def _takes(found: Any, name: str) -> bool:
    return any(parameter.name == name for parameter in found.params)


def written(tmp_path: Path, data: bytes, name: str = "firmware.bin") -> str:
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def damaged(data: bytes) -> bytes:
    return data[:0x500] + bytes([data[0x500] ^ 1]) + data[0x501:]


def by_another_vendor() -> bytes:
    other = Vendor.new(lambda: NOW)
    return sign_image(b"x" * 4096, other.image_key, version="1.1.0", counter=2, board="tepi-c1")


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "wrong signature": (by_another_vendor(), 10, r"not trusted here"),
    "wrong board": (firmware("1.1.0", 2, board="tepi-x9"), 11, r"'tepi-x9', and this card is"),
    "lower counter": (firmware("1.1.0", 0), 12, r"security counter 0.*asks for 1"),
    "truncated": (firmware("1.1.0", 2)[:-40], 13, r"firmware\.bin: .*the file holds"),
    "oversize": (firmware("1.1.0", 2, pages=9), 14, r"slot takes 28672"),
    "hash mismatch": (damaged(firmware("1.1.0", 2)), 15, r"SHA-256"),
    "older version": (firmware("0.9.0", 1), 22, r"runs 1\.0\.0, and the image is 0\.9\.0"),
    "no image": (b"\x7fELF" + bytes(4096), 1, r"no MCUboot image"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_before_a_byte_is_written(
    card: PtyCard, run: Run, tmp_path: Path, fault: str
) -> None:
    data, code, text = REFUSED[fault]
    before = card.controller.flash.operations
    found = run("flash", written(tmp_path, data), f"--port={card.port}")
    assert isinstance(found.exception, BridgeError), found.output
    assert found.exception.exit_code == code
    assert re.search(text, str(found.exception))
    assert found.exception.remedy
    assert card.controller.flash.operations == before
    assert not (tmp_path / "history").exists(), "nothing was done to the card"


def test_refused_for_the_driver_and_forced(card: PtyCard, run: Run, tmp_path: Path) -> None:
    file, port = written(tmp_path, firmware("1.1.0", 2)), f"--port={card.port}"
    found = run("flash", file, port, "--driver=9.9", "--abi=1")
    assert isinstance(found.exception, BridgeError)
    assert found.exception.exit_code == 21
    assert "works with driver" in str(found.exception) and "not 9.9" in str(found.exception)
    assert run("flash", file, port, "--driver=9.9", "--abi=1", "--force").exit_code == 0
    assert card.running == "1.1.0"


def test_force_does_not_skip_the_signature(card: PtyCard, run: Run, tmp_path: Path) -> None:
    file = written(tmp_path, by_another_vendor())
    found = run("flash", file, f"--port={card.port}", "--force", "--allow-downgrade")
    assert isinstance(found.exception, BridgeError) and found.exception.exit_code == 10


def test_downgrade_is_taken_where_the_counter_permits(
    card: PtyCard, run: Run, tmp_path: Path
) -> None:
    file = written(tmp_path, firmware("0.9.0", 1))
    assert run("flash", file, f"--port={card.port}", "--allow-downgrade").exit_code == 0
    assert card.running == "0.9.0"


def test_port_busy(
    card: PtyCard, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "BUSY_SECONDS", 0.0)
    holder = Port(card.port)
    try:
        found = run("flash", written(tmp_path, firmware("1.1.0", 2)), f"--port={card.port}")
    finally:
        holder.close()
    assert isinstance(found.exception, BridgeError)
    assert found.exception.exit_code == 16
    assert card.port in str(found.exception)


def test_port_that_is_busy_for_a_moment_is_waited_for(card: PtyCard) -> None:
    holder = Port(card.port)
    seconds = iter([0.0, 0.1, 0.2])

    def sleep(_: float) -> None:
        holder.close()

    from firmware_bridge.client import Controller

    with options.patiently(Controller.open, lambda: next(seconds), sleep)(card.port) as found:
        assert found.echo("hello") == "hello"


def test_history_full(card: PtyCard, run: Run, tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "history.spare").symlink_to("/dev/full")
    found = run("flash", written(tmp_path, firmware("1.1.0", 2)), f"--port={card.port}")
    assert isinstance(found.exception, BridgeError)
    assert found.exception.exit_code == 19
    assert card.running == "1.0.0"


def test_silent_card_and_card_that_vanishes(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path, firmware("1.1.0", 2))
    with card_on_pty(tmp_path, "TC1-DEAD", Injected(wedge_after=0)) as dead:
        found = run("flash", file, f"--port={dead.port}")
        assert isinstance(found.exception, BridgeError) and found.exception.exit_code == 17
    with card_on_pty(tmp_path, "TC1-GONE", Injected(vanish_after=12, vanish_s=0.1)) as gone:
        found = run("flash", file, f"--port={gone.port}")
        assert isinstance(found.exception, BridgeError), found.output
        assert found.exception.exit_code == 18
        assert "TC1-GONE" in str(found.exception) and "upload" in str(found.exception)


def test_line_with_bit_errors(run: Run, tmp_path: Path) -> None:
    """1 in 10,000 bits wrong, both ways."""
    file = written(tmp_path, firmware("1.1.0", 2))
    with card_on_pty(tmp_path, "TC1-BAD", Injected(bit_errors=1e-4, seed=3)) as noisy:
        found = run("flash", file, f"--port={noisy.port}")
        assert found.exit_code == 0, found.output
        assert noisy.running == "1.1.0"


def test_flash_says_what_it_does(card: PtyCard, run: Run, tmp_path: Path) -> None:
    file, port = written(tmp_path, firmware("1.1.0", 2)), f"--port={card.port}"
    plan = run("flash", file, port, "--dry-run")
    assert plan.exit_code == 0 and card.running == "1.0.0"
    assert "would: upload, drain, test, reset" in plan.stdout
    done = run("flash", file, port)
    assert done.exit_code == 0, done.output
    assert f"card {SERIAL}: runs 1.1.0 for good, 1.0.0 before" in done.stdout
    assert f"card {SERIAL}: upload: 100 %" in done.stderr
    again = run("flash", file, port, "--json")
    assert json.loads(again.stdout) == {
        "cards": [
            {
                "port": card.port,
                "card": SERIAL,
                "result": "done",
                "before": "1.1.0",
                "version": "1.1.0",
                "changed": False,
            }
        ]
    }
    story = json.loads(run("history", "--json").stdout)
    assert [line["outcome"] for line in story][:2] == ["began", "uploaded"]
    assert "confirmed" in run("history", f"--card={SERIAL}").stdout


def test_json_of_a_failure_names_card_remedy_and_code(
    card: PtyCard, run: Run, tmp_path: Path
) -> None:
    found = run("flash", written(tmp_path, firmware("0.9.0", 1)), f"--port={card.port}", "--json")
    assert found.exit_code == 22
    (told,) = json.loads(found.stdout)["cards"]
    assert told["result"] == "failed" and told["exit_code"] == 22
    assert SERIAL in told["error"] and "--allow-downgrade" in told["remedy"]


def test_several_cards_the_first_alone(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path, firmware("1.1.0", 2))
    with (
        card_on_pty(tmp_path, "TC1-A") as first,
        card_on_pty(tmp_path, "TC1-B") as second,
        card_on_pty(tmp_path, "TC1-C", Injected(wedge_after=0)) as third,
    ):
        ports = [f"--port={one.port}" for one in (first, second, third)]
        found = run("flash", file, *ports)
        assert found.exit_code == 17
        assert (first.running, second.running, third.running) == ("1.1.0", "1.1.0", "1.0.0")
        assert third.port in found.stderr and "nothing answers" in found.stderr
        assert "card TC1-B: runs 1.1.0" in found.stdout
        lines = found.stderr.splitlines()
        confirmed = lines.index("card TC1-A: confirm")
        assert all("TC1-B" not in line for line in lines[:confirmed])


def test_first_card_that_fails_spares_the_others(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path, firmware("0.9.0", 1))
    with card_on_pty(tmp_path, "TC1-A") as first, card_on_pty(tmp_path, "TC1-B") as second:
        found = run("flash", file, f"--port={first.port}", f"--port={second.port}", "--json")
        assert found.exit_code == 22
        told = json.loads(found.stdout)["cards"]
        assert [one["result"] for one in told] == ["failed", "not tried"]
        assert second.controller.requests == 0


def test_every_card_that_is_found(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firmware_bridge.discovery import find_cards

    monkeypatch.setattr(flash_command, "find_cards", lambda: find_cards(tmp_path, list))
    file = written(tmp_path, firmware("1.1.0", 2))
    with card_on_pty(tmp_path, "TC1-A") as first, card_on_pty(tmp_path, "TC1-B") as second:
        assert run("flash", file, "--all").exit_code == 0
        assert (first.running, second.running) == ("1.1.0", "1.1.0")
    gone = run("flash", file, "--all")
    assert isinstance(gone.exception, BridgeError) and "no card" in str(gone.exception)


@pytest.mark.parametrize(
    "words",
    [
        ("--port=a", "--all"),
        ("--port=a", "--port=a"),
        ("--port=a", "--server=x", "--server=y"),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run("flash", written(tmp_path, firmware("1.1.0", 2)), *words).exit_code == 2


def test_identify_has_the_card_prove_itself(run: Run, tmp_path: Path) -> None:
    authority = Vendor.make(tmp_path / "made", time.time)
    with card_on_pty(tmp_path, SERIAL, vendor=authority) as card:
        found = run("identify", f"--port={card.port}", f"--card-ca={tmp_path / 'made'}", "--json")
        plain = run("identify", f"--port={card.port}", "--unproven")
    told = json.loads(found.stdout)
    assert (told["serial"], told["board"], told["proven"]) == (SERIAL, "tepi-c1", True)
    assert SERIAL in plain.stdout and "not asked for" in plain.stdout


def test_card_of_another_vendor_does_not_pass(card: PtyCard, run: Run, tmp_path: Path) -> None:
    Vendor.make(tmp_path / "other", lambda: NOW)
    found = run("identify", f"--port={card.port}", f"--card-ca={tmp_path / 'other'}")
    assert isinstance(found.exception, BridgeError)
    assert card.port in str(found.exception)


def test_versions_and_trial(card: PtyCard, run: Run, tmp_path: Path) -> None:
    file, port = written(tmp_path, firmware("1.1.0", 2)), f"--port={card.port}"
    assert json.loads(run("versions", file, port, "--json").stdout)["up_to_date"] is False
    assert run("flash", file, port, "--no-confirm").exit_code == 0
    assert "runs on trial: a reset goes back" in run("versions", file, port).stdout
    refused = run("erase", port)
    assert isinstance(refused.exception, BridgeError) and "on trial" in str(refused.exception)
    back = run("revert", port, "--json")
    assert json.loads(back.stdout) == {"card": SERIAL, "version": "1.0.0", "before": "1.1.0"}
    assert card.running == "1.0.0"
    assert run("erase", port).exit_code == 0
    assert run("flash", file, port, "--no-confirm").exit_code == 0
    assert f"card {SERIAL}: keeps 1.1.0" in run("confirm", port).stdout
    assert "already" in run("confirm", port).stdout
    assert json.loads(run("versions", file, port, "--json").stdout)["up_to_date"] is True


def test_going_back_from_a_confirmed_firmware(card: PtyCard, run: Run, tmp_path: Path) -> None:
    """As long as the card holds the one before, which its bootloader erases at the next reset."""
    file, port = written(tmp_path, firmware("1.1.0", 1)), f"--port={card.port}"
    assert run("flash", file, port).exit_code == 0
    assert f"card {SERIAL}: runs 1.0.0" in run("revert", port).stdout
    assert card.running == "1.0.0"
    reset_controller(card.port, tmp_path / "history")
    assert card.running == "1.0.0", "for good"
    nothing = run("revert", port)
    assert isinstance(nothing.exception, BridgeError)
    assert "--allow-downgrade" in nothing.exception.remedy


def test_reset(card: PtyCard, tmp_path: Path) -> None:
    boots = card.controller.boots
    assert reset_controller(card.port, tmp_path / "history") == "1.0.0"
    assert card.controller.boots == boots + 1


def test_telemetry(card: PtyCard, run: Run) -> None:
    table = run("telemetry", f"--port={card.port}").stdout
    assert re.search(r"temp +die +\d\d\.\d +°C", table)
    assert re.search(r"volt +memory +1\.\d+ +V", table)
    lines = run(
        "telemetry", f"--port={card.port}", "--watch", "--count=2", "--interval=0.1", "--json"
    )
    assert [sorted(json.loads(line))[0] for line in lines.stdout.splitlines()] == ["at", "at"]


def test_limits(card: PtyCard, run: Run) -> None:
    port = f"--port={card.port}"
    assert json.loads(run("limits", port, "--json").stdout)["limit/power_w"] == 75
    assert run("limits", port, "--power=60", "--temperature=85").exit_code == 0
    assert card.controller.card.limits.power_w == 60
    refused = run("limits", port, "--temperature=80", "--fan=30", "--power=0")
    assert isinstance(refused.exception, BridgeError) and "power 0 W" in str(refused.exception)
    assert card.controller.card.limits.temp_c == 85, "all or nothing"
    assert run("limits", port, "--default").exit_code == 0
    assert json.loads(run("limits", port, "--json").stdout)["limit/temp_c"] == 90


def test_dump(card: PtyCard, run: Run, tmp_path: Path) -> None:
    port, output = f"--port={card.port}", tmp_path / "crash.bin"
    assert "no crash dumps" in run("dump", port).stdout
    missing = run("dump", port, f"--output={output}")
    assert isinstance(missing.exception, BridgeError) and not output.exists()
    card.controller.crash("assertion in fan.c:42")
    assert "assertion in fan.c:42" in run("dump", port).stdout
    told = json.loads(run("dump", port, f"--output={output}", "--json").stdout)
    assert told["written"]["bytes"] == output.stat().st_size == told["dumps"][0]["bytes"]


def test_no_card_and_no_key(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_cards", list)
    found = run("telemetry")
    assert isinstance(found.exception, BridgeError) and "no card" in str(found.exception)
    file = written(tmp_path, firmware("1.1.0", 2))
    found = run("flash", file, "--port=x", f"--image-key={tmp_path / 'none.pem'}")
    assert isinstance(found.exception, BridgeError) and "--image-key" in found.exception.remedy

# SPDX-License-Identifier: Apache-2.0
"""Other people's clients against `tepi card mcu`: smpmgr's command line and mcumgr-toolkit, which
know nothing of us and reject what Zephyr would not send.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from firmware_bridge.controller.identity import factory_image
from firmware_bridge.controller.vendor import Vendor
from firmware_bridge.image import parse_image

ROOT = Path(__file__).resolve().parents[2]
STOCK = ROOT / "build" / "stock" / "bin"
SECONDS = 60

pytestmark = pytest.mark.skipif(
    not (STOCK / "smpmgr").exists(), reason="no build/stock; .ci/stock makes it"
)


class Mcu(NamedTuple):
    """A controller that runs in another process."""

    port: str
    vendor: Vendor
    folder: Path
    process: subprocess.Popen[str]


@contextmanager
def running(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A controller until the block ends; SIGTERM ends it in order."""
    command = [sys.executable, "-m", "tepi", "card", "mcu", "--flash", "flash", "--json"]
    command += ["--vendor", "vendor", "--link", str(folder / "card.mcu"), *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(SECONDS) == 0


@pytest.fixture
def mcu(tmp_path: Path) -> Iterator[Mcu]:
    subprocess.run(
        [sys.executable, "-m", "tepi", "card", "mcu", "--make-vendor", tmp_path / "vendor"],
        check=True,
        capture_output=True,
    )
    with running(tmp_path, "--serial", "TC1-STOCK") as process:
        yield Mcu(str(tmp_path / "card.mcu"), Vendor.read(tmp_path / "vendor"), tmp_path, process)


def smpmgr(mcu: Mcu, *arguments: str) -> str:
    """What smpmgr prints; it exits 0 for errors too, so that callers look at the text."""
    found = subprocess.run(
        [STOCK / "smpmgr", "--port", mcu.port, "--timeout", "10", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=mcu.folder,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def toolkit(mcu: Mcu, script: str) -> Any:
    """What a script with an mcumgr-toolkit client `c` leaves in `out`."""
    program = (
        "import json, mcumgr_toolkit, pathlib, hashlib\n"
        f"c = mcumgr_toolkit.MCUmgrClient.serial({mcu.port!r}, timeout_ms=10000)\n"
        "c.use_auto_frame_size()\n"
        f"{script}\n"
        "print(json.dumps(out))\n"
    )
    found = subprocess.run(
        [STOCK / "python", "-c", program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=mcu.folder,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def image(mcu: Mcu, version: str, counter: int) -> tuple[Path, str]:
    """A signed file of 64 KiB and the hash that names it."""
    data = factory_image(mcu.vendor, version, counter, body=version.encode() * 13000)
    path = mcu.folder / f"{version}.bin"
    path.write_bytes(data)
    return path, parse_image(data).hash.hex()


def test_smpmgr_echo_and_telemetry(mcu: Mcu) -> None:
    assert "r='hello'" in smpmgr(mcu, "os", "echo", "hello")
    listed = smpmgr(mcu, "statistics", "list")
    for group in ("temp", "power", "clock", "volt", "fan", "fault"):
        assert group in listed
    assert "die_mc" in smpmgr(mcu, "statistics", "get", "temp")
    assert "INVALID_GROUP" in smpmgr(mcu, "statistics", "get", "nonsense")


def test_smpmgr_updates_and_confirms(mcu: Mcu) -> None:
    path, named = image(mcu, "1.1.0", 2)
    assert "version='1.0.0'" in smpmgr(mcu, "image", "state-read")
    smpmgr(mcu, "image", "upload", str(path))
    listed = smpmgr(mcu, "image", "state-read")
    assert "version='1.1.0'" in listed
    assert named.upper()[:40] in listed.replace("\n", "")
    smpmgr(mcu, "image", "state-write", named)
    assert "pending=True" in smpmgr(mcu, "image", "state-read")
    smpmgr(mcu, "os", "reset")
    wait_active(mcu, named)
    assert "confirmed=False" in smpmgr(mcu, "image", "state-read")
    smpmgr(mcu, "image", "state-write", named, "--confirm")
    running, _, before = smpmgr(mcu, "image", "state-read").partition("slot=1")
    assert "confirmed=True" in running
    assert "confirmed=True" not in before


def test_smpmgr_files(mcu: Mcu) -> None:
    content = bytes(range(256)) * 30
    (mcu.folder / "there").write_bytes(content)
    smpmgr(mcu, "file", "upload", "there", "/ram/there")
    assert str(len(content)) in smpmgr(mcu, "file", "read-size", "/ram/there")
    smpmgr(mcu, "file", "download", "/ram/there", "back")
    assert (mcu.folder / "back").read_bytes() == content
    assert "FILE_NOT_FOUND" in smpmgr(mcu, "file", "read-size", "/dump/last.bin")
    assert "sha256" in smpmgr(mcu, "file", "get-supported-hash-types")


def wait_active(mcu: Mcu, named: str) -> None:
    """The controller answers for a while after it has agreed to a reset, as Zephyr's does."""
    script = (
        "import time\n"
        "end = time.monotonic() + 20\n"
        f"while bytes.fromhex({named!r}) not in [i.hash for i in c.image_get_state() if i.active]:"
        "\n    assert time.monotonic() < end\n"
        "    time.sleep(0.05)\n"
        "out = [[i.slot, i.active, i.confirmed, i.pending] for i in c.image_get_state()]"
    )
    slots = toolkit(mcu, script)
    assert slots[0][:2] == [0, True]


def test_toolkit_updates_tests_and_reverts(mcu: Mcu) -> None:
    path, named = image(mcu, "1.2.0", 1)
    before = toolkit(mcu, "out = [i.hash.hex() for i in c.image_get_state()]")
    uploaded = toolkit(
        mcu,
        f"data = pathlib.Path({str(path)!r}).read_bytes()\n"
        "c.image_upload(data, checksum=hashlib.sha256(data).hexdigest())\n"
        f"s = c.image_set_state({named!r}, False)\n"
        "c.os_system_reset()\n"
        "out = [[i.slot, i.active, i.confirmed, i.pending, i.permanent] for i in s]",
    )
    assert uploaded == [[0, True, True, False, False], [1, False, False, True, False]]
    wait_active(mcu, named)
    on_trial = toolkit(mcu, "out = [[i.slot, i.active, i.confirmed] for i in c.image_get_state()]")
    assert on_trial == [[0, True, False], [1, False, True]]
    toolkit(mcu, "c.os_system_reset(); out = 0")
    wait_active(mcu, before[0])
    toolkit(mcu, "c.image_erase(); out = 0")
    assert toolkit(mcu, "out = len(c.image_get_state())") == 1


def test_toolkits_own_update(mcu: Mcu) -> None:
    """Its firmware_update looks at the bootloader first, then uploads, marks and resets."""
    path, named = image(mcu, "1.3.0", 4)
    toolkit(
        mcu,
        f"data = pathlib.Path({str(path)!r}).read_bytes()\n"
        "c.firmware_update(data, upgrade_only=True)\nout = 0",
    )
    wait_active(mcu, named)
    toolkit(mcu, "c.image_set_state(None, True); c.os_system_reset(); out = 0")


def test_image_of_imgtool_with_the_vendors_key(mcu: Mcu) -> None:
    """As docs/mcu.md says it; `openssl` agrees on the card's certificate meanwhile."""
    (mcu.folder / "app.bin").write_bytes(b"an application" * 500)
    command = "sign -k vendor/image.pem -v 1.4.0+12 -s 5 -H 0x200 --pad-header -S 0xff000 --align 8"
    command += " --custom-tlv 0x00a0 tepi-c1 app.bin app.signed.bin"
    subprocess.run([STOCK / "imgtool", *command.split()], cwd=mcu.folder, check=True)
    named = parse_image((mcu.folder / "app.signed.bin").read_bytes()).hash.hex()
    toolkit(
        mcu,
        "c.image_upload(pathlib.Path('app.signed.bin').read_bytes())\n"
        f"c.image_set_state({named!r}, False)\nc.os_system_reset()\n"
        "pathlib.Path('card.crt').write_bytes(c.settings_read_ext('id/cert', 1024).value)\nout = 0",
    )
    wait_active(mcu, named)
    subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-in", "card.crt", "-out", "card.pem"],
        cwd=mcu.folder,
        check=True,
    )
    verified = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "vendor/card-ca.crt", "card.pem"],
        cwd=mcu.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.stdout == "card.pem: OK\n", verified.stderr


def test_toolkit_settings(mcu: Mcu) -> None:
    script = """
before = c.settings_read("limit/power_w")
c.settings_write("limit/power_w", (60).to_bytes(4, "little"))
c.settings_save()
c.settings_commit()
after = c.settings_read("limit/power_w")
c.settings_load()
refused = []
for name, value in (("limit/power_w", b"1"), ("id/serial", b"mine"), ("no/such", b"1")):
    try:
        c.settings_write(name, value)
    except Exception as error:
        refused.append(str(error))
limit = c.stats_get_group_data("power")["limit_mw"]
c.settings_delete("limit/power_w")
out = [before.hex(), after.hex(), limit, c.settings_read("id/serial").decode(), len(refused),
       c.settings_read("limit/power_w").hex()]
"""
    expected = ["4b000000", "3c000000", 60000, "TC1-STOCK", 3, "4b000000"]
    assert toolkit(mcu, script) == expected


def test_toolkit_enumerates(mcu: Mcu) -> None:
    script = """
details = {d.group: d.name for d in c.enum_get_group_details()}
slots = c.image_slot_info()[0]
out = [c.enum_get_group_count(), sorted(c.enum_get_group_ids()), sorted(c.enum_iter_group_ids()),
       details[1 if 1 in details else "1"], slots.max_image_size, c.os_mcumgr_parameters().buf_size,
       c.os_application_info("sn"), str(c.os_bootloader_info())]
"""
    count, ids, iterated, name, size, buffer, names, bootloader = toolkit(mcu, script)
    assert ids == iterated == [0, 1, 2, 3, 8, 10, 65, 66]
    assert count == len(ids)
    assert name == "img mgmt"
    assert size == (1 << 20) - 4096
    assert buffer == 2048
    assert names == "Tepi TC1-STOCK"
    assert "MCUboot" in bootloader or "mcuboot" in bootloader.lower()


def test_toolkit_fetches_a_crash_dump(mcu: Mcu) -> None:
    """The controller asserts, starts again by itself, and has a dump of it."""
    mcu.process.terminate()
    mcu.process.wait(SECONDS)
    (mcu.folder / "faults.json").write_text(json.dumps({"assert_after": 3}))
    with running(mcu.folder, "--faults", "faults.json"):
        script = """
c.set_retries(3)
c.set_timeout_ms(500)
for _ in range(4):
    c.os_echo("x")
dump = c.fs_file_download("/dump/last.bin")
sha = c.fs_file_checksum("/dump/last.bin", "sha256").output
out = [dump[:8].decode(), sha == hashlib.sha256(dump).digest(),
       json.loads(c.fs_file_download("/dump/index")), c.stats_get_group_data("fault")["asserted"]]
"""
        magic, matches, index, asserted = toolkit(mcu, script)
    assert magic == "TEPIDUMP"
    assert matches
    assert index[0]["reason"] == "injected assertion"
    assert index[0]["bytes"] > 4096
    assert asserted == 1

# SPDX-License-Identifier: Apache-2.0
"""Which ports are cards."""

import os
from pathlib import Path

from serial.tools.list_ports_common import ListPortInfo

from firmware_bridge.discovery import find_cards


def usb(device: str, vid: int | None, pid: int | None, **rest: str) -> ListPortInfo:
    port = ListPortInfo(device, skip_link_detection=True)
    port.vid, port.pid = vid, pid
    for name, value in rest.items():
        setattr(port, name, value)
    return port


def test_cards_are_known_by_what_their_descriptors_say(tmp_path: Path) -> None:
    ports = [
        usb("/dev/ttyACM1", 0x2FE3, 0x0004, serial_number="S1", product="Zephyr CDC"),
        usb(
            "/dev/ttyACM0", 0x1209, 0x7E91, manufacturer="Tepi", product="Card", serial_number="S0"
        ),
        usb("/dev/ttyUSB0", 0x0403, 0x6001, manufacturer="FTDI", product="FT232R"),
        usb("/dev/ttyUSB1", 0x0403, 0x6001, manufacturer="Tepid Water Co", product="Bath"),
        usb("/dev/ttyS0", None, None),
    ]
    found = find_cards(tmp_path, lambda: ports)
    assert [(card.port, card.kind, card.serial, card.usb) for card in found] == [
        ("/dev/ttyACM0", "usb", "S0", "1209:7e91"),
        ("/dev/ttyACM1", "usb", "S1", "2fe3:0004"),
    ]
    assert found[0].description == "Tepi Card"


def test_software_controllers_are_found_by_their_links(tmp_path: Path) -> None:
    primary, secondary = os.openpty()
    try:
        (tmp_path / "a.mcu").symlink_to(os.ttyname(secondary))
        (tmp_path / "gone.mcu").symlink_to("/dev/pts/none")
        (tmp_path / "file.mcu").write_text("", encoding="utf-8")
        (tmp_path / "other").symlink_to(os.ttyname(secondary))
        found = find_cards(tmp_path, list)
    finally:
        os.close(primary)
        os.close(secondary)
    assert [(card.port, card.kind) for card in found] == [(str(tmp_path / "a.mcu"), "link")]


def test_no_folder_and_no_ports(tmp_path: Path) -> None:
    assert find_cards(tmp_path / "none", list) == []

# SPDX-License-Identifier: Apache-2.0
"""Where the management controllers of cards are: USB serial ports by what their descriptors say,
and links to software controllers in a folder.

A port is never opened here: opening one can reset what is behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RUN_FOLDER: Final = Path("/run/tepi")
MANUFACTURER: Final = "tepi"
"""In the iManufacturer or iProduct string of a card's USB interface, in any case."""
USB_IDS: Final = frozenset({(0x2FE3, 0x0004), (0x2FE3, 0x0100)})
"""(vendor, product) that Zephyr's CDC ACM and SMP samples carry, as boards under development do."""


@dataclass(frozen=True, slots=True)
class Found:
    """A port that a card may be behind."""

    port: str  # what --port takes
    kind: str  # usb | link
    serial: str = ""  # of the USB descriptor; the card itself says its own
    usb: str = ""  # vendor:product, hexadecimal
    description: str = ""


def find_cards(
    folder: Path = RUN_FOLDER, comports: Callable[[], Iterable[Any]] | None = None
) -> list[Found]:
    """Every port that a card may be behind, sorted by port.

    `comports` is serial.tools.list_ports.comports where not given: it reads /sys and opens nothing.
    """
    if comports is None:
        from serial.tools import list_ports

        comports = list_ports.comports
    found = [_usb(port) for port in comports() if _is_card(port)]
    found += [Found(str(link), "link", description=_target(link)) for link in _links(folder)]
    return sorted(found, key=lambda card: card.port)


def _is_card(port: Any) -> bool:
    named = f"{port.manufacturer or ''} {port.product or ''}".lower().split()
    return (port.vid, port.pid) in USB_IDS or MANUFACTURER in named


def _usb(port: Any) -> Found:
    return Found(
        port.device,
        "usb",
        serial=port.serial_number or "",
        usb=f"{port.vid:04x}:{port.pid:04x}" if port.vid is not None else "",
        description=" ".join(filter(None, (port.manufacturer, port.product))),
    )


def _links(folder: Path) -> list[Path]:
    """*.mcu that lead to a character device; a link whose controller ended leads nowhere."""
    return [link for link in folder.glob("*.mcu") if link.is_char_device()]


def _target(link: Path) -> str:
    return f"software controller at {link.resolve()}"

# SPDX-License-Identifier: Apache-2.0
"""Options that the commands about a card's firmware have in common, and what they open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from firmware_bridge.client import Controller
from firmware_bridge.discovery import find_cards
from firmware_bridge.errors import BridgeError, PortBusy
from firmware_bridge.history import DEFAULT_FOLDER
from firmware_bridge.image.check import PublicKey, read_public_key
from firmware_bridge.port import BAUD
from firmware_bridge.update.errors import NoCards
from firmware_bridge.update.line import BACK_SECONDS, Line

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_KEYS: Final = Path("/etc/tepi/vendor")
IMAGE_KEY: Final = "image.pub.pem"  # in a vendor's folder
CARD_CA: Final = "card-ca.crt"
BUSY_SECONDS: Final = 3.0  # a server that looks at the card's readings is done before

EXIT_CODES: Final = """\b
Exit codes:
  0   done                             1   failed; the message says what to do
  2   wrong usage                      10  wrong signature
  11  wrong board                      12  security counter below the card's
  13  image truncated                  14  image larger than the slot
  15  hash mismatch                    16  port busy
  17  card silent, or not back         18  card vanished during the upload
  19  no room for the history          20  firmware did not pass; the one before runs
  21  not for this driver or ABI       22  older than what runs
  23  another image is on trial
"""

port_option = click.option(
    "--port",
    help="The controller's serial device, pty, socket://HOST:PORT or rfc2217://HOST:PORT.  "
    "[default: that of the only card that `tepi card list` finds]",
)
baud_option = click.option(
    "--baud",
    type=click.IntRange(9600, 4_000_000),
    default=BAUD,
    show_default=True,
    help="Bits per second of a serial device.",
)
history_option = click.option(
    "--history",
    "history_folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Folder where it is written down what was done to which card.",
)
back_option = click.option(
    "--back-seconds",
    type=click.FloatRange(1, 3600),
    default=BACK_SECONDS,
    show_default=True,
    help="How long a card that restarts may be away.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def the_port(port: str | None) -> str:
    """The port that was given, or that of the only card there is. Raises NoCards."""
    if port:
        return port
    found = [card.port for card in find_cards()]
    if len(found) != 1:
        text = f"{len(found)} cards are here: {', '.join(found)}" if found else "no card was found"
        raise NoCards(text, "say which one with --port; `tepi card list` shows what there is")
    return found[0]


def patiently(
    connect: Callable[[str], Controller],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[[str], Controller]:
    """`connect`, asked again for BUSY_SECONDS while somebody else has the port."""

    def opened(port: str) -> Controller:
        until = clock() + BUSY_SECONDS
        while True:
            try:
                return connect(port)
            except PortBusy as error:
                if clock() >= until:
                    error.remedy = error.remedy or "end what uses it"
                    raise
                sleep(0.1)

    return opened


def line_of(port: str, baud: int, back_seconds: float = BACK_SECONDS) -> Line:
    """A line that opens when it is first used."""

    def connect(url: str) -> Controller:
        return Controller.open(url, baud)

    return Line(port, patiently(connect), back_seconds=back_seconds)


@contextmanager
def card_at(port: str | None, baud: int) -> Iterator[Controller]:
    """The controller at a port; what goes wrong names the port. Raises BridgeError."""
    url = the_port(port)
    try:
        with line_of(url, baud) as line:
            yield line.controller()
    except BridgeError as error:
        if url not in str(error):
            error.args = (f"card at {url}: {error}",)
        raise


def image_keys(files: Sequence[Path]) -> list[PublicKey]:
    """Keys that may sign images, from PEM files or vendors' folders. Raises BridgeError."""
    paths = list(files) or [DEFAULT_KEYS]
    found = []
    for path in paths:
        file = path / IMAGE_KEY if path.is_dir() else path
        try:
            found.append(read_public_key(file.read_bytes()))
        except OSError as error:
            raise BridgeError(
                f"no key to check the image's signature with: {file}: {error.strerror}",
                "name the vendor's public key with --image-key FILE",
            ) from None
        except BridgeError as error:
            error.args = (f"{file}: {error}",)
            raise
    return found


def options(*given: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: F) -> F:
        for option in reversed(given):
            command = option(command)
        return command

    return decorate

# SPDX-License-Identifier: Apache-2.0
"""`tepi card mcu`: a card's management controller in software."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from firmware_bridge.controller.controller import Controller
    from firmware_bridge.controller.flash import Flash
    from firmware_bridge.controller.line import Ending, Line
    from firmware_bridge.controller.vendor import Vendor

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    epilog="""\b
Examples:
  tepi card mcu --make-vendor vendor
  tepi card mcu --flash card0.flash --vendor vendor --link /run/tepi/card0.mcu
  tepi card mcu --flash card0.flash --vendor vendor --listen 127.0.0.1:0 --json
  tepi card mcu --flash card0.flash --vendor vendor --link card0.mcu --load load.txt --baud 1000000

\b
It speaks SMP as Zephyr's MCUmgr does, so `tepi card flash --port`, smpmgr and
mcumgr-toolkit work with it. A flash file that does not exist becomes a new card:
the vendor's key signs its firmware 1.0.0, its CA certifies the card's own key.
The flash survives `kill -9` as a board's survives a power cut.
It prints one line once it is there. SIGTERM and SIGINT stop it, and it exits 0.
"""
)
@click.option(
    "--flash", "path", type=_FILE, help="The controller's flash; made if it is not there."
)
@click.option("--vendor", "folder", type=_FOLDER, help="The vendor's keys; see --make-vendor.")
@click.option("--serial", metavar="NUMBER", help="Serial number of a new card; default: random.")
@click.option("--link", type=_FILE, help="Offer a pty, with this link to it.")
@click.option("--listen", metavar="HOST:PORT", help="Offer a TCP socket; port 0: any free one.")
@click.option(
    "--card-control",
    type=_FILE,
    help="Follow the load of the card whose `tepi card serve --control` this is.",
)
@click.option("--load", type=_FILE, help="Follow the number from 0 to 1 that this file holds.")
@click.option("--faults", type=_FILE, help="Faults to suffer, as JSON: see docs/mcu.md.")
@click.option(
    "--baud",
    type=click.IntRange(1200, 100_000_000),
    help="Pace the line to a UART's rate, 10 bits a byte; default: as fast as can be.",
)
@click.option(
    "--make-vendor", type=_FOLDER, help="Make a vendor's keys for development here, and exit."
)
@click.option("--json", "as_json", is_flag=True, help="Print the ready line as JSON.")
def mcu(
    path: Path | None,
    folder: Path | None,
    serial: str | None,
    link: Path | None,
    listen: str | None,
    card_control: Path | None,
    load: Path | None,
    faults: Path | None,
    baud: int | None,
    make_vendor: Path | None,
    as_json: bool,
) -> None:
    """Run a card's management controller in software, behind a pty or a socket."""
    from firmware_bridge.controller.vendor import Vendor

    if make_vendor is not None:
        Vendor.make(make_vendor, time.time)
        click.echo(
            json.dumps({"vendor": str(make_vendor)})
            if as_json
            else f"tepi: made a vendor's keys in {make_vendor}; they are for development"
        )
        return
    if path is None or folder is None:
        raise click.UsageError("--flash and --vendor are needed, or --make-vendor")
    offer = _offer(link, listen)
    if load is not None and card_control is not None:
        raise click.UsageError("--load and --card-control exclude each other")
    from firmware_bridge.controller.flash import Flash, PowerCut

    try:
        with Flash(path) as flash:
            _run(
                flash, Vendor.read(folder), serial, offer, card_control, load, faults, baud, as_json
            )
    except PowerCut:
        os.kill(os.getpid(), signal.SIGKILL)


def _offer(link: Path | None, listen: str | None) -> Callable[[], Ending]:
    """What opens the line's end."""
    from firmware_bridge.controller.line import Pty, Tcp

    if (link is None) == (listen is None):
        raise click.UsageError("give either --link or --listen")
    if link is not None:
        return lambda: Pty(link)
    assert listen is not None
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 0xFFFF:
        raise click.UsageError("--listen takes HOST:PORT, as 127.0.0.1:0")
    taken = [int(port)]

    def again() -> Tcp:
        """A port that was any free one is the same one after the card vanished."""
        end = Tcp(host, taken[0])
        taken[0] = end.port
        return end

    return again


def _run(
    flash: Flash,
    vendor: Vendor,
    serial: str | None,
    offer: Callable[[], Ending],
    card_control: Path | None,
    load: Path | None,
    faults: Path | None,
    baud: int | None,
    as_json: bool,
) -> None:
    from firmware_bridge.controller.controller import Controller
    from firmware_bridge.controller.identity import Identity, manufacture
    from firmware_bridge.controller.injected import Injected, PowerSupply
    from firmware_bridge.controller.line import Line
    from firmware_bridge.controller.load import follow

    injected = Injected.read(faults) if faults else Injected()
    if Identity.read(flash) is None:
        manufacture(flash, vendor, serial or f"TC1-{secrets.token_hex(4).upper()}", time.time)
    flash.before = PowerSupply(injected)
    with _stop_signals() as told, follow(card_control, load) as busy:
        controller = Controller(
            flash,
            [vendor.image_key.public_key()],
            wall=time.time,
            now=time.monotonic(),
            load=busy,
            injected=injected,
        )
        line = Line(controller, offer, injected, baud=baud, clock=time.monotonic)
        try:
            _tell(controller, line, as_json)
            line.run(told)
        finally:
            line.close()


def _tell(controller: Controller, line: Line, as_json: bool) -> None:
    assert line.end is not None
    running = str(controller.image.version) if controller.image else None
    ready = {
        "ready": True,
        "port": line.end.name,
        "serial": controller.identity.serial,
        "board": controller.identity.board,
        "version": running,
        "pid": os.getpid(),
    }
    if as_json:
        click.echo(json.dumps(ready))
    else:
        runs = f"firmware {running}" if running else "no firmware: recovery only"
        click.echo(f"tepi: controller of card {ready['serial']} ready at {line.end.name}, {runs}")


@contextmanager
def _stop_signals() -> Iterator[int]:
    """A descriptor that is readable once SIGTERM or SIGINT came, while the block runs."""
    told, tell = socket.socketpair()
    with told, tell:
        tell.setblocking(False)
        before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        numbers = (signal.SIGTERM, signal.SIGINT)
        kept = [signal.signal(number, lambda _number, _frame: None) for number in numbers]
        try:
            yield told.fileno()
        finally:
            for number, handler in zip(numbers, kept, strict=True):
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)

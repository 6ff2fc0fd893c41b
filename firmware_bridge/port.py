# SPDX-License-Identifier: Apache-2.0
"""The one module that opens ports: serial devices, ptys, socket://HOST:PORT, rfc2217://HOST:PORT.

A port belongs to one process at a time. Devices are locked with flock(2), which pyserial does and
which /proc/locks ascribes to its holder; a URL is locked by an abstract Unix socket of that name,
which the kernel frees when its holder dies and whose peer credentials name it.
"""

import errno
import hashlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import serial

from firmware_bridge.errors import BridgeError, CardVanished, NoPort, PortBusy

BAUD = 1_000_000
_READ = 65536
_QUEUE_WAIT = 0.02  # seconds; set once, since RFC 2217 negotiates anew when it changes
_GONE = "look at the cable and the card's power, then run the same command again"
_Pump = Callable[[bytes | memoryview, float], tuple[int, bytes]]


class Port:
    """An open port, held exclusively. `url`: as given; `baud`: 8N1, which ptys and sockets ignore.

    Raises PortBusy, which names the holder, and NoPort."""

    def __init__(self, url: str, baud: int = BAUD) -> None:
        self.url = url
        self.is_device = "://" not in url
        self.bytes_per_second = baud / 10 if self.is_device else None  # start, 8 data, stop
        self._lock: socket.socket | None = None if self.is_device else _lock_url(url)
        try:
            self._serial = _open(url, baud, self.is_device)
        except BaseException:
            self._unlock()
            raise
        self._pump: _Pump
        try:
            self._fd = self._serial.fileno()
        except OSError:  # io.UnsupportedOperation: rfc2217 has threads and queues inside
            self._pump = self._pump_queue
        else:
            os.set_blocking(self._fd, False)
            self._poll = select.poll()
            self._pump = self._pump_descriptor

    def transfer(self, outgoing: bytes | memoryview, timeout: float) -> tuple[int, bytes]:
        """Write what the port takes and read what it has: (bytes written, bytes read).

        Returns once something was read, or not all could be written at once and more was since, or
        after `timeout` seconds. Raises CardVanished."""
        try:
            return self._pump(outgoing, timeout)
        except (OSError, serial.SerialException) as error:
            raise CardVanished(f"{self.url}: the port is gone ({error})", _GONE) from error

    def close(self) -> None:
        """Give the port back; harmless when it is closed or gone."""
        try:
            self._serial.close()
        except (OSError, serial.SerialException):
            pass  # it is gone, which is what was wanted
        self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _pump_descriptor(self, outgoing: bytes | memoryview, timeout: float) -> tuple[int, bytes]:
        """Both directions through the descriptor, so that a full line never waits for a reader
        that waits for us; a write is tried first, since it mostly succeeds."""
        sent = self._write(outgoing) if outgoing else 0
        left = sent < len(outgoing)
        self._poll.register(self._fd, select.POLLIN | (select.POLLOUT if left else 0))
        ready = self._poll.poll(max(0, timeout * 1000))
        if not ready:
            return sent, b""
        if ready[0][1] & ~select.POLLOUT:
            data = os.read(self._fd, _READ)
            if not data:
                raise OSError(errno.EPIPE, "closed at the other end")
            return sent, data
        return sent + self._write(outgoing[sent:]), b""

    def _write(self, outgoing: bytes | memoryview) -> int:
        try:
            return os.write(self._fd, outgoing)
        except BlockingIOError:
            return 0

    def _pump_queue(self, outgoing: bytes | memoryview, timeout: float) -> tuple[int, bytes]:
        sent = (self._serial.write(bytes(outgoing)) or 0) if outgoing else 0
        end = time.monotonic() + timeout
        while True:
            data = self._serial.read(self._serial.in_waiting or 1)
            if data or time.monotonic() >= end:
                return sent, bytes(data)


def _open(url: str, baud: int, is_device: bool) -> serial.Serial:
    try:
        if is_device:
            return serial.serial_for_url(url, baud, timeout=0, exclusive=True)
        return serial.serial_for_url(url, baud, timeout=_QUEUE_WAIT)
    except (OSError, ValueError) as error:  # SerialException is an OSError
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.EAGAIN, errno.EBUSY):
            raise _busy(url, _flock_holder(url)) from error
        raise _no_port(url, number, error) from error


def _busy(url: str, holder: int | None) -> PortBusy:
    who = "another process" if holder is None else f"process {holder}{_name(holder)}"
    wait = "wait until it is done, or end it" if holder is None else f"wait for process {holder}"
    return PortBusy(f"{url}: the port is in use by {who}", wait, holder)


def _no_port(url: str, number: int | None, error: Exception) -> BridgeError:
    if number == errno.ENOENT:
        return NoPort(f"{url}: there is no such port", "`tepi card list` shows the ports")
    if number == errno.EACCES:
        return NoPort(f"{url}: no right to open the port", "join the group that owns it (dialout)")
    return NoPort(f"{url}: cannot be opened: {error}", "give a serial device or socket://HOST:PORT")


def _name(pid: int) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return ""  # it ended meanwhile, or is another user's


def _flock_holder(url: str) -> int | None:
    """The process that /proc/locks says holds a flock on the device's inode."""
    try:
        found = Path(url).stat()
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in locks.splitlines():
        words = line.split()
        if "FLOCK" in words and "->" not in words and device in words:
            pid = int(words[words.index(device) - 1])
            return pid if pid > 0 else None
    return None


def _lock_url(url: str) -> socket.socket:
    """Listens under a name that the URL decides; PortBusy if another does."""
    name = "\0tepi-port-" + hashlib.sha256(url.encode()).hexdigest()
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        lock.bind(name)
        lock.listen(8)
        return lock
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise NoPort(f"{url}: cannot be locked: {error}") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(name)
            peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            holder: int | None = struct.unpack("3i", peer)[0]
        except OSError:
            holder = None
    raise _busy(url, holder)

# SPDX-License-Identifier: Apache-2.0
"""The controller's end of a line: a pty behind a symbolic link, or a TCP socket.

The only module of the controller that does I/O on a line. It carries bytes, late, damaged or paced
to a baud rate where that is asked for.
"""

from __future__ import annotations

import errno
import heapq
import os
import pty
import select
import socket
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from firmware_bridge.controller.controller import Controller, Wanted
from firmware_bridge.controller.injected import BadLine, Injected
from firmware_bridge.errors import BridgeError

_READ = 1 << 16
_PACED_READ = 64
_BITS = 10  # of a byte on a line: start, eight, stop
_LATE_S = 0.002
"""How late a wakeup may be; a line with bytes waiting does not rest meanwhile."""
_TICK_S = 0.5
_EMPTY_S = 0.02  # between looks at a pty that nobody has open


class NoLine(BridgeError):
    """The line cannot be offered there."""


class Ending(Protocol):
    """An end of a line."""

    name: str

    def fileno(self) -> int | None:
        """What to wait for; None: look again soon."""

    def read(self, size: int) -> bytes:
        """What has arrived; nothing where nobody is there."""

    def write(self, data: bytes) -> int:
        """How much was taken; all of it where nobody is there to read it."""

    def close(self) -> None:
        """The line goes."""


class Pty:
    """A pty whose name a symbolic link gives. It is there again for the next who opens it."""

    def __init__(self, link: Path) -> None:
        self.name = str(link)
        self._link = link
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self._target = os.ttyname(slave)
        os.close(slave)
        self._empty = True
        try:
            if link.is_symlink():
                link.unlink()
            link.symlink_to(self._target)
        except OSError as error:
            os.close(self._master)
            raise NoLine(
                f"cannot make the link {link}: {error.strerror}", "choose another --link"
            ) from None

    def fileno(self) -> int | None:
        """The master, while somebody has the slave open."""
        return None if self._empty else self._master

    def read(self, size: int) -> bytes:
        """A pty that nobody has open fails with EIO."""
        try:
            data = os.read(self._master, size)
            self._empty = False
            return data
        except BlockingIOError:
            self._empty = False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._empty = True
        return b""

    def write(self, data: bytes) -> int:
        """Dropped where nobody has the slave open."""
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return len(data)

    def close(self) -> None:
        """Take the link away, if it is still ours."""
        if self._link.is_symlink() and str(self._link.readlink()) == self._target:
            self._link.unlink()
        os.close(self._master)


class Tcp:
    """A listening socket; it serves one connection at a time."""

    def __init__(self, host: str, port: int) -> None:
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise NoLine(
                f"cannot listen at {host}:{port}: {error.strerror}", "choose another --listen"
            ) from None
        self._listener.setblocking(False)
        host, self.port = self._listener.getsockname()[:2]
        self.name = f"socket://{host}:{self.port}"
        self._peer: socket.socket | None = None

    def fileno(self) -> int | None:
        """The connection, or who waits for one."""
        return (self._peer or self._listener).fileno()

    def read(self, size: int) -> bytes:
        """Takes a connection first, where there is none."""
        try:
            if self._peer is None:
                self._peer, _ = self._listener.accept()
                self._peer.setblocking(False)
                self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = self._peer.recv(size)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data and self._peer is not None:
            self._peer.close()
            self._peer = None
        return data

    def write(self, data: bytes) -> int:
        """Dropped where nobody is connected."""
        if self._peer is None:
            return len(data)
        try:
            return self._peer.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def close(self) -> None:
        """Connection and listener."""
        if self._peer is not None:
            self._peer.close()
        self._listener.close()


class _Way:
    """One direction: bytes become due after their delay, and no faster than the line is."""

    def __init__(self, line: BadLine, baud: int | None) -> None:
        self._line = line
        self._byte_s = _BITS / baud if baud else 0.0
        self._free = 0.0
        self._late: list[tuple[float, int, bytes]] = []
        self._count = 0

    def put(self, data: bytes, now: float) -> None:
        """Bytes enter the line."""
        for delay, part in self._line.carry(data) if self._line.any else [(0.0, data)]:
            self._free = max(self._free, now - _LATE_S) + len(part) * self._byte_s
            heapq.heappush(self._late, (self._free + delay, self._count, part))
            self._count += 1

    def take(self, now: float) -> bytes:
        """Bytes that have come out of it."""
        out = []
        while self._late and self._late[0][0] <= now:
            out.append(heapq.heappop(self._late)[2])
        return b"".join(out)

    @property
    def due(self) -> float | None:
        """When the next byte comes out."""
        return self._late[0][0] if self._late else None


class Line:
    """Runs a controller on a line until `stop` is readable.

    offer: opens the line's end; called again after the card vanished. clock: monotonic seconds.
    """

    def __init__(
        self,
        controller: Controller,
        offer: Callable[[], Ending],
        injected: Injected,
        *,
        baud: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._controller = controller
        self._offer = offer
        self._injected = injected
        self._clock = clock
        self._paced = bool(baud)
        self._in = _Way(BadLine(injected, "in"), baud)
        self._out = _Way(BadLine(injected, "out"), baud)
        self._rest = b""
        self._back: float | None = None
        self.end: Ending | None = offer()

    def close(self) -> None:
        """The line goes; the controller stays as it is."""
        if self.end is not None:
            self.end.close()
            self.end = None

    def run(self, stop: int) -> None:
        """Serve until the descriptor `stop` is readable."""
        while not self._wait(stop):
            now = self._clock()
            if self.end is None:
                if self._back is not None and now >= self._back:
                    self.end, self._back = self._offer(), None
            elif not self._paced or self._in.due is None:
                self._in.put(self.end.read(_PACED_READ if self._paced else _READ), now)
            data = self._in.take(now)
            if data and self.end is not None:
                now = self._clock()  # a busy machine may have read them later than it woke
                self._put(self._controller.receive(data, now), now)
            self._controller.tick(now)
            self._flush(now)
            if self._controller.wanted is Wanted.VANISH:
                self._controller.wanted = Wanted.NOTHING
                self._back = now + self._injected.vanish_s
                self.close()

    def _put(self, data: bytes, now: float) -> None:
        if not self._paced:
            if data:
                self._out.put(data, now)
            return
        for at in range(0, len(data), _PACED_READ):
            self._out.put(data[at : at + _PACED_READ], now)

    def _flush(self, now: float) -> None:
        self._rest += self._out.take(now)
        if self._rest:
            taken = len(self._rest) if self.end is None else self.end.write(self._rest)
            self._rest = self._rest[taken:]

    def _wait(self, stop: int) -> bool:
        """Until something is to be done; whether it is to stop."""
        now = self._clock()
        moments = [now + _TICK_S, self._controller.due, self._in.due, self._out.due, self._back]
        waiting = min(moment for moment in moments if moment is not None) - now
        reads, writes = [stop], []
        end = None if self.end is None else self.end.fileno()
        if end is not None:
            if not self._paced or self._in.due is None:
                reads.append(end)
            if self._rest:
                writes.append(end)
        elif self.end is not None:
            waiting = min(waiting, _EMPTY_S)
        ready, _, _ = select.select(reads, writes, [], max(waiting, 0.0))
        return stop in ready

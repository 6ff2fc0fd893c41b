# SPDX-License-Identifier: Apache-2.0
"""A software card for other processes, behind a vfio-user socket."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from device.binding._card import ffi, lib
from device.binding.buses import no_such_isa, software_card
from device.binding.planned import PlannedFault, planned_array

if TYPE_CHECKING:
    from device.binding._card import CData


class CardServer:
    """Listens from the moment that it is made until it is closed.

    Raises ValueError for an argument that is not possible here, OSError where the socket cannot be
    had; its message says what to do.
    """

    def __init__(self, path: str, *, threads: int, memory: int, isa: str = "auto") -> None:
        level = software_card(threads, memory, isa)
        server = ffi.new("struct tepi_card_server **")
        result = lib.tepi_server_open(os.fsencode(path), threads, memory, level, server)
        if result == -errno.ENOTSUP:
            raise no_such_isa(isa)
        if result:
            raise _refused(path, -result)
        self._server: CData | None = server[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def clients(self) -> int:
        """How many are connected."""
        return 0 if self._server is None else lib.tepi_server_clients(self._server)

    def plan_faults(self, plan: Sequence[PlannedFault]) -> None:
        """As Card.plan_faults, for the card that all clients share."""
        if lib.tepi_server_plan_faults(self._open(), planned_array(plan), len(plan)):
            raise ValueError("the card refuses this plan of faults")

    def detach(self) -> None:
        """Surprise removal: the card is off the bus of every client until it is attached."""
        lib.tepi_server_detach(self._open())

    def attach(self) -> None:
        """Put it back, as after a reset."""
        lib.tepi_server_attach(self._open())

    def _open(self) -> CData:
        if self._server is None:
            raise ValueError("the card is not served any more")
        return self._server

    def close(self) -> None:
        """Disconnect every client and remove the socket. Once is enough."""
        server, self._server = self._server, None
        if server is not None:
            lib.tepi_server_close(server)


_REMEDIES = {
    errno.EADDRINUSE: "another server listens there; stop it, or choose another path",
    errno.EEXIST: "there is something else than a socket; remove it, or choose another path",
    errno.ENAMETOOLONG: "too long for a UNIX socket; use a path of at most 107 bytes",
    errno.ENOENT: "the folder does not exist; make it",
    errno.EACCES: "this user may not write to the folder, or reach the socket that is there",
}


def _refused(path: str, number: int) -> OSError:
    why = _REMEDIES.get(number, os.strerror(number))
    return OSError(number, f"cannot serve a card at {path}: {why}")

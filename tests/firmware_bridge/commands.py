# SPDX-License-Identifier: Apache-2.0
"""All commands by their numbers, for whoever reads a recording or plays a server."""

from typing import Any

from firmware_bridge.smp import attest, enumeration, faults, fs, img, os, settings, stat
from firmware_bridge.smp.header import Header
from firmware_bridge.smp.message import Request

GROUPS = {
    module: [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Request) and kind is not Request
    ]
    for module in (os, img, stat, settings, fs, enumeration, attest, faults)
}
COMMANDS: dict[tuple[int, int, int], type[Request[Any]]] = {
    (int(kind.OP), int(kind.GROUP), kind.COMMAND): kind
    for kinds in GROUPS.values()
    for kind in kinds
}


def request_type(header: Header) -> type[Request[Any]] | None:
    """The class of a request with that header, or None where Tepi has no such command."""
    return COMMANDS.get((header.op, header.group, header.command))

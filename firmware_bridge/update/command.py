# SPDX-License-Identifier: Apache-2.0
"""The commands about a card's firmware, under the names by which `tepi` finds them; and what
`tepi card list` and `tepi card reset --port` ask of this room."""

from firmware_bridge.discovery import find_cards as list_ports
from firmware_bridge.update.change_commands import confirm, erase, limits, reset_controller, revert
from firmware_bridge.update.flash_command import flash, flash_command
from firmware_bridge.update.look_commands import dump, identify, look_at, telemetry, versions
from firmware_bridge.update.look_commands import show_history as history

__all__ = [
    "confirm",
    "dump",
    "erase",
    "flash",
    "flash_command",
    "history",
    "identify",
    "limits",
    "list_ports",
    "look_at",
    "reset_controller",
    "revert",
    "telemetry",
    "versions",
]

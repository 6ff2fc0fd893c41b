# SPDX-License-Identifier: Apache-2.0
"""The card as Python objects: the only place where the driver's results become exceptions."""

from device.binding.card import Card, FaultEntry
from device.binding.faults import FAULTS, Fault
from device.binding.program import Program, Record, Timings
from device.binding.server import CardServer

__all__ = ["FAULTS", "Card", "CardServer", "Fault", "FaultEntry", "Program", "Record", "Timings"]

# SPDX-License-Identifier: Apache-2.0
"""Whether a card is well after new firmware, by what its controller says. The wider question, does
the card still compute what it should, is the server's to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from firmware_bridge.client import Controller
from firmware_bridge.controller.faultlog import Code
from firmware_bridge.smp.errors import SmpError

RANGES: Final = {
    ("temp", "die_mc"): (-20_000, 105_000),
    ("temp", "board_mc"): (-20_000, 95_000),
    ("temp", "vrm_mc"): (-20_000, 115_000),
    ("power", "card_mw"): (1_000, 150_000),
    ("clock", "core_khz"): (100_000, 2_000_000),
    ("volt", "core_mv"): (500, 1_100),
    ("volt", "memory_mv"): (1_000, 1_250),
    ("volt", "aux_mv"): (3_135, 3_465),
    ("volt", "input_mv"): (11_040, 12_960),
}
"""(group, field): what a working sensor of a working card shows. A field that a card does not have
is not asked for."""

_GROUPS: Final = ("temp", "power", "volt")
_FATAL: Final = {
    Code.OVER_TEMPERATURE: "too hot",
    Code.FAN_FAILED: "its fan failed",
    Code.ASSERTED: "its firmware stopped on an assertion",
    Code.RECOVERY: "its bootloader found nothing to start",
}


def look(controller: Controller, since: int) -> str:
    """What is wrong with the card, for people; empty where nothing is.

    `since`: number of the last fault from before. Raises BridgeError where the card is silent.
    """
    stats = {}
    for group in _GROUPS:
        try:
            stats[group] = controller.stats(group)
        except SmpError as error:
            return f"it shows no {group} readings: {error}"
    wrong = out_of_range(stats) + new_faults(controller, since)
    return "; ".join(wrong)


def out_of_range(stats: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for each reading that cannot be right."""
    found = []
    for (group, name), (least, most) in RANGES.items():
        value = stats.get(group, {}).get(name)
        if value is not None and not least <= value <= most:
            found.append(f"{group} {name} is {value}, outside {least} to {most}")
    return found


def new_faults(controller: Controller, since: int) -> list[str]:
    """A sentence for each fault after `since` that good firmware does not have."""
    try:
        log = controller.fault_log(since)
    except SmpError:
        return []
    return [f"{_FATAL[Code(f.code)]} ({f.info})" for f in log if f.n > since and f.code in _FATAL]


def why_rejected(controller: Controller, since: int) -> str:
    """What the bootloader had against an image, if it wrote that down."""
    try:
        log = controller.fault_log(since)
    except SmpError:
        return ""
    return next((str(f.info) for f in reversed(log) if f.code == Code.IMAGE_REJECTED), "")

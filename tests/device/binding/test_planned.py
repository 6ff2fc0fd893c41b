# SPDX-License-Identifier: Apache-2.0
"""Plans of faults: read from JSON, refused where they make no sense, suffered by the card."""

import json

import pytest

from device.binding.card import Card
from device.binding.planned import KINDS, PlannedFault, read_plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "a list"),
        ("[1]", "fault 0 .* kind"),
        ('[{"kind": "HANG"}, {"kind": "FIRE"}]', "fault 1 .*unknown kind of fault 'FIRE'"),
        ('[{"kind": "HANG", "when": 1}]', "unknown field 'when'"),
        ('[{"kind": "HANG", "trigger": "x"}]', "unknown trigger"),
        ('[{"kind": "HANG", "after": -1}]', "after must be"),
        ('[{"kind": "SLOW", "factor": 0}]', "factor must be"),
        ('[{"kind": "SLOW", "ns": true}]', "ns must be"),
        ('[{"kind": "HANG", "repeat": 1}]', "repeat needs after"),
        ("[", "Expecting"),
    ],
)
def test_plan_that_makes_no_sense(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_plan(text)


def test_plan_of_every_kind_is_read() -> None:
    plan = read_plan(json.dumps([{"kind": kind, "after": 3} for kind in KINDS]))
    assert plan == [PlannedFault(kind, after=3) for kind in KINDS]


def test_plan_too_long(card: Card) -> None:
    with pytest.raises(ValueError, match="at most 64"):
        card.plan_faults([PlannedFault("HANG", after=9)] * 65)


def test_throttled_card_says_so_until_it_is_reset(card: Card) -> None:
    cool = card.info["temperature_mc"]
    card.plan_faults([PlannedFault("THERMAL_THROTTLE", factor=2)])
    assert [entry.fault for entry in card.faults()] == ["THERMAL_THROTTLE"]
    assert card.alive
    hot = card.info["temperature_mc"]
    assert isinstance(cool, int) and isinstance(hot, int) and hot >= 95000 > cool
    card.reset()
    assert card.info["temperature_mc"] < 95000  # type: ignore[operator]


def test_workers_count_their_time(card: Card) -> None:
    assert len(card.busy_ns) == card.info["workers"]
    assert card.info["executed"] == 0

# SPDX-License-Identifier: Apache-2.0
"""Plans of faults: read from JSON, refused where they make no sense, suffered by the card."""

import json
from typing import Any

import numpy as np
import onnx
import pytest

from device.binding.card import Card
from device.binding.planned import KINDS, PlannedFault, read_plan
from device.errors import CardFault, CardGone
from device.session import Session

from ..compiler.building import Builder


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
        ('[{"kind": "BIT_FLIP", "count": 3}]', "count of BIT_FLIP must be from 1 to 2, got 3"),
        ('[{"kind": "BIT_FLIP_UNDETECTED", "count": 0}]', "count .* must be from 1 to 1000"),
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


def convolution() -> bytes:
    """FP32 [1, 16, 5, 5] -> one QDQ convolution -> FP32 [1, 8, 5, 5]."""
    b = Builder()
    b.inputs.append(onnx.helper.make_tensor_value_info("x", 1, [1, 16, 5, 5]))
    b.quantized("x", "xq", 0.02, 120, output=False)
    w, x = b.weights("w", (8, 16, 1, 1), channels=True), b.again("xq")
    b.quantized(b.node("Conv", (x, w, b.bias("c", 8, "xq", "w")), "conv"), "yq", 0.05, 100)
    b.output(b.again("yq"), onnx.TensorProto.FLOAT)
    return b.model().SerializeToString()


def answer(session: Session) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(1).normal(0, 1, (1, 16, 5, 5)).astype(np.float32)
    return session.run(None, {"x": x})[-1]


def test_bit_flips_are_corrected_or_found_or_change_the_answer(card: Card) -> None:
    with Session(convolution(), card=card) as session:
        right = answer(session)
        assert {row.where for row in session.placement} == {"card"}

        card.plan_faults([PlannedFault("BIT_FLIP", "execute", after=1, repeat=19)])
        for _ in range(20):
            np.testing.assert_array_equal(answer(session), right)
        assert card.info["ecc_corrected"] == 20
        assert {entry.fault for entry in card.faults()} == {"MEMORY_ECC_CORRECTED"}

        card.plan_faults([PlannedFault("BIT_FLIP", "execute", after=1, count=2)])
        with pytest.raises(CardFault, match="MEMORY_ECC"):
            answer(session)
        session.reload()
        np.testing.assert_array_equal(answer(session), right)

        card.plan_faults([PlannedFault("BIT_FLIP_UNDETECTED", "execute", after=1, count=20)])
        wrong = answer(session)
        assert (wrong != right).any()
        np.testing.assert_array_equal(answer(session), wrong)
        assert card.info["ecc_corrected"] == 20
        card.reset()
        session.reload()
        np.testing.assert_array_equal(answer(session), right)


def test_card_that_is_removed_by_plan_returns(card: Card) -> None:
    with Session(convolution(), card=card) as session:
        right = answer(session)
        card.plan_faults([PlannedFault("REMOVAL", "execute", after=1)])
        with pytest.raises(CardGone):
            answer(session)
        assert not card.alive
        card.attach()
        session.reload()
        np.testing.assert_array_equal(answer(session), right)

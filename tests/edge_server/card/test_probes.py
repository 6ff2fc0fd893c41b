# SPDX-License-Identifier: Apache-2.0
"""Shadow requests: made up, and kept from clients."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_server.card.probes import RECENT, RECENT_BYTES, Probes
from edge_server.engines.engine import Array, FeedError, TensorInfo


class Doubling:
    """Doubles its input, and adds `error`."""

    device = "test"
    inline = True
    inputs: tuple[TensorInfo, ...] = (TensorInfo.of("x", "tensor(float)", ["n", 3]),)
    outputs: tuple[TensorInfo, ...] = (TensorInfo.of("y", "tensor(float)", ["n", 3]),)

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.runs = 0
        self.refuses = False

    def run(
        self, names: Sequence[str], feeds: Mapping[str, Array], deadline_s: float | None = None
    ) -> list[Array]:
        self.runs += 1
        if self.refuses and feeds["x"].any():
            raise FeedError("not these")
        return [feeds["x"] * np.float32(2) + np.float32(self.error)]

    def close(self) -> None:
        """Nothing to close."""


def test_a_card_that_answers_right_passes() -> None:
    probes = Probes.answered_by(Doubling())
    card = Doubling()
    assert probes.check(card) == ""
    assert card.runs == 3


def test_a_card_that_answers_wrong_fails_with_the_difference() -> None:
    probes = Probes.answered_by(Doubling())
    wrong = probes.check(Doubling(error=5))
    assert wrong.startswith("shadow request 0: output 0: 3 of 3 values differ, by up to 5")


def test_a_card_must_repeat_its_own_answers_to_the_bit() -> None:
    """Small errors are accepted of a card that makes them from the start, and only the same."""
    probes = Probes.answered_by(Doubling())
    assert probes.check(Doubling(error=1e-7)) == ""
    assert probes.check(Doubling(error=1e-7)) == ""
    assert "the card's own answer before" in probes.check(Doubling())


def test_requests_that_the_reference_refuses_are_left_out() -> None:
    reference = Doubling()
    reference.refuses = True
    card = Doubling()
    assert Probes.answered_by(reference).check(card) == ""
    assert card.runs == 1  # zeros


def test_newest_requests_of_clients_are_run_again_once() -> None:
    probes = Probes()
    for n in range(RECENT + 3):
        x = np.full((1, 3), n, np.float32)
        probes.remember(["y"], {"x": x}, [x * 2])
    card = Doubling()
    assert probes.check(card) == ""
    assert card.runs == RECENT
    assert probes.check(card) == "" and card.runs == RECENT
    probes.remember(["y"], {"x": np.ones((1, 3), np.float32)}, [np.ones((1, 3), np.float32)])
    assert "a client's request run again: output 0" in probes.check(card)


def test_large_requests_are_not_kept() -> None:
    probes = Probes()
    x = np.zeros((RECENT_BYTES // 12 + 1, 3), np.float32)
    probes.remember(["y"], {"x": x}, [x])
    card = Doubling()
    assert probes.check(card) == "" and card.runs == 0

# SPDX-License-Identifier: Apache-2.0
"""Several cards: who goes when, and what an interruption does to the others."""

import threading

import pytest

from firmware_bridge.errors import CardSilent
from firmware_bridge.update.flow import Outcome
from firmware_bridge.update.several import Stoppable, update_all
from firmware_bridge.update.steps import Step
from tests.firmware_bridge.update.emulated_card import Diary

WAIT = 10.0


def outcome(port: str) -> Outcome:
    return Outcome(f"card-{port}", port, Step.DONE, "1.0.0", "1.1.0", True)


def test_others_begin_when_the_first_is_done_and_go_side_by_side() -> None:
    done: list[str] = []
    together = threading.Barrier(2)

    def update(port: str) -> Outcome:
        if port != "a":
            assert done == ["a"]
            together.wait(WAIT)  # both are under way, or this breaks
        else:
            done.append(port)
        return outcome(port)

    results = update_all(["a", "b", "c"], update, 2, threading.Event())
    assert [result.port for result in results] == ["a", "b", "c"]
    assert all(result.exit_code == 0 for result in results)


def test_one_that_fails_does_not_stop_its_neighbours() -> None:
    def update(port: str) -> Outcome:
        if port == "b":
            raise CardSilent("card b: nothing answers")
        return outcome(port)

    first, second, third = update_all(["a", "b", "c"], update, 1, threading.Event())
    assert (first.exit_code, second.exit_code, third.exit_code) == (0, 17, 0)


def test_interruption_ends_every_update_at_its_next_word() -> None:
    stop, ended = threading.Event(), threading.Event()
    told = Stoppable(Diary(), stop)
    under_way = threading.Event()

    def update(port: str) -> Outcome:
        if port == "b":
            under_way.wait(WAIT)
            raise KeyboardInterrupt
        if port == "c":
            try:
                told.step("c", Step.UPLOAD, "")
                under_way.set()
                assert stop.wait(WAIT)
                told.progress("c", 1, 2)
            except KeyboardInterrupt:
                ended.set()
                raise
        return outcome(port)

    with pytest.raises(KeyboardInterrupt):
        update_all(["a", "b", "c"], update, 2, stop)
    assert ended.is_set(), "and it was waited for"

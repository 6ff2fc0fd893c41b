# SPDX-License-Identifier: Apache-2.0
"""Trying again, without waiting."""

import random

import pytest

from registry.remote.backoff import Retry
from registry.remote.errors import Missing, RemoteError, ServerTrouble, TooManyRequests


class Failing:
    """Raises what it was given, one after the other, then returns its number of calls."""

    def __init__(self, *errors: RemoteError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


def retry(pauses: list[float], attempts: int = 4, **settings: float) -> Retry:
    return Retry(attempts, rng=random.Random(1), sleep=pauses.append, **settings)


def test_pauses_grow_are_drawn_and_bounded() -> None:
    found = Retry(rng=random.Random(1), base=1.0, cap=8.0)
    for failures, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (1000, 8.0)):
        drawn = [found.pause(failures, None) for _ in range(200)]
        assert 0 <= min(drawn) < most * 0.1 and most * 0.9 < max(drawn) <= most


def test_it_is_tried_until_it_succeeds() -> None:
    pauses: list[float] = []
    action = Failing(ServerTrouble("a"), ServerTrouble("b"))
    assert retry(pauses).run(action) == 3 and len(pauses) == 2


def test_a_storm_of_server_errors_ends() -> None:
    pauses: list[float] = []
    action = Failing(*[ServerTrouble("500", status=500)] * 100)
    with pytest.raises(ServerTrouble):
        retry(pauses).run(action)
    assert action.calls == 4 and len(pauses) == 3


def test_what_will_not_change_is_not_tried_again() -> None:
    action = Failing(Missing("404", status=404))
    with pytest.raises(Missing):
        retry([]).run(action)
    assert action.calls == 1


def test_the_server_says_how_long_to_wait_and_is_believed_up_to_a_bound() -> None:
    pauses: list[float] = []
    busy = [TooManyRequests("429", retry_after=seconds) for seconds in (40.0, 1e6)]
    retry(pauses, patience=100.0).run(Failing(*busy))
    assert pauses == [40.0, 100.0]


def test_progress_starts_the_count_anew() -> None:
    errors: list[RemoteError] = [ServerTrouble("cut") for _ in range(9)]
    for error in errors:
        error.progressed = True
    assert retry([], attempts=2).run(Failing(*errors)) == 10
